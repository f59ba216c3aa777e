"""Percent-encoding of keys of other systems that contain characters forbidden in tree keys."""

from __future__ import annotations

import re
from urllib.parse import unquote

__all__ = ["escape_key", "unescape_key"]

_FORBIDDEN = re.compile(r"[%.$#\[\]/\x00-\x1f\x7f]")


def escape_key(key: str) -> str:
    """Return `key` with forbidden characters, and `%`, as `%XX`; the empty key becomes `%`."""
    return _FORBIDDEN.sub(lambda found: f"%{ord(found.group()):02X}", key) or "%"


def unescape_key(key: str) -> str:
    """Reverse `escape_key`."""
    return "" if key == "%" else unquote(key, errors="strict")
