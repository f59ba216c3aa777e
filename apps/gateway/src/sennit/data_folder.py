"""Where a node's data folder is when nobody names one; a module of its own, because it is small."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["default_data"]


def default_data() -> Path:
    """Return `SENNIT_DATA`, else `~/.local/share/sennit`."""
    chosen = os.environ.get("SENNIT_DATA")
    return Path(chosen) if chosen else Path.home() / ".local" / "share" / "sennit"
