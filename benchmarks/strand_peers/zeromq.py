"""pyzmq over an ipc socket: PUSH to PULL."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from strand_peers.measure import Receive, Send, Transport
from strand_peers.standard import Eat

__all__ = ["address", "pull_socket", "push_socket", "sockets"]


def address() -> str:
    """A name in the abstract namespace, which leaves no file behind."""
    return f"ipc://@strand-bench-{os.getpid()}-{time.monotonic_ns()}"


@contextmanager
def push_socket(where: str, high_water: int) -> Iterator[Any]:
    """A connected PUSH socket; leaving sends what is queued."""
    import zmq

    context = zmq.Context()
    socket = context.socket(zmq.PUSH)
    socket.sndhwm = high_water
    socket.connect(where)
    yield socket
    socket.close(linger=60_000)
    context.term()


@contextmanager
def pull_socket(where: str, high_water: int) -> Iterator[Any]:
    """A bound PULL socket."""
    import zmq

    context = zmq.Context()
    socket = context.socket(zmq.PULL)
    socket.rcvhwm = high_water
    socket.bind(where)
    try:
        yield socket
    finally:
        socket.close(0)
        context.term()


def sockets(
    eat: Eat,
    put: Callable[[Any, Any], object],
    get: Callable[[Any], Any],
    high_water: int = 1000,
) -> Transport:
    """A transport whose messages `put(socket, message)` sends and `get(socket)` takes."""
    import zmq  # noqa: F401 - missing is told before the fork

    where = address()

    @contextmanager
    def sender() -> Iterator[Send]:
        with push_socket(where, high_water) as socket:

            def send(messages: Sequence[Any]) -> None:
                for message in messages:
                    put(socket, message)

            yield send

    @contextmanager
    def receiver() -> Iterator[Receive]:
        with pull_socket(where, high_water) as socket:
            yield lambda units: eat(lambda: get(socket), units)

    return Transport(sender, receiver)
