"""Compute the cap that a refused run needs: enough, and not much more.

Imported only when a run is refused.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from emsqrt.long_row import LongRow, MemoryKind, RowNeed
from emsqrt.memory.grant_plan import READERS_SHARE, GrantPlan
from sennit_core.errors import CapTooSmall

_STEP_BYTES = 64 << 10


@dataclass(frozen=True, slots=True)
class Shortfall:
    """A run's memory and the row lengths its operators must fit, to compute how much is missing.

    Args:
        start_bytes: free memory when the plan was opened.
        working_bytes: W, the operators' working memory.
        free_bytes: free memory outside W.
        grant_plan: how W is divided.
        holders: how many parts each operator's grant has.
        needs: row lengths that operators must fit.
    """

    start_bytes: int
    working_bytes: int
    free_bytes: int
    grant_plan: GrantPlan
    holders: Mapping[int, int]
    needs: Sequence[RowNeed]

    def part(self, node: int, working_bytes: int) -> int:
        """Return an operator's part of `working_bytes`; the smallest part, when it has none."""
        grants = self.grant_plan.grants(working_bytes)
        parts = {each: grant // self.holders[each] for each, grant in grants.items()}
        return parts.get(node) or min(parts.values(), default=0)

    def missing(self, error: CapTooSmall, node: int) -> int:
        """Return by how much the budget must grow for what an operator was refused."""
        want = error.needed_bytes - error.cap_bytes
        if not isinstance(error, LongRow):
            return self._beyond(want, "grant", node)
        if error.memory == "read":  # rows in transit are held in addition to the reader's
            passing = [rows for _, rows, memory in self.needs if memory == "passing"]
            want += max(passing, default=0) * error.row_bytes
        return max(self._beyond(want, error.memory, node), self.missing_for_row(error.row_bytes))

    def missing_for_row(self, row_bytes: int) -> int:
        """Return by how much the budget must grow for a row of this length, 0 when it fits."""
        wants = [
            self._beyond(rows * row_bytes - self._size(node, memory), memory, node)
            for node, rows, memory in self.needs
        ]
        return max(wants, default=0)

    def _size(self, node: int, memory: MemoryKind) -> int:
        if memory == "grant":
            return self.part(node, self.working_bytes)
        return self.start_bytes if memory == "start" else self.free_bytes

    def _beyond(self, want_bytes: int, memory: MemoryKind, node: int) -> int:
        """Return the growth of the budget that adds `want_bytes` to one kind of memory."""
        if want_bytes <= 0:
            return 0
        if memory == "start" or (memory == "sink" and not self.holders):
            return want_bytes
        if memory == "grant":
            return self._beyond_part(want_bytes, node)
        # Without holders all memory is outside W, and the text engine's readers use half of it.
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
