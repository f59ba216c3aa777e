"""Facts about files that a process reads again and again: footers, page headers, fingerprints.

Only for files that are never changed in place, such as the shards of a dataset. A file is recognised
by its inode, size and times, as `lake.objects.verification` does: that would miss a write within the
resolution of the file system's clock, after which Arrow could be given the footer of other bytes.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeVar

from emsqrt.io.sources import ByteSource

T = TypeVar("T")

_HELD_BYTES_MAX = 1 << 20
"""As much as the footers of some forty files with twenty columns; a run's cap pays for it."""
_FACT_SHARE = 8
"""A fact is kept if it needs at most this fraction: one large footer must not replace all others."""
_FACT_BYTES = 512
"""Memory of a fact for each of its files, in addition to what its reader says: key and entry."""


class FileFacts:
    """Facts by file; those that were not used for the longest time are dropped.

    Args:
        held_bytes_max: the most memory of all facts.
    """

    def __init__(self, held_bytes_max: int = _HELD_BYTES_MAX) -> None:
        self._held_bytes_max = held_bytes_max
        # `_held_bytes` is the sum of the sizes.
        self._facts: OrderedDict[Hashable, tuple[Any, int]] = OrderedDict()
        self._held_bytes = 0

    @property
    def held_bytes(self) -> int:
        """Memory of all facts, as their readers say."""
        return self._held_bytes

    def find(self, key: Hashable, look: Callable[[], T], size_of: Callable[[T], int]) -> T:
        """Return a fact; `look` reads it if it is not known, `size_of` returns its memory."""
        known = self._facts.get(key)
        if known is not None:
            self._facts.move_to_end(key)
            found: T = known[0]
            return found
        made = look()
        size = size_of(made)
        if size <= self._held_bytes_max // _FACT_SHARE:
            self._facts[key] = made, size
            self._held_bytes += size
            while self._held_bytes > self._held_bytes_max:
                self._held_bytes -= self._facts.popitem(last=False)[1][1]
        return made


_USED: ContextVar[FileFacts | None] = ContextVar("file facts", default=None)


@contextmanager
def remembering(facts: FileFacts) -> Iterator[None]:
    """Make `known_fact` use these facts on this thread for the duration of a `with`."""
    outer = _USED.set(facts)
    try:
        yield
    finally:
        _USED.reset(outer)


def is_remembering() -> bool:
    """Return whether this thread is within `remembering`."""
    return _USED.get() is not None


def known_fact(
    sources: ByteSource | Sequence[ByteSource],
    fact: Hashable,
    look: Callable[[], T],
    size_of: Callable[[T], int],
) -> T:
    """Return a fact about one or several files, which within `remembering` is read once.

    Args:
        sources: the files.
        fact: the name of the fact, with its parameters.
        look: reads it.
        size_of: returns its memory.
    """
    facts = _USED.get()
    if facts is None:
        return look()
    files = (sources,) if isinstance(sources, ByteSource) else sources
    states = tuple(source.state for source in files)
    if None in states:
        return look()
    key_bytes = _FACT_BYTES * max(1, len(states))
    return facts.find((states, fact), look, lambda made: key_bytes + size_of(made))
