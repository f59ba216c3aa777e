"""JSON of bodies, answers and events: by orjson where it is installed, else by the standard library.

Both read integers and finite floats exactly, keep the last of two equal keys, and refuse NaN.
"""

from __future__ import annotations

import json
from typing import Any

orjson: Any
try:
    import orjson
except ImportError:  # the embedded store needs no JSON; the extra `server` installs it
    orjson = None

__all__ = ["dump", "load"]


def load(body: bytes) -> Any:
    """Parse a body.

    Raises:
        ValueError: it is not JSON in UTF-8, or nests too deeply.
    """
    if orjson is not None:
        try:
            return orjson.loads(body)
        except orjson.JSONDecodeError:  # lone surrogates: the tree's own check names the place
            pass
    try:
        return json.loads(body, parse_constant=_refuse_constant)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def dump(value: Any, *, pretty: bool = False) -> bytes:
    """Return JSON in UTF-8."""
    if orjson is not None:
        encoded: bytes = orjson.dumps(value, option=orjson.OPT_INDENT_2 if pretty else None)
        return encoded
    if pretty:
        return json.dumps(value, ensure_ascii=False, indent=2).encode()
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")
