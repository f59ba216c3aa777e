"""The memory that C code works in: a fixed number of bytes, allocated in slices.

Every slice is a private mapping of its own, so released memory is not charged to the process, and
all free memory can be allocated as one slice. In one mapping for all slices, the slice in the
middle of three would split the free memory once the other two are released.
"""

from __future__ import annotations

import mmap
from contextlib import suppress
from types import TracebackType
from typing import Self

from emsqrt.memory.budget import MemoryBudget
from emsqrt.system_errors import translating_os_errors
from sennit_core.errors import MemoryCapExceeded
from sennit_core.units import format_bytes

_PAGE = mmap.PAGESIZE
_HUGE_FROM = 16 << 20
"""Arenas of at least this size use huge pages: random access to rows is then much faster."""
_NO_FILE = -1


class Slice:
    """Part of an arena; a context manager that releases it.

    Args:
        arena: the arena that it is part of.
        pages: its mapping.
        tag: the holder's name, for errors.
    """

    __slots__ = ("_arena", "_pages", "memory", "size", "tag")

    def __init__(self, arena: Arena, pages: mmap.mmap, tag: str) -> None:
        self._arena = arena
        self._pages: mmap.mmap | None = pages
        self.size = len(pages)
        self.tag = tag
        self.memory = memoryview(pages)

    def release(self) -> None:
        """Return the memory to the arena.

        A view of the slice may outlive the release: the variable of a loop over blocks still refers
        to the last block. The mapping is removed when the last such reference is gone. Until then
        its pages are returned to the kernel, and it is read-only, so that RLIMIT_DATA
        (`memory.allocation_limit`) does not count its addresses a second time when the next
        operator allocates the same bytes.

        Raises:
            BufferError: an object still uses the memory.
        """
        if self._pages is not None:
            from emsqrt._kernel import seal_pages  # `memory` is imported without the kernel

            # Another view may keep the mapping alive; its pages go back to the kernel now.
            self.memory.release()
            self._pages.madvise(mmap.MADV_DONTNEED)
            seal_pages(self._pages)
            self._pages = None
            self._arena._held.remove(self)  # noqa: SLF001 - one module, two halves

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


class Arena:
    """Private memory of a fixed size, reserved in a budget as a whole. A context manager.

    Args:
        size_bytes: rounded down to whole pages.
        budget: the budget in which `size_bytes` are reserved, once.

    Raises:
        CapTooSmall: the budget has less than `size_bytes` free.
        CapacityError: the operating system refuses to map that much memory.
    """

    def __init__(self, size_bytes: int, budget: MemoryBudget) -> None:
        self.size_bytes = size_bytes // _PAGE * _PAGE
        self.peak_bytes = 0
        # The budget counts the arena once, as a whole: slices are no reservations of their own.
        self._guard = budget.admit(self.size_bytes, "working set", "operators work in that much")
        self._held: list[Slice] = []
        with translating_os_errors(
            f"a working set of {format_bytes(self.size_bytes)}", "reserving"
        ):
            # Map everything once, so that a system limit fails here and not in the middle of a run.
            self._new_pages(max(self.size_bytes, _PAGE)).close()

    @property
    def used_bytes(self) -> int:
        """Bytes of all slices that are held now."""
        return sum(held.size for held in self._held)

    @property
    def free_bytes(self) -> int:
        """Bytes that can be allocated now, also as one slice."""
        return self.size_bytes - self.used_bytes

    def allocate(self, size_bytes: int, tag: str) -> Slice:
        """Return a slice of at least `size_bytes`, in whole pages.

        Raises:
            MemoryCapExceeded: less is free.
        """
        size = -(-size_bytes // _PAGE) * _PAGE
        # The sum of the slices is the bound, and not contiguous space: each slice is a mapping of
        # its own.
        if size > self.free_bytes:
            raise self._lacks(size_bytes, tag)
        try:
            found = Slice(self, self._new_pages(size), tag)
        except OSError as error:  # RLIMIT_DATA: memory outside the arena has come close to the cap
            raise self._lacks(size_bytes, tag, f"; {error.strerror}") from error
        self._held.append(found)
        self.peak_bytes = max(self.peak_bytes, self.used_bytes)
        return found

    def allocate_most(self, size_bytes: int, least_bytes: int, tag: str) -> Slice:
        """Return a slice of `size_bytes`, or of all free memory if that is at least `least_bytes`.

        Raises:
            MemoryCapExceeded: less than `least_bytes` is free.
        """
        free_bytes = self.free_bytes
        size = size_bytes if size_bytes <= free_bytes else max(least_bytes, free_bytes)
        return self.allocate(size, tag)

    def close(self) -> None:
        """Release the reservation; every slice must have been released."""
        leaked = ", ".join(held.tag for held in self._held)
        assert not leaked, f"arena closed while it is held: {leaked}"
        self._guard.release()

    def abandon(self) -> None:
        """Release the reservation after a failure, whose traceback may still hold slices."""
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

    def _new_pages(self, size_bytes: int) -> mmap.mmap:
        pages = mmap.mmap(_NO_FILE, size_bytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        if self.size_bytes >= _HUGE_FROM:
            # Rows are read in the order of their keys, which is random access: a third faster with
            # huge pages (docs/memory.md).
            with suppress(OSError):  # a kernel without huge pages
                pages.madvise(mmap.MADV_HUGEPAGE)
        return pages

    def _lacks(self, size_bytes: int, tag: str, why: str = "") -> MemoryCapExceeded:
        held = ", ".join(f"{held.tag} {held.size}" for held in self._held) or "nothing"
        return MemoryCapExceeded(
            cap_bytes=self.size_bytes, asked_bytes=size_bytes, what=f"{tag} (held now: {held}{why})"
        )
