"""`OutputBuffer`: memory that sorted rows are written to, as a whole or in alternating halves."""

from __future__ import annotations

from collections.abc import Callable


class OutputBuffer:
    """The buffer of the next rows.

    With halves, a written block stays valid until the block after the next one is written.

    Args:
        memory: must hold at least the longest row.
        wait: returns once no reader uses the memory; None to use all of it for each block.
        block_bytes: without halves, use no more than this unless one row is longer.
    """

    def __init__(
        self,
        memory: memoryview,
        wait: Callable[[], None] | None = None,
        *,
        block_bytes: int | None = None,
    ) -> None:
        #     wait is None:   | part 0 (block_bytes)   |      one part, used for every block
        #     with `wait`:    | part 0     | part 1    |      one is read while the other is filled
        middle = len(memory) // 2
        self._memory = memory
        self._wait = wait or (lambda: None)
        self._parts = [memory[:block_bytes]] if wait is None else [memory[:middle], memory[middle:]]
        self._at = 0
        self.room = self._parts[0]
        """The part that is being filled, or was filled last."""

    @classmethod
    def over(cls, memory: memoryview | OutputBuffer) -> OutputBuffer:
        """Return an output buffer unchanged, and wrap plain memory, to be used as a whole."""
        return memory if isinstance(memory, OutputBuffer) else cls(memory)

    def advance(self) -> None:
        """Go on to the next part; if the last block used all memory, wait for its reader first."""
        # A block in one half is read while the other half is filled. A block in all of the memory
        # leaves nothing to fill until it was read.
        if len(self.room) == len(self._memory):
            self._wait()
        self._at = (self._at + 1) % len(self._parts)
        self.room = self._parts[self._at]

    def widen(self) -> bool:
        """Use all of the memory for one block; return False if the last block did already."""
        if len(self.room) == len(self._memory):
            return False
        self._wait()
        self.room = self._memory
        return True
