"""Chunk transfer between two nodes, beside the same bytes over one plain WebSocket with TLS 1.3.

A process of its own has a node with a dataset, and a plain server of the library that the nodes use. This
process has the other node. In each pass it reads as many bytes from the plain server, which verifies and
stores nothing, and then fetches the shards, whose chunks are verified, written and synced.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import psutil
import pyarrow as pa
from websockets.asyncio.client import connect
from websockets.asyncio.server import ServerConnection, serve

from lake import Lake
from lake.peers.data import data_parts
from lake.peers.service import PeerOptions, PeerService
from lake.peers.transport.identity import Identity

__all__ = ["run"]

_FRAME_BYTES = 1 << 20
_SHARDS = 4
_MEMORY = "512 MiB"


def run(megabytes: int, passes: int) -> None:
    """Print how fast shards are transferred.

    Args:
        megabytes: The size of the dataset.
        passes: How often it is transferred; the median counts.
    """
    with tempfile.TemporaryDirectory() as folder, sender(Path(folder), megabytes) as lines:
        invite, port, pid = next(lines), int(next(lines)), int(next(lines))
        with opened(Path(folder) / "rome", "rome") as (lake, peers):
            peers.join(invite)
            until(lambda: any(info.name == "big" for info in lake.catalog.list()))
            shards = lake.catalog.manifest("big").snapshot.shards
            names = [shard.object for shard in shards]
            size = sum(shard.bytes for shard in shards)
            plain, fetched = [], []
            for _ in range(passes + 1):
                plain.append(measured(pid, lambda: asyncio.run(read(peers.identity, port, size))))
                lake.retention.drop_copies(names, set)  # none is of its own
                fetched.append(measured(pid, lambda: peers.fetch(names)))
    print(f"\ntransfer: {size / 1e6:.0f} MB in {len(names)} shards, {passes} passes")
    print(f"{'':20}{'s':>7}{'MB/s':>7}{'of plain':>10}{'CPU s':>8}{'of plain':>10}")
    base = middle(plain)
    for title, took in (("TLS 1.3 websocket", base), ("chunks", middle(fetched))):
        speed, share = size / 1e6 / took.seconds, base.seconds / took.seconds
        row = f"{took.seconds:7.2f}{speed:7.0f}{share:10.2f}{took.cpu:8.2f}{base.cpu / took.cpu:10.2f}"
        print(f"{title:20}{row}")


@dataclass(frozen=True)
class Took:
    """Seconds of the clock, and of the CPUs in both processes."""

    seconds: float
    cpu: float


def middle(passes: list[Took]) -> Took:
    """Return the medians; the first pass fills caches."""
    counted = passes[1:]
    return Took(median(each.seconds for each in counted), median(each.cpu for each in counted))


def measured(pid: int, work: Callable[[], object]) -> Took:
    """Return what a function takes, in this process and another one."""
    started, cpu = time.perf_counter(), cpu_seconds(pid)
    work()
    return Took(time.perf_counter() - started, cpu_seconds(pid) - cpu)


def cpu_seconds(pid: int) -> float:
    """Return the CPU time so far of this process and another one, without their executors."""
    times = [psutil.Process(each).cpu_times() for each in (os.getpid(), pid)]
    return sum(each.user + each.system for each in times)


def until(condition: Callable[[], object]) -> None:
    """Wait until a condition holds.

    Raises:
        TimeoutError: It does not within a minute.
    """
    end = time.monotonic() + 60
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError("the nodes do not see each other's dataset")
        time.sleep(0.05)


@contextmanager
def opened(folder: Path, name: str) -> Iterator[tuple[Lake, PeerService]]:
    """Start a node."""
    with Lake(folder, memory_bytes=_MEMORY) as lake:
        identity = Identity(lake.storage.node_key)
        options = PeerOptions(name, capacity=0)
        with PeerService(identity, lake.tree, options, data=data_parts(lake)) as peers:
            yield lake, peers


async def read(identity: Identity, port: int, size: int) -> None:
    """Read bytes from the plain server."""
    context = identity.client_context(anonymous=True)
    async with connect(f"wss://127.0.0.1:{port}", ssl=context, compression=None,
                       max_size=2 * _FRAME_BYTES, proxy=None) as connection:  # fmt: skip
        await connection.send(str(size))
        received = 0
        while received < size:
            received += len(await connection.recv(decode=False))


@contextmanager
def sender(folder: Path, megabytes: int) -> Iterator[Iterator[str]]:
    """Start the sending process; yield the lines that it prints."""
    command = [sys.executable, "-m", "lake_peers.transfer", str(folder / "oslo"), str(megabytes)]
    place = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True, env=place
    ) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        yield iter(process.stdout)
        process.stdin.close()  # which ends it


def send(folder: Path, megabytes: int) -> None:
    """Share a dataset, and serve plain bytes, until standard input ends."""
    with opened(folder, "oslo") as (lake, peers):
        for _ in range(_SHARDS):
            rows = megabytes * 1_000_000 // _SHARDS // 8
            values = pa.array(memoryview(os.urandom(rows * 8)).cast("q"))
            lake.append("big", pa.table({"value": values}))
        invite = peers.invite()
        peers.share("big", None)
        until(peers.shared.copies)  # it is published
        print(invite, flush=True)
        asyncio.run(serve_plain(peers.identity))


async def serve_plain(identity: Identity) -> None:
    """Serve as many bytes as are asked for."""

    async def answer(connection: ServerConnection) -> None:
        frame = os.urandom(_FRAME_BYTES)
        for _ in range(-(-int(await connection.recv()) // _FRAME_BYTES)):
            await connection.send(frame)
        await connection.wait_closed()

    context = identity.server_context([])
    async with serve(answer, "127.0.0.1", 0, ssl=context, compression=None) as server:
        print(next(iter(server.sockets)).getsockname()[1], flush=True)
        print(os.getpid(), flush=True)
        await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    send(Path(sys.argv[1]), int(sys.argv[2]))
