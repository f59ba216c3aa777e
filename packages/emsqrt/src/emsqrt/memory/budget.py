"""Reservations under one limit: each guard reserves bytes for one holder."""

from __future__ import annotations

import threading
from types import TracebackType
from typing import Self

from sennit_core.errors import CapTooSmall, MemoryCapExceeded
from sennit_core.units import format_bytes


class BudgetGuard:
    """One reservation. Made by `MemoryBudget.acquire`, resized by its holder, released once.

    Leaving the guard as a context manager releases it; releasing twice does nothing.
    """

    __slots__ = ("_budget", "_size_bytes", "tag")

    def __init__(self, budget: MemoryBudget, size_bytes: int, tag: str) -> None:
        self._budget = budget
        self._size_bytes = size_bytes
        self.tag = tag

    @property
    def size_bytes(self) -> int:
        """Bytes that are reserved now."""
        return self._size_bytes

    def try_resize(self, size_bytes: int) -> bool:
        """Change the reservation to `size_bytes`; False, and no change, when there is no room."""
        if not self._budget._try_change(self, size_bytes):  # noqa: SLF001 - one module, two halves
            return False
        self._size_bytes = size_bytes
        return True

    def resize(self, size_bytes: int) -> None:
        """Change the reservation to `size_bytes`, or raise `MemoryCapExceeded`."""
        if not self.try_resize(size_bytes):
            raise self._budget.refusal(size_bytes - self._size_bytes, self.tag)

    def release(self) -> None:
        """Release the whole reservation."""
        self._budget._forget(self)  # noqa: SLF001 - one module, two halves
        self._size_bytes = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def __repr__(self) -> str:
        return f"BudgetGuard({self.tag!r}, {format_bytes(self._size_bytes)})"


class MemoryBudget:
    """A limit that many holders share; thread-safe; every reservation has a tag.

    Args:
        cap_bytes: the most that all guards together may reserve.
        whole_bytes: the cap that the user configured, for errors; this budget is a part of it.
    """

    def __init__(self, cap_bytes: int, whole_bytes: int | None = None) -> None:
        assert cap_bytes >= 0, "a budget cannot be negative"
        self.cap_bytes = cap_bytes
        self.whole_bytes = cap_bytes if whole_bytes is None else whole_bytes
        self._lock = threading.Lock()
        # Guarded by `_lock`, always true:
        #
        #     _used_bytes = sum of the guards' sizes = sum of _used_by_tag ≤ cap_bytes
        #
        # Several guards may have one tag.
        self._guards: set[BudgetGuard] = set()
        self._used_bytes = 0
        self._peak_bytes = 0
        self._used_by_tag: dict[str, int] = {}
        self._peak_by_tag: dict[str, int] = {}

    @property
    def used_bytes(self) -> int:
        """Bytes reserved now."""
        return self._used_bytes

    @property
    def free_bytes(self) -> int:
        """Bytes that a request could still get."""
        return self.cap_bytes - self._used_bytes

    @property
    def peak_bytes(self) -> int:
        """The most that was ever reserved at once."""
        return self._peak_bytes

    def used_by_tag(self) -> dict[str, int]:
        """Bytes reserved now under each tag that holds any."""
        with self._lock:
            return {tag: size for tag, size in self._used_by_tag.items() if size}

    def peak_by_tag(self) -> dict[str, int]:
        """The most that was ever reserved under each tag."""
        with self._lock:
            return dict(self._peak_by_tag)

    def try_acquire(self, size_bytes: int, tag: str) -> BudgetGuard | None:
        """Reserve `size_bytes`; return None if refused: spill or shrink, then ask again."""
        guard = BudgetGuard(self, 0, tag)
        with self._lock:
            # Added with 0 bytes first, so that growing is the same operation for new guards and old
            # ones.
            self._guards.add(guard)
        if guard.try_resize(size_bytes):
            return guard
        self._forget(guard)
        return None

    def acquire(self, size_bytes: int, tag: str) -> BudgetGuard:
        """Reserve `size_bytes` or raise `MemoryCapExceeded`, which names all holders."""
        guard = self.try_acquire(size_bytes, tag)
        if guard is None:
            raise self.refusal(size_bytes, tag)
        return guard

    def admit(self, size_bytes: int, tag: str, because: str) -> BudgetGuard:
        """Reserve memory that a run needs at least, before it starts, or raise `CapTooSmall`.

        Args:
            size_bytes: the bytes to reserve.
            tag: the holder's name.
            because: the reason for the need, for the error.
        """
        guard = self.try_acquire(size_bytes, tag)
        if guard is None:
            raise CapTooSmall(
                cap_bytes=self.whole_bytes,
                # What is missing here is missing from the whole cap: everything else of it is in
                # use already.
                needed_bytes=self.whole_bytes + size_bytes - self.free_bytes,
                because=because,
            )
        return guard

    def refusal(self, asked_bytes: int, tag: str) -> MemoryCapExceeded:
        """Return the error that a refused request for `asked_bytes` raises."""
        holders = sorted(self.used_by_tag().items(), key=lambda item: -item[1])[:3]
        held = ", ".join(f"{name} {format_bytes(size)}" for name, size in holders) or "nothing"
        return MemoryCapExceeded(
            cap_bytes=self.whole_bytes,
            asked_bytes=asked_bytes,
            what=f"{tag} (held now: {held})",
        )

    def release_all(self) -> None:
        """Release every guard: a resumed run may skip operators that had reserved memory."""
        with self._lock:
            guards = list(self._guards)
        for guard in guards:
            guard.release()

    def close(self) -> None:
        """Check that every guard was released; a leak is a programming error."""
        with self._lock:
            leaked = sorted(repr(guard) for guard in self._guards)
        assert not leaked, f"budget closed while it is held: {', '.join(leaked)}"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # After an error guards may still be open; reporting them would hide the error.
        if kind is None:
            self.close()

    def _try_change(self, guard: BudgetGuard, size_bytes: int) -> bool:
        assert size_bytes >= 0, "a guard cannot be negative"
        with self._lock:
            assert guard in self._guards, f"{guard!r} was released before"
            delta = size_bytes - guard.size_bytes
            # Returning memory never fails, even in a budget that is over its cap.
            if delta > 0 and self._used_bytes + delta > self.cap_bytes:
                return False
            self._count(guard.tag, delta)
            return True

    def _forget(self, guard: BudgetGuard) -> None:
        with self._lock:
            if guard in self._guards:
                self._guards.remove(guard)
                self._count(guard.tag, -guard.size_bytes)

    def _count(self, tag: str, delta: int) -> None:
        self._used_bytes += delta
        self._peak_bytes = max(self._peak_bytes, self._used_bytes)
        used = self._used_by_tag.get(tag, 0) + delta
        self._used_by_tag[tag] = used
        self._peak_by_tag[tag] = max(self._peak_by_tag.get(tag, 0), used)
