"""What is looked up in files once, while a plan is opened again and again to find a cap for it."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeVar

T = TypeVar("T")

_FOUND: ContextVar[dict[Hashable, Any] | None] = ContextVar("found", default=None)


@contextmanager
def looking_once() -> Iterator[None]:
    """Have `look_up` keep what it finds, for the length of a `with` on this thread."""
    outer = _FOUND.set({})
    try:
        yield
    finally:
        _FOUND.reset(outer)


def look_up(key: Hashable, look: Callable[[], T]) -> T:
    """Return what `look` finds, or found for this key before.

    Args:
        key: a file and what is looked up in it.
        look: reads the file.
    """
    found = _FOUND.get()
    if found is None:
        return look()
    if key not in found:
        found[key] = look()
    kept: T = found[key]
    return kept
