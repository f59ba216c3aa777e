"""Sennit's Python API: `import sennit; s = sennit.connect()`, then put, sql, pipeline, tree.

Layers: cli, client -> serve -> app -> routes -> node -> settings, auth, run_file. Importing this
module does not import DuckDB, Arrow or Ray; the first call that needs one imports it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sennit_core.ownership import check_distribution

check_distribution(__file__, "sennit")

if TYPE_CHECKING:
    from pathlib import Path

    from sennit.client import Session

__all__ = ["Session", "connect"]


def connect(
    url: str | None = None, *, token: str | None = None, data: Path | None = None
) -> Session:
    """Connect to a running node: the one at `url`, else the one of the data folder.

    Args:
        url: the node's address, such as `http://127.0.0.1:8600`.
        token: the node's token; by default read from the data folder.
        data: the data folder of a node on this machine.

    Raises:
        Unavailable: no node was found, or it does not respond.
    """
    from sennit.client import Session

    return Session.open(url, token=token, data=data)


def __getattr__(name: str) -> Any:
    if name == "Session":
        from sennit.client import Session

        return Session
    if name == "__version__":
        from importlib.metadata import version

        return version("sennit")
    raise AttributeError(f"module 'sennit' has no attribute {name!r}")
