"""iceoryx2: samples loaned from shared memory, published and polled.

Each run has a prefix and a folder of its own, so that what a killed run leaves behind is known to
be ours and is removed; a run that goes well leaves nothing.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from strand_peers.measure import FORK, Receive, Send, Transport
from strand_peers.standard import Eat

__all__ = ["loans", "open_node", "place", "remove_leftovers"]

_PREFIX = "strandbench"
_MADE_BY = re.compile(_PREFIX + r"(\d+)_")


def remove_leftovers() -> None:
    """Remove what runs of this process, or of one that is gone, left behind."""
    for folder in (Path("/dev/shm"), Path(tempfile.gettempdir())):
        for path in folder.glob(f"{_PREFIX}*"):
            maker = _MADE_BY.match(path.name)
            if maker is None or (
                int(maker[1]) != os.getpid() and Path(f"/proc/{maker[1]}").exists()
            ):
                continue
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)


def place() -> tuple[str, str]:
    """A prefix and a root folder for one run, named after the process that cleans up."""
    import iceoryx2  # noqa: F401 - missing is told before the fork

    root = tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getppid()}_")
    return f"{_PREFIX}{os.getppid()}_{os.getpid()}_", root


def open_node(where: tuple[str, str]) -> tuple[Any, Any]:
    """A node below a place of its own, and the service's name."""
    import iceoryx2 as iox

    iox.set_log_level(iox.LogLevel.Fatal)
    config = iox.config.default()
    config.global_cfg.prefix = iox.FileName.new(where[0])
    config.global_cfg.root_path = iox.Path.new(where[1])
    node = iox.NodeBuilder.new().config(config).create(iox.ServiceType.Ipc)
    return node, iox.ServiceName.new("bench")


def _service(where: tuple[str, str], queued: int) -> tuple[Any, Any]:
    import ctypes

    import iceoryx2 as iox

    node, name = open_node(where)
    slices = node.service_builder(name).publish_subscribe(iox.Slice[ctypes.c_uint8])
    builder = slices.enable_safe_overflow(False).subscriber_max_buffer_size(queued)
    builder = builder.history_size(0).max_publishers(1).max_subscribers(1)
    return node, builder.open_or_create()


def loans(
    eat: Eat,
    size: Callable[[Any], int],
    fill: Callable[[int, Any], object],
    take: Callable[[Any], Any],
    bytes_max: int,
) -> Transport:
    """A transport that loans `size(message)` bytes, has them filled in place and polls for them.

    `fill` gets the address of a loan. `take` gets a sample and answers with what the eater sums,
    which must not look into the sample any more. A subscriber has nothing to wait on for a sample:
    it polls and yields its core.
    """
    where = place()
    queued = 64 if bytes_max < 1 << 20 else 3
    ready, done = FORK.Event(), FORK.Event()

    @contextmanager
    def sender() -> Iterator[Send]:
        import iceoryx2 as iox

        node, service = _service(where, queued)
        builder = service.publisher_builder().initial_max_slice_len(bytes_max)
        strategy = iox.BackpressureStrategy.RetryUntilDelivered
        publisher = builder.backpressure_strategy(strategy).create()
        ready.wait()

        def send(messages: Sequence[Any]) -> None:
            for message in messages:
                loan = publisher.loan_slice_uninit(size(message))
                fill(loan.payload_ptr, message)
                loan.assume_init().send()

        yield send
        done.wait()
        publisher.delete()
        del service, node

    @contextmanager
    def receiver() -> Iterator[Receive]:
        node, service = _service(where, queued)
        subscriber = service.subscriber_builder().create()
        ready.set()

        def get() -> Any:
            while (sample := subscriber.receive()) is None:
                os.sched_yield()
            taken = take(sample)
            sample.delete()
            return taken

        yield lambda units: eat(get, units)
        done.set()
        subscriber.delete()
        del service, node

    return Transport(sender, receiver)
