"""Memory for rows that are longer than a sink's normal reservation."""

from __future__ import annotations

from collections.abc import Callable

from emsqrt.io.locations import Location
from emsqrt.long_row import LongRow
from emsqrt.memory import BudgetGuard, MemoryBudget
from sennit_core.errors import CapTooSmall
from sennit_core.units import format_bytes

_OTHER_BYTES = 256 << 10
"""Bytes of other columns, and of other rows in the same piece."""


class RowRoom:
    """Enlarges a sink's reservation for the longest row.

    Args:
        guard: the sink's guard.
        budget: the guard's budget.
        place: the output.
        row_bytes_max: the longest row that fits the reservation.
        copies: the least number of copies of a longer row in memory until it is written.
    """

    def __init__(
        self,
        guard: BudgetGuard,
        budget: MemoryBudget,
        place: Location,
        *,
        row_bytes_max: int,
        copies: int,
    ) -> None:
        self.spare_bytes: Callable[[], int] = lambda: 0
        """Returns how much the process may grow: other reservations may not be fully used."""
        self._guard, self._budget, self._place = guard, budget, place
        self._row_bytes_max, self._copies = row_bytes_max, copies
        self._usual_bytes = guard.size_bytes
        self._made_bytes = 0

    def needed_bytes(self, row_bytes: int) -> int:
        """Return the least memory of a row in addition to the reservation for other rows."""
        if row_bytes <= self._row_bytes_max:
            return 0
        return self._copies * (row_bytes + _OTHER_BYTES)

    def expect(self, row_bytes: int, least_bytes: int = 0) -> None:
        """Reserve memory for a row that is in the input, before anything is read.

        Args:
            row_bytes: its length.
            least_bytes: the least bytes to reserve.

        Raises:
            CapTooSmall: less memory is free.
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
        """Reserve memory for a row before it is copied.

        Args:
            row_bytes: its length.
            copies: the number of its copies in memory until it is written.

        Raises:
            LongRow: less memory is free.
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
                memory="sink",
            )
