"""Cache of facts read from files, while a plan is opened repeatedly to find a cap for it."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeVar

T = TypeVar("T")

_FOUND: ContextVar[dict[Hashable, Any] | None] = ContextVar("found", default=None)


@contextmanager
def looking_once() -> Iterator[None]:
    """Make `look_up` cache its results on this thread for the duration of a `with`."""
    outer = _FOUND.set({})
    try:
        yield
    finally:
        _FOUND.reset(outer)


def look_up(key: Hashable, look: Callable[[], T]) -> T:
    """Return the result of `look`, cached by `key` within `looking_once`.

    Args:
        key: a file and the name of a fact about it.
        look: reads the file.
    """
    found = _FOUND.get()
    if found is None:
        return look()
    if key not in found:
        found[key] = look()
    kept: T = found[key]
    return kept
