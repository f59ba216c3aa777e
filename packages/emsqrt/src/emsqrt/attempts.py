"""Runs that begin anew: once a row is met that is too long for shares which nobody made for it.

How long the longest row is, is not known before text is read. Until one is met, memory is shared
out as short rows like it best; then it is shared out again, for rows of that length. Nothing was to
be seen of the first attempt, and what comes out is the same in every byte.
"""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import TypeVar

from emsqrt.memory import MemoryBudget

T = TypeVar("T")

_BESIDE_BYTES = 4096
_BESIDE_SHARE = 32


class LongerRow(Exception):
    """A row was met that is longer than all that a run knew of.

    Args:
        row_bytes: its length, or the least that it may have.
        because: who met it, and where; what a refusal says.
    """

    def __init__(self, row_bytes: int, because: str) -> None:
        super().__init__(because)
        self.row_bytes = row_bytes
        self.because = because

    @property
    def room_bytes(self) -> int:
        """Its length with what heads, marks and ends of fields take."""
        return self.row_bytes + self.row_bytes // _BESIDE_SHARE + _BESIDE_BYTES


def until_known(attempt: Callable[[LongerRow | None], T], budget: MemoryBudget) -> T:
    """Return what an attempt gives that met no row longer than the ones before it.

    Args:
        attempt: is given the longest row that was met; raises `LongerRow` when it meets a longer one.
        budget: all of which belongs to one attempt.
    """
    met: LongerRow | None = None
    while True:
        try:
            return attempt(met)
        except LongerRow as longer:
            met = LongerRow(longer.row_bytes, longer.because)  # the error itself holds all it met
        gc.collect()
        budget.release_all()
