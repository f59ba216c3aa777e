"""Memory over time in block characters, against a cap."""

from __future__ import annotations

from collections.abc import Sequence

_EIGHTHS = " ▁▂▃▄▅▆▇█"
ROWS = 4
"""Rows from zero to the cap; one more above is for memory over the cap."""
_CAP_LINE = "▁"


def bars(columns: Sequence[int], cap_bytes: int) -> list[str]:
    """Return `ROWS` + 1 lines from the top; the bottom of the first one is the cap.

    Args:
        columns: bytes held in each column of the chart, -1 where unknown.
        cap_bytes: the bytes that the height represents.
    """
    above = "".join("█" if held > cap_bytes else _CAP_LINE for held in columns)
    rows = ("".join(_cell(held, cap_bytes, row) for held in columns) for row in range(ROWS))
    return [above, *reversed(list(rows))]


def _cell(held: int, cap_bytes: int, row: int) -> str:
    steps = -(-max(held, 0) * ROWS * 8 // cap_bytes) - row * 8
    return _EIGHTHS[min(max(steps, 0), 8)]


def axis_seconds(seconds: float, least: float = 2.0) -> float:
    """Return the length of a time axis that grows by doubling, so that charts seldom rescale."""
    while least < seconds:
        least *= 2
    return least
