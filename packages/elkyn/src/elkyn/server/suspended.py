"""Coroutines that are started outside of a task, and finished inside one when they have to wait."""

from __future__ import annotations

from collections.abc import Awaitable, Coroutine, Generator
from typing import Any

__all__ = ["Suspended", "try_finish"]


class Suspended:
    """A coroutine that waits for something; await it to go on."""

    def __init__(self, coroutine: Coroutine[Any, Any, None], waits_for: Any) -> None:
        self._coroutine = coroutine
        self._waits_for = waits_for

    def __await__(self) -> Generator[Any, Any, None]:
        waits_for = self._waits_for
        while True:
            sent, error = None, None
            try:
                sent = yield waits_for
            except BaseException as raised:  # noqa: BLE001 - the coroutine's own to handle
                error = raised
            try:
                if error is None:
                    waits_for = self._coroutine.send(sent)
                else:
                    waits_for = self._coroutine.throw(error)
            except StopIteration:
                return


def try_finish(work: Awaitable[None]) -> Suspended | None:
    """Run `work` as far as it goes; None when that is its end."""
    assert isinstance(work, Coroutine)
    try:
        waits_for = work.send(None)
    except StopIteration:
        return None
    return Suspended(work, waits_for)
