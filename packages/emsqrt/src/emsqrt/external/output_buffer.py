"""`OutputBuffer`: memory that sorted rows are put into, all of it or its halves in turn."""

from __future__ import annotations

from collections.abc import Callable


class OutputBuffer:
    """Where the next rows go.

    With halves, what was put out stays as it is until the block after the next is made.

    Args:
        memory: for at least the longest row.
        wait: returns when nobody reads the memory any more; None to use all of it each time.
        block_bytes: without halves, use no more than this unless one row is longer.
    """

    def __init__(
        self,
        memory: memoryview,
        wait: Callable[[], None] | None = None,
        *,
        block_bytes: int | None = None,
    ) -> None:
        middle = len(memory) // 2
        self._memory = memory
        self._wait = wait or (lambda: None)
        self._parts = [memory[:block_bytes]] if wait is None else [memory[:middle], memory[middle:]]
        self._at = 0
        self.room = self._parts[0]
        """What is filled now, or was filled last."""

    @classmethod
    def over(cls, memory: memoryview | OutputBuffer) -> OutputBuffer:
        """Return an outlet as it is, and plain memory as one that is used whole."""
        return memory if isinstance(memory, OutputBuffer) else cls(memory)

    def turn(self) -> None:
        """Go on to the next part; waits for who reads all of the memory, which is more than a part."""
        if len(self.room) == len(self._memory):
            self._wait()
        self._at = (self._at + 1) % len(self._parts)
        self.room = self._parts[self._at]

    def widen(self) -> bool:
        """Take all of the memory for one block; False when that is what there is."""
        if len(self.room) == len(self._memory):
            return False
        self._wait()
        self.room = self._memory
        return True
