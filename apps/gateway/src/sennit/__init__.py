"""Sennit's façade: `import sennit; s = sennit.connect()`, then put, sql, pipeline, tree.

Layers: cli, client -> serve -> app -> routes -> node -> settings, auth, run_file. Importing this
module loads neither DuckDB nor Arrow nor Ray; they come with the first answer that needs them.
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
        token: what the node knows you by; found beside the data folder when left out.
        data: the data folder of a node on this machine.

    Raises:
        Unavailable: no node was found, or it does not answer.
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
