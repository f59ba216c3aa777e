"""Retry a run with other memory shares after it met a row that is too long for its shares.

The length of the longest row is unknown before text is read. A run first divides memory as suits
short rows; when it meets a longer row, it starts again with shares that fit rows of that length.
The first attempt has produced no visible output, and the output of the retry is byte for byte the
same.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterable
from typing import TypeAlias, TypeVar

from emsqrt.memory import MemoryBudget
from sennit_core.errors import CapTooSmall, TooLarge

T = TypeVar("T")

_OVERHEAD_BYTES = 4096
_OVERHEAD_SHARE = 32


class RowTooLong(Exception):
    """A row is longer than every row that the run knew of.

    Args:
        row_bytes: its length, or a lower bound of it.
        because: which operator met it, and where; used as the reason in a refusal.
        sink_bytes: memory that was needed to write it, where that is known.
    """

    def __init__(self, row_bytes: int, because: str, sink_bytes: int = 0) -> None:
        super().__init__(because)
        self.row_bytes = row_bytes
        self.because = because
        self.sink_bytes = sink_bytes

    @property
    def room_bytes(self) -> int:
        """The row's length plus an allowance for headers, markers and field offsets."""
        return self.row_bytes + self.row_bytes // _OVERHEAD_SHARE + _OVERHEAD_BYTES

    def or_longer_of(self, found: RowTooLong | None) -> RowTooLong:
        """Return the row that looking ahead found if it is longer than this one, else this one."""
        if found is None or found.row_bytes <= self.row_bytes:
            return self
        return RowTooLong(found.row_bytes, found.because, self.sink_bytes)

    def exceeds(self, known: RowTooLong | None) -> bool:
        """Return whether an attempt that knows `known` would share memory differently for it."""
        if known is None:
            return self.row_bytes > 0
        return self.row_bytes > known.room_bytes or self.sink_bytes > known.sink_bytes


LookAhead: TypeAlias = Callable[[int], RowTooLong | None]
"""Searches the input for the longest row within a budget of bytes; returns None when no row is
long."""


def row_of_error(
    error: CapTooSmall | TooLarge, because: str, rows: int, sure_bytes: int
) -> RowTooLong:
    """Return the source row that caused an error, as far as the error says.

    Args:
        error: raised where the row, or what it became, did not fit.
        because: the reason for a refusal.
        rows: how many source rows a packed row may consist of at most.
        sure_bytes: a length that some row of the sources is known to reach, or half of it.
    """
    if isinstance(error, TooLarge):
        return RowTooLong(error.actual_bytes or 0, because)
    row_bytes: int = getattr(error, "row_bytes", 0)
    memory = getattr(error, "memory", "read")
    if memory == "sink":
        return RowTooLong(row_bytes, because, error.needed_bytes)
    if memory != "read":
        row_bytes = max(-(-row_bytes // rows), min(row_bytes, sure_bytes))
    return RowTooLong(row_bytes, because)


def longest_of(rows: Iterable[RowTooLong | None]) -> RowTooLong | None:
    """Return the longest of the rows, or None when there is none."""
    known = [row for row in rows if row is not None]
    return max(known, key=lambda row: row.row_bytes, default=None)


def retry_larger(
    attempt: Callable[[RowTooLong | None], T], look: LookAhead, budget: MemoryBudget
) -> T:
    """Repeat an attempt, each time with the longest row met so far, until none meets a longer row.

    Args:
        attempt: receives the longest known row; raises `RowTooLong` when it meets a longer one.
        look: searches the input for the longest row after the first `RowTooLong`.
        budget: belongs entirely to one attempt at a time.
    """
    met: RowTooLong | None = None
    while True:
        try:
            return attempt(met)
        except RowTooLong as longer:
            # Keep a copy without traceback: the error itself keeps alive everything its frames
            # refer to.
            met = RowTooLong(longer.row_bytes, longer.because, longer.sink_bytes)
        # Frees what the failed attempt opened: its objects refer to each other.
        gc.collect()
        # The attempt is over, and its guards with it; the next one reserves everything anew.
        budget.release_all()
        met = met.or_longer_of(look(budget.free_bytes))
