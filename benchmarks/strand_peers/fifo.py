"""faster-fifo: a byte queue under a process-shared mutex, with pickle."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from strand_peers.measure import Receive, Send, Transport
from strand_peers.standard import Eat

__all__ = ["fifo", "open_fifo"]

_TIMEOUT_SECONDS = 60


def open_fifo(capacity_bytes: int) -> Any:
    """Make a queue, before the fork."""
    import faster_fifo

    return faster_fifo.Queue(capacity_bytes)


def fifo(
    eat: Eat, *, put_many: bool = False, get_many: int = 0, capacity_bytes: int = 1 << 25
) -> Transport:
    """A transport with `put`, or `put_many` of each message; `get`, or `get_many` at most."""
    queue = open_fifo(capacity_bytes)

    @contextmanager
    def sender() -> Iterator[Send]:
        put = queue.put_many if put_many else queue.put

        def send(messages: Sequence[Any]) -> None:
            for message in messages:
                put(message, timeout=_TIMEOUT_SECONDS)

        yield send

    @contextmanager
    def receiver() -> Iterator[Receive]:
        def get() -> Any:
            if get_many:
                return queue.get_many(timeout=_TIMEOUT_SECONDS, max_messages_to_get=get_many)
            return queue.get(timeout=_TIMEOUT_SECONDS)

        yield lambda units: eat(get, units)

    return Transport(sender, receiver)
