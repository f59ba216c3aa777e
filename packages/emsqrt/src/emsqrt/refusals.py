"""Which cap would do for a run that was refused memory: enough, and not much more.

It is loaded when a run is refused, and not before.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from emsqrt.long_row import LongRow, Place, RowNeed
from emsqrt.memory.grant_plan import READERS_SHARE, GrantPlan
from sennit_core.errors import CapTooSmall

_STEP_BYTES = 64 << 10


@dataclass(frozen=True, slots=True)
class Room:
    """What there is of a run's memory, and who needs what of it.

    Args:
        start_bytes: what was free when the plan was opened.
        working_bytes: W.
        beside_bytes: what is free beside W.
        sharing: of W.
        holders: how many parts each operator's grant has.
        needs: of operators.
    """

    start_bytes: int
    working_bytes: int
    beside_bytes: int
    sharing: GrantPlan
    holders: Mapping[int, int]
    needs: Sequence[RowNeed]

    def part(self, node: int, working_bytes: int) -> int:
        """Return what an operator would have of so much; the smallest part, when it has none."""
        grants = self.sharing.grants(working_bytes)
        parts = {each: grant // self.holders[each] for each, grant in grants.items()}
        return parts.get(node) or min(parts.values(), default=0)

    def missing(self, error: CapTooSmall, node: int) -> int:
        """Return by how much more the budget must be for what an operator was refused."""
        want = error.needed_bytes - error.cap_bytes
        if not isinstance(error, LongRow):
            return self._beyond(want, "grant", node)
        if error.place == "read":  # what passes then lies beside the reader's rows
            passing = [rows for _, rows, place in self.needs if place == "passing"]
            want += max(passing, default=0) * error.row_bytes
        return max(self._beyond(want, error.place, node), self.missing_for_row(error.row_bytes))

    def missing_for_row(self, row_bytes: int) -> int:
        """Return by how much more the budget must be for a row to pass, 0 when it does."""
        wants = [
            self._beyond(rows * row_bytes - self._there_is(node, place), place, node)
            for node, rows, place in self.needs
        ]
        return max(wants, default=0)

    def _there_is(self, node: int, place: Place) -> int:
        if place == "grant":
            return self.part(node, self.working_bytes)
        return self.start_bytes if place == "start" else self.beside_bytes

    def _beyond(self, want_bytes: int, place: Place, node: int) -> int:
        """Return by how much the budget must grow for a place to grow by `want_bytes`."""
        if want_bytes <= 0:
            return 0
        if place == "start" or (place == "sink" and not self.holders):
            return want_bytes
        if place == "grant":
            return self._beyond_part(want_bytes, node)
        # Without holders what is beside is all there is, of which thin readers take half.
        return want_bytes * (READERS_SHARE if self.holders else 2)

    def _beyond_part(self, want_bytes: int, node: int) -> int:
        aim = self.part(node, self.working_bytes) + want_bytes
        low, high = self.working_bytes, 2 * self.working_bytes
        while self.part(node, high) < aim:
            low, high = high, 2 * high
        while high - low > _STEP_BYTES:
            middle = (low + high) // 2
            low, high = (low, middle) if self.part(node, middle) >= aim else (middle, high)
        return (high - self.working_bytes) * READERS_SHARE // (READERS_SHARE - 1)
