"""How deeply the records of a JSON text are nested, found before a parser reads them.

Arrow's JSON reader builds and frees nested types by recursion, so a record of 100,000 brackets
overflows the stack and ends the process.
"""

from __future__ import annotations

import re

import numpy as np

from sennit_core.errors import BadInput

__all__ = ["DEPTH_MAX", "refuse_deep_json"]

DEPTH_MAX = 64

_OTHER_BYTES = bytes(set(range(256)) - set(b'"[]{}'))
_STRING = re.compile(rb'"[^"]*"')
_OPENING, _CLOSING = np.frombuffer(b"[{", np.uint8), np.frombuffer(b"]}", np.uint8)


def refuse_deep_json(data: bytes, what: str, line: int | None = None) -> None:
    """Refuse whole JSON records that are nested deeper than `DEPTH_MAX`.

    Args:
        data: Records, from the beginning of one.
        what: The file, for errors.
        line: Of the first record.

    Raises:
        BadInput: A record is nested too deeply.
    """
    # Flat records have one opening brace each, quickly counted: after the end of another record.
    opening = data.count(b"{") + data.count(b"[")
    if opening - data.count(b"}\n{") - data.count(b"}\r\n{") <= DEPTH_MAX:
        return
    if _depth(data) > DEPTH_MAX:
        reason = f"a record is nested deeper than {DEPTH_MAX} levels"
        raise BadInput(what, line=line, reason=f"{reason} (in the records from this line on)")


def _depth(data: bytes) -> int:
    """Return the greatest nesting; right up to the first byte that is not JSON."""
    # An escaped quote does not end a string; a backslash before it may be escaped itself.
    plain = data.replace(b"\\\\", b"").replace(b'\\"', b"")
    # Two adjacent quotes enclose nothing, or end one string and begin the next.
    marks = plain.translate(None, _OTHER_BYTES).replace(b'""', b"")
    brackets = np.frombuffer(_STRING.sub(b"", marks), np.uint8)
    steps = np.isin(brackets, _OPENING).astype(np.int8) - np.isin(brackets, _CLOSING)
    return int(np.max(np.cumsum(steps, dtype=np.int32), initial=0))
