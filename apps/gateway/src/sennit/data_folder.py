"""The default data folder of a node; a separate module, so that its import is cheap."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["default_data"]


def default_data() -> Path:
    """Return `SENNIT_DATA`, else `~/.local/share/sennit`."""
    chosen = os.environ.get("SENNIT_DATA")
    return Path(chosen) if chosen else Path.home() / ".local" / "share" / "sennit"
