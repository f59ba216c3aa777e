"""One reservation for several holders of which only one is active at a time."""

from __future__ import annotations

from emsqrt.memory.budget import BudgetGuard, MemoryBudget


class MaxOfBudget(MemoryBudget):
    """A budget whose guards do not add up: only the largest guard is reserved in `whole`.

    For readers: an operator reads one input to its end before it begins the next.

    Args:
        whole: the budget in which the largest guard is reserved.
        tag: the tag of that reservation.
    """

    def __init__(self, whole: MemoryBudget, tag: str) -> None:
        # Invariant: `_held`, the one reservation in `whole`, is as large as the largest guard.
        #
        #     guards:    reader of input 1: 3 MiB    reader of input 2: 5 MiB
        #     in whole:  5 MiB
        super().__init__(whole.cap_bytes, whole.whole_bytes)
        self._whole = whole
        self._held = whole.acquire(0, tag)

    @property
    def free_bytes(self) -> int:
        """Bytes that one holder could reserve while it is the active one."""
        return self._whole.free_bytes + self._held.size_bytes

    def release(self) -> None:
        """Release the whole reservation."""
        self._held.release()

    def _try_change(self, guard: BudgetGuard, size_bytes: int) -> bool:
        with self._lock:
            assert guard in self._guards, f"{guard!r} was released before"
            others = [each.size_bytes for each in self._guards if each is not guard]
            if not self._held.try_resize(max(size_bytes, *others, 0)):
                return False
            self._count(guard.tag, size_bytes - guard.size_bytes)
            return True

    def _forget(self, guard: BudgetGuard) -> None:
        with self._lock:
            if guard not in self._guards:
                return
            self._guards.remove(guard)
            self._count(guard.tag, -guard.size_bytes)
            largest = max((each.size_bytes for each in self._guards), default=0)
            # 0 after `release`: readers that are closed later must not reserve again.
            if self._held.size_bytes:
                self._held.try_resize(largest)
