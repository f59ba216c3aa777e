"""Shortfall for rows that are longer than what a sink has reserved for all others."""

from __future__ import annotations

from collections.abc import Callable

from emsqrt.io.places import Place
from emsqrt.long_row import LongRow
from emsqrt.memory import BudgetGuard, MemoryBudget
from sennit_core.errors import CapTooSmall
from sennit_core.units import format_bytes

_OVERHEAD_BYTES = 256 << 10
"""Of other columns, and of rows in the same piece."""


class RowRoom:
    """Makes a sink's reservation as large as the longest row asks for.

    Args:
        guard: the sink's.
        budget: whose it is.
        place: what is written.
        row_bytes_max: the longest row that needs no more.
        copies: how often a longer one lies in memory until it is written, at least.
    """

    def __init__(
        self,
        guard: BudgetGuard,
        budget: MemoryBudget,
        place: Place,
        *,
        row_bytes_max: int,
        copies: int,
    ) -> None:
        self.spare_bytes: Callable[[], int] = lambda: 0
        """Returns how much the process may still grow: others may not need all that they hold."""
        self._guard, self._budget, self._place = guard, budget, place
        self._row_bytes_max, self._copies = row_bytes_max, copies
        self._usual_bytes = guard.size_bytes
        self._made_bytes = 0

    def needed_bytes(self, row_bytes: int) -> int:
        """Return what a row that is known to come takes beyond others, at least."""
        if row_bytes <= self._row_bytes_max:
            return 0
        return self._copies * (row_bytes + _OVERHEAD_BYTES)

    def expect(self, row_bytes: int, least_bytes: int = 0) -> None:
        """Make room for a row that is known to come, before anything is read.

        Args:
            row_bytes: its length.
            least_bytes: make so much at least.

        Raises:
            CapTooSmall: there is not that much.
        """
        wanted = max(self.needed_bytes(row_bytes), least_bytes)
        if not wanted:
            return
        if not self._guard.try_resize(self._usual_bytes + wanted):
            whole_bytes = self._budget.whole_bytes
            raise CapTooSmall(
                cap_bytes=whole_bytes,
                needed_bytes=whole_bytes + wanted - self._budget.free_bytes,
                because=f"{self._place} is written with a row of {format_bytes(row_bytes)}",
            )
        self._made_bytes = wanted

    def make(self, row_bytes: int, copies: int) -> None:
        """Make room for a row before it is taken.

        Args:
            row_bytes: its length.
            copies: how often it lies in memory until it is written.

        Raises:
            LongRow: there is not that much.
        """
        wanted = copies * row_bytes
        if wanted <= self._made_bytes:
            return
        if self._guard.try_resize(self._usual_bytes + wanted):
            self._made_bytes = wanted
        elif self.spare_bytes() < wanted:
            raise LongRow(
                cap_bytes=self._budget.free_bytes + self._made_bytes,
                needed_bytes=wanted,
                because=f"a row that is written has {format_bytes(row_bytes)}",
                row_bytes=row_bytes,
                place="sink",
            )
