"""One mapping of private memory, handed out in slices: what C works in is exactly this.

A slice is given back with its pages, so memory that nobody holds is not charged either.
"""

from __future__ import annotations

import mmap
from contextlib import suppress
from types import TracebackType
from typing import Self

from emsqrt.memory.budget import MemoryBudget
from emsqrt.system_errors import as_told
from sennit_core.errors import MemoryCapExceeded
from sennit_core.units import format_bytes

_PAGE = mmap.PAGESIZE
_HUGE_FROM = 16 << 20
"""Arenas of this size take huge pages, which rows out of order are fetched from much faster."""


class Slice:
    """Part of an arena; a context manager that gives it back.

    Args:
        arena: where it lies.
        start: its first byte there; whole pages.
        size: bytes; whole pages.
        tag: for whom.
    """

    __slots__ = ("_arena", "memory", "size", "start", "tag")

    def __init__(self, arena: Arena, start: int, size: int, tag: str) -> None:
        self._arena = arena
        self.start = start
        self.size = size
        self.tag = tag
        self.memory = arena._view[start : start + size]  # noqa: SLF001 - one module, two halves

    def release(self) -> None:
        """Give the memory back; whoever still works in it holds a buffer, which is an error.

        Raises:
            BufferError: an object still works in it.
        """
        if self.size:
            self.memory.release()
            self._arena._free(self)  # noqa: SLF001 - one module, two halves
            self.size = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


class Arena:
    """A private mapping of a fixed size, reserved in a budget as a whole. A context manager.

    Args:
        size_bytes: rounded down to whole pages.
        budget: asked once, for all of it.

    Raises:
        CapTooSmall: the budget has not that much.
    """

    def __init__(self, size_bytes: int, budget: MemoryBudget) -> None:
        self.size_bytes = size_bytes // _PAGE * _PAGE
        self.peak_bytes = 0
        self._guard = budget.admit(self.size_bytes, "working set", "operators work in that much")
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
        with as_told(f"a working set of {format_bytes(self.size_bytes)}", "reserving"):
            self._map = mmap.mmap(-1, max(self.size_bytes, _PAGE), flags=flags)
        if self.size_bytes >= _HUGE_FROM:
            with suppress(OSError):  # a kernel without them
                self._map.madvise(mmap.MADV_HUGEPAGE)
        self._view = memoryview(self._map)
        self._held: list[Slice] = []

    @property
    def used_bytes(self) -> int:
        """Bytes that are handed out now."""
        return sum(held.size for held in self._held)

    @property
    def largest_bytes(self) -> int:
        """The largest slice that could be had now."""
        return max((end - start for start, end in self._gaps()), default=0)

    def try_take(self, size_bytes: int, tag: str) -> Slice | None:
        """Return a slice of at least `size_bytes`, or None: then spill, shrink or wait.

        It lies at the arena's start or end where it can: who takes one while another is held, one
        after the other as operators do, always finds what is free in one piece.
        """
        size = -(-size_bytes // _PAGE) * _PAGE
        for start, end in self._gaps():
            if end - start >= size:
                at = end - size if start and end == self.size_bytes else start
                found = Slice(self, at, size, tag)
                self._held.append(found)
                self._held.sort(key=lambda held: held.start)
                self.peak_bytes = max(self.peak_bytes, self.used_bytes)
                return found
        return None

    def take(self, size_bytes: int, tag: str) -> Slice:
        """Return a slice of at least `size_bytes`.

        Raises:
            MemoryCapExceeded: there is none.
        """
        found = self.try_take(size_bytes, tag)
        if found is None:
            held = ", ".join(f"{held.tag} {held.size}" for held in self._held) or "nothing"
            raise MemoryCapExceeded(
                cap_bytes=self.size_bytes, asked_bytes=size_bytes, what=f"{tag} (held now: {held})"
            )
        return found

    def take_most(self, size_bytes: int, least_bytes: int, tag: str) -> Slice:
        """Return a slice of `size_bytes`, or the largest there is when it has `least_bytes`.

        Raises:
            MemoryCapExceeded: there is none so large.
        """
        found = self.try_take(size_bytes, tag)
        return self.take(max(least_bytes, self.largest_bytes), tag) if found is None else found

    def close(self) -> None:
        """Unmap it; every slice was given back."""
        leaked = ", ".join(held.tag for held in self._held)
        assert not leaked, f"arena closed while it is held: {leaked}"
        self._view.release()
        self._map.close()
        self._guard.release()

    def abandon(self) -> None:
        """Give the reservation back after a failure, whose traceback may still hold slices."""
        self._guard.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.abandon()

    def _gaps(self) -> list[tuple[int, int]]:
        gaps, start = [], 0
        for held in self._held:
            if held.start > start:
                gaps.append((start, held.start))
            start = held.start + held.size
        if start < self.size_bytes:
            gaps.append((start, self.size_bytes))
        return gaps

    def _free(self, given: Slice) -> None:
        self._held.remove(given)
        self._map.madvise(mmap.MADV_DONTNEED, given.start, given.size)
