"""Parse and format byte sizes and durations: `64MiB`, `1.5 GB`, `500ms`, `2m`.

Binary units (`KiB` …) are powers of 1024, decimal ones (`kB` …) powers of 1000 (IEC 80000-13).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from sennit_core.errors import UsageError

if TYPE_CHECKING:
    from fractions import Fraction

__all__ = [
    "GIB",
    "KIB",
    "MIB",
    "TIB",
    "format_bytes",
    "format_duration",
    "parse_bytes",
    "parse_duration",
]

KIB = 1024
MIB = 1024 * KIB
GIB = 1024 * MIB
TIB = 1024 * GIB

_BYTES = {
    "": 1,
    "b": 1,
    **{f"{letter}b": 1000**power for power, letter in enumerate("kmgtp", 1)},
    **{f"{letter}ib": 1024**power for power, letter in enumerate("kmgtp", 1)},
}
_SECONDS = {
    "ns": (1, 10**9),
    "us": (1, 10**6),
    "µs": (1, 10**6),
    "ms": (1, 1000),
    "": (1, 1),
    "s": (1, 1),
    "m": (60, 1),
    "min": (60, 1),
    "h": (3600, 1),
    "d": (86400, 1),
}
_QUANTITY = re.compile(r"\s*([0-9]{1,30}(?:\.[0-9]{0,30})?|\.[0-9]{1,30})\s*([A-Za-zµ]*)\s*")


def parse_bytes(text: str | int) -> int:
    """Parse a byte size; a fraction of a byte is dropped.

    Args:
        text: `"64MiB"`, `"1.5 GB"`, `"4096"`, or a plain count, which is returned unchanged.

    Raises:
        UsageError: not a size, a negative one, or an unknown unit.
    """
    if isinstance(text, int) and not isinstance(text, bool):
        if text < 0:
            raise UsageError(f"a size cannot be negative: {text}")
        return text
    number, unit = _split(text, "size", "64MiB")
    factor = _BYTES.get(unit.lower())
    if factor is None:
        raise UsageError(f"unknown unit {unit!r} in size {text!r}", hint="use B, kB, MB, MiB, GiB")
    return int(number * factor)


def format_bytes(count: int) -> str:
    """Format `count` bytes in the largest binary unit that is not above it: `64.0 MiB`, `512 B`."""
    if abs(count) < KIB:
        return f"{count} B"
    size = float(count)
    for unit in ("KiB", "MiB", "GiB", "TiB"):
        size /= 1024
        if abs(round(size, 1)) < 1024:
            return f"{size:.1f} {unit}"
    return f"{size / 1024:.1f} PiB"


def parse_duration(text: str | float) -> float:
    """Parse a duration and return seconds; a plain number is seconds.

    Args:
        text: `"1.5s"`, `"500ms"`, `"2m"`, `"1h"`, `"1d"`, or a number of seconds.

    Raises:
        UsageError: not a duration, a negative one, or an unknown unit.
    """
    if isinstance(text, (int, float)) and not isinstance(text, bool):
        if not 0 <= text < float("inf"):
            raise UsageError(f"a duration must be finite and not negative: {text}")
        return float(text)
    number, unit = _split(text, "duration", "1.5s")
    factor = None if unit == "M" else _SECONDS.get(unit.lower())  # M would be months
    if factor is None:
        raise UsageError(f"unknown unit {unit!r} in duration {text!r}", hint="use ms, s, m, h, d")
    above, below = factor
    return float(number * above / below)


def format_duration(seconds: float) -> str:
    """Format a duration for display: `850 ms`, `12.3 s`, `4 m 05 s`, `2 h 03 m`."""
    if seconds < 0:
        return f"-{format_duration(-seconds)}"
    if round(seconds, 6) < 0.001:
        return f"{seconds * 1e6:.0f} µs"
    if round(seconds, 3) < 1:
        return f"{seconds * 1000:.0f} ms"
    if round(seconds, 1) < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} m {rest:02d} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes:02d} m"


def _split(text: str | float, kind: str, example: str) -> tuple[Fraction, str]:
    match = _QUANTITY.fullmatch(text) if isinstance(text, str) else None
    if match is None:
        raise UsageError(f"not a {kind}: {text!r}", hint=f'write it like "{example}"')
    from fractions import Fraction  # imported here: callers that only format do not need it

    return Fraction(match[1].rstrip(".")), match[2]
