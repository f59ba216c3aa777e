"""Find the node that a verb or `sennit.connect` should use, and its token."""

from __future__ import annotations

import os
from pathlib import Path

from sennit import run_file
from sennit.data_folder import default_data
from sennit_core.errors import Unavailable


def find_node(data: Path | None = None, url: str | None = None) -> tuple[str, str | None]:
    """Return URL and token of a node: from `url`, else `data`'s run.json, else `SENNIT_URL`.

    Raises:
        Unavailable: none of the three names a running node.
    """
    folder = data or default_data()
    if url is not None:
        return url, os.environ.get("SENNIT_TOKEN") or _token(folder)
    running = run_file.read(folder)
    if running is not None:
        return running.url, os.environ.get("SENNIT_TOKEN") or _token(folder)
    if named := os.environ.get("SENNIT_URL"):
        return named, os.environ.get("SENNIT_TOKEN")
    raise Unavailable(
        "the node",
        message=f"no node is running for {folder}",
        hint="start one with `platform up`, or name one with --data or SENNIT_URL",
    )


def _token(folder: Path) -> str | None:
    try:
        return (folder / "admin.token").read_text(encoding="ascii").strip()
    except FileNotFoundError:
        return None
