"""Runs that begin anew: once a row is met that is too long for shares which nobody made for it.

How long the longest row is, is not known before text is read. Until one is met, memory is shared
out as short rows like it best; then it is shared out again, for rows of that length. Nothing was to
be seen of the first attempt, and what comes out is the same in every byte.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterable
from typing import TypeAlias, TypeVar

from emsqrt.memory import MemoryBudget
from sennit_core.errors import CapTooSmall, TooLarge

T = TypeVar("T")

_BESIDE_BYTES = 4096
_BESIDE_SHARE = 32


class LongerRow(Exception):
    """A row was met that is longer than all that a run knew of.

    Args:
        row_bytes: its length, or the least that it may have.
        because: who met it, and where; what a refusal says.
        sink_bytes: what it took to write it, where that is known.
    """

    def __init__(self, row_bytes: int, because: str, sink_bytes: int = 0) -> None:
        super().__init__(because)
        self.row_bytes = row_bytes
        self.because = because
        self.sink_bytes = sink_bytes

    @property
    def room_bytes(self) -> int:
        """Its length with what heads, marks and ends of fields take."""
        return self.row_bytes + self.row_bytes // _BESIDE_SHARE + _BESIDE_BYTES

    def or_longer(self, found: LongerRow | None) -> LongerRow:
        """Return a row that was found by looking ahead, where that one is longer than this."""
        if found is None or found.row_bytes <= self.row_bytes:
            return self
        return LongerRow(found.row_bytes, found.because, self.sink_bytes)

    def is_news_to(self, known: LongerRow | None) -> bool:
        """Whether an attempt that knows of a row, or of none, would gain by knowing this one."""
        if known is None:
            return self.row_bytes > 0
        return self.row_bytes > known.room_bytes or self.sink_bytes > known.sink_bytes


LookAhead: TypeAlias = Callable[[int], LongerRow | None]
"""Looks through the input for the longest row, as far as it may, and with so much memory; None where
none is long."""


def longer_row(
    error: CapTooSmall | TooLarge, because: str, rows: int, sure_bytes: int
) -> LongerRow:
    """Return the row of a source that an error tells of, as far as it does.

    Args:
        error: of who had no room for it, or for what it became.
        because: what a refusal says.
        rows: of how many rows' length it may have become, where it was packed.
        sure_bytes: what some row of the sources has, or half of it.
    """
    if isinstance(error, TooLarge):
        return LongerRow(error.actual_bytes or 0, because)
    row_bytes: int = getattr(error, "row_bytes", 0)
    place = getattr(error, "place", "read")
    if place == "sink":
        return LongerRow(row_bytes, because, error.needed_bytes)
    if place != "read":
        row_bytes = max(-(-row_bytes // rows), min(row_bytes, sure_bytes))
    return LongerRow(row_bytes, because)


def longer_of(rows: Iterable[LongerRow | None]) -> LongerRow | None:
    """Return the longest of some rows, where there is one."""
    known = [row for row in rows if row is not None]
    return max(known, key=lambda row: row.row_bytes, default=None)


def until_known(
    attempt: Callable[[LongerRow | None], T], look: LookAhead, budget: MemoryBudget
) -> T:
    """Return what an attempt gives that met no row longer than the ones before it.

    Args:
        attempt: is given the longest row that is known; raises `LongerRow` when it meets a longer one.
        look: looks for the longest row, once one was met.
        budget: all of which belongs to one attempt.
    """
    met: LongerRow | None = None
    while True:
        try:
            return attempt(met)
        except LongerRow as longer:
            # The error itself holds all that it met.
            met = LongerRow(longer.row_bytes, longer.because, longer.sink_bytes)
        gc.collect()
        budget.release_all()
        met = met.or_longer(look(budget.free_bytes))
