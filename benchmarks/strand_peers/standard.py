"""multiprocessing's own transports, and shared memory with two semaphores."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

from strand_peers.measure import FORK, Receive, Send, Transport

__all__ = ["pipe", "queue"]

Eat = Callable[[Callable[[], Any], int], float]


def queue(eat: Eat, slots: int = 4096) -> Transport:
    """`multiprocessing.Queue`: pickles in a feeder thread, writes to a pipe."""
    made: Any = FORK.Queue(slots)

    @contextmanager
    def sender() -> Iterator[Send]:
        yield lambda messages: _each(made.put, messages)
        made.close()
        made.join_thread()

    @contextmanager
    def receiver() -> Iterator[Receive]:
        yield lambda units: eat(made.get, units)

    return Transport(sender, receiver)


def pipe(
    eat: Eat,
    put: Callable[[Any, Any], object] | None = None,
    get: Callable[[Any], Any] | None = None,
) -> Transport:
    """`multiprocessing.Pipe`: pickles, unless `put(connection, message)` and `get` do otherwise."""
    receiving, sending = FORK.Pipe(duplex=False)

    @contextmanager
    def sender() -> Iterator[Send]:
        yield lambda messages: _each(partial(put, sending) if put else sending.send, messages)

    @contextmanager
    def receiver() -> Iterator[Receive]:
        yield lambda units: eat(partial(get, receiving) if get else receiving.recv, units)

    return Transport(sender, receiver)


def _each(put: Callable[[Any], object], messages: Sequence[Any]) -> None:
    for message in messages:
        put(message)
