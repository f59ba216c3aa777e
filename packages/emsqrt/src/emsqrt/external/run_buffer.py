"""`RunBuffer`: memory in which rows collect before they are spilled, whole or in two halves.

With halves, reading overlaps with sorting and spilling:

    this thread      fill A │ fill B         │ fill A         │
    second thread           │ sort, spill A  │ sort, spill B  │
"""

from __future__ import annotations

from typing import NamedTuple

from emsqrt._kernel import RowStore


class Half(NamedTuple):
    """A part of the memory, and the rows in it."""

    memory: memoryview
    store: RowStore


class RunBuffer:
    """A row store that fills; once halved, one half fills while the other one is spilled.

    Each new store continues the statistics of all rows that the stores before it have held.

    Args:
        memory: the memory of all rows.
    """

    def __init__(self, memory: memoryview) -> None:
        self._memory = memory
        self._other: Half | None = None
        self.part = Half(memory, RowStore(memory))
        """The part that is being filled."""

    @property
    def is_halved(self) -> bool:
        """Whether there is another half."""
        return self._other is not None

    def halve(self) -> None:
        """Continue in the first half; the store must hold no rows and must not be in use."""
        # The second half is aligned to 64 bytes, as the whole is.
        middle = len(self._memory) // 2 // 64 * 64
        halves = [self._memory[:middle], self._memory[middle:]]
        before = self.part.store
        self.part, self._other = [Half(half, RowStore(half)) for half in halves]
        # The merge compares keys only where they differ, so a new store must know where those of
        # the rows before it did.
        self.part.store.follow(before)

    def swap(self) -> Half:
        """Continue in the other half, which must be empty, and return the full one."""
        assert self._other is not None, "halve first"
        full, self.part = self.part, self._other
        self.part.store.follow(full.store)
        # The full half becomes the other one now; its owner may be the second thread until the next
        # `swap`.
        self._other = full
        return full

    def join(self) -> None:
        """Continue in all of the memory; both halves must be empty and must not be in use."""
        before = self.part.store
        self.part, self._other = Half(self._memory, RowStore(self._memory)), None
        self.part.store.follow(before)
