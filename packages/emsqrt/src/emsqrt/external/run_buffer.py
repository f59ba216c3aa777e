"""Where rows gather before they are spilled: all of a memory, or its halves in turn."""

from __future__ import annotations

from typing import NamedTuple

from emsqrt._kernel import RowStore


class Half(NamedTuple):
    """Some memory, and the rows in it."""

    memory: memoryview
    store: RowStore


class RunBuffer:
    """One store that fills; a second one fills while the first is spilled, once it is halved.

    Each store that takes over knows of all rows that those before it took.

    Args:
        memory: of all rows.
    """

    def __init__(self, memory: memoryview) -> None:
        self._memory = memory
        self._other: Half | None = None
        self.part = Half(memory, RowStore(memory))
        """What fills."""

    @property
    def is_halved(self) -> bool:
        """Whether there is another half."""
        return self._other is not None

    def halve(self) -> None:
        """Go on in the first half; the store holds no rows, and nobody works in it."""
        middle = len(self._memory) // 2 // 64 * 64
        halves = [self._memory[:middle], self._memory[middle:]]
        before = self.part.store
        self.part, self._other = [Half(half, RowStore(half)) for half in halves]
        self.part.store.follow(before)

    def turn(self) -> Half:
        """Go on in the other half, which holds no rows any more, and return the one that is full."""
        assert self._other is not None, "halve first"
        full, self.part = self.part, self._other
        self.part.store.follow(full.store)
        self._other = full
        return full

    def join(self) -> None:
        """Go on in all of the memory; neither half holds rows, and nobody works in them."""
        before = self.part.store
        self.part, self._other = Half(self._memory, RowStore(self._memory)), None
        self.part.store.follow(before)
