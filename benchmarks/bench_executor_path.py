"""An executor's answer on its way to the gateway: its Strand ring beside a socket pair and a pipe.

    python benchmarks/bench_executor_path.py [--mib 512] [--repeats 5] [--one-core] [--ring 1024]

The same batches leave the same warm executor process by each way and are rebuilt here as Arrow
batches, of which one column is summed and checked, or taken as bytes, as a route takes them. Wall
time is from `submit` to the end of the stream, so the ring's making and the task's frame are in it
and the start of the process is not. CPU seconds are of this process and of the executor. Figures
are the median of the repeats, which go round all ways; ratios are to the socket pair, above 1 where
the ring needs less. Memory is the peak RssAnon + RssShmem of each process over what it was before
the run, sampled from a process outside in a run of its own (`--memory`), where shared pages count
for both sides.
"""

from __future__ import annotations

import argparse
import gc
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from multiprocessing.connection import Client, Listener
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow as pa

    from emsqrt.executor import EntryContext, Execution, ExecutorPool

MIB = 1 << 20
SIZES = (100, 1_000, 8_000, 64_000)
_SAMPLE_SECONDS = 0.002


@lru_cache(maxsize=1)  # the executor makes it in its first run, which is not measured
def make_batch(rows: int) -> pa.RecordBatch:
    import numpy as np
    import pyarrow as pa

    numbers = np.arange(rows)
    labels = pa.array([f"label {i % 100:05}" for i in range(rows)])
    return pa.record_batch(
        {"id": numbers, "score": numbers * 0.5, "at": numbers.astype("M8[us]"), "label": labels}
    )


# ---- in the executor ----------------------------------------------------------------------------


def produce(request: dict[str, Any], context: EntryContext) -> dict[str, Any]:
    """Entry point: send one batch `count` times by the way asked for; answers the CPU seconds."""
    batch = make_batch(request["rows"])
    began = time.process_time()
    _SENDERS[request["way"]](batch, request["count"], context, request.get("address", ""))
    return {"cpu": time.process_time() - began}


def _send_stream(batch: pa.RecordBatch, count: int, context: EntryContext, _address: str) -> None:
    from emsqrt.io.formats import open_format

    with open_format("arrow", batch.schema, context.emit) as writer:
        for _ in range(count):
            context.check()
            writer.write(batch)


def _send_arrow(batch: pa.RecordBatch, count: int, context: EntryContext, _address: str) -> None:
    for _ in range(count):
        context.emit_arrow(batch)


def _send_socket(batch: pa.RecordBatch, count: int, context: EntryContext, address: str) -> None:
    import pyarrow as pa

    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(address)
        with sock.makefile("wb") as file, pa.ipc.new_stream(file, batch.schema) as stream:
            for _ in range(count):
                context.check()
                stream.write_batch(batch)


def _send_pipe(batch: pa.RecordBatch, count: int, context: EntryContext, address: str) -> None:
    with Client(address, "AF_UNIX") as connection:
        connection.send_bytes(batch.schema.serialize())
        for _ in range(count):
            context.check()
            connection.send_bytes(batch.serialize())


_SENDERS: dict[str, Callable[[pa.RecordBatch, int, EntryContext, str], None]] = {
    "stream": _send_stream,
    "arrow": _send_arrow,
    "socket": _send_socket,
    "pipe": _send_pipe,
}

# ---- here ---------------------------------------------------------------------------------------


def add(batches: Iterator[pa.RecordBatch]) -> int:
    import pyarrow.compute as pc

    return sum(int(pc.sum(batch.column("id")).as_py()) for batch in batches)


class Gateway:
    """The receiving side: a pool of one executor, and the addresses of the other ways."""

    def __init__(self, pool: ExecutorPool, folder: Path) -> None:
        self.pool = pool
        self._sock = socket.socket(socket.AF_UNIX)
        self._sock.bind(str(folder / "socket"))
        self._sock.listen(1)
        self._listener = Listener(str(folder / "pipe"), "AF_UNIX")
        self._addresses = {"socket": str(folder / "socket"), "pipe": str(folder / "pipe")}

    def submit(self, way: str, rows: int, count: int) -> Execution:
        request = {"way": way, "rows": rows, "count": count, "address": self._addresses.get(way)}
        return self.pool.submit("bench_executor_path:produce", request)

    def receive_socket(self, _execution: Execution) -> Iterator[pa.RecordBatch]:
        import pyarrow as pa

        peer, _ = self._sock.accept()
        with peer, peer.makefile("rb", buffering=MIB) as file, pa.ipc.open_stream(file) as stream:
            yield from stream

    def receive_bytes(self, _execution: Execution) -> int:
        peer, _ = self._sock.accept()
        taken = 0
        with peer:
            while piece := peer.recv(MIB):
                taken += len(piece)
        return taken

    def receive_pipe(self, _execution: Execution) -> Iterator[pa.RecordBatch]:
        import pyarrow as pa

        with self._listener.accept() as connection:
            schema = pa.ipc.read_schema(pa.py_buffer(connection.recv_bytes()))
            while True:
                try:
                    buffer = pa.py_buffer(connection.recv_bytes())
                except EOFError:
                    return
                yield pa.ipc.read_record_batch(buffer, schema)

    def close(self) -> None:
        self._sock.close()
        self._listener.close()


@dataclass(frozen=True)
class Way:
    """One way from the executor to here; `take` answers the checked sum, or a count of bytes."""

    name: str
    sender: str
    take: Callable[[Gateway, Execution], int]
    as_bytes: bool = False


def _take_payloads(_gateway: Gateway, execution: Execution) -> int:
    return sum(len(bytes(payload)) for payload in execution.payloads())


WAYS = (
    Way("socket pair, batches", "socket", lambda g, e: add(g.receive_socket(e))),
    Way("pipe, batches", "pipe", lambda g, e: add(g.receive_pipe(e))),
    Way("ring, batches", "stream", lambda _, e: add(e.batches())),
    Way("ring, emit_arrow", "arrow", lambda _, e: add(e.batches())),
    Way("socket pair, bytes", "socket", Gateway.receive_bytes, as_bytes=True),
    Way("ring, bytes", "stream", _take_payloads, as_bytes=True),
)


@dataclass(frozen=True)
class Spent:
    """Seconds of one run."""

    wall: float
    here: float
    executor: float


def run(gateway: Gateway, way: Way, batch: pa.RecordBatch, count: int) -> Spent:
    import pyarrow.compute as pc

    gc.collect()
    wall, here = time.perf_counter(), time.process_time()
    with gateway.submit(way.sender, batch.num_rows, count) as execution:
        taken = way.take(gateway, execution)
        spent = time.perf_counter() - wall, time.process_time() - here
        executor = execution.result()["cpu"]
    if way.as_bytes:
        whole = taken >= batch.nbytes * count
    else:
        whole = taken == count * pc.sum(batch.column("id")).as_py()
    if not whole:
        raise SystemExit(f"{way.name} lost or changed records")
    return Spent(*spent, executor)


def compare(gateway: Gateway, rows: int, mib: int, repeats: int) -> None:
    batch = make_batch(rows)
    share = {100: 16, 1_000: 4}.get(rows, 1)
    count = max(1, mib * MIB // share // batch.nbytes)
    gathered: dict[Way, list[Spent]] = {way: [] for way in WAYS}
    for repeat in range(repeats + 1):
        for way in WAYS:
            spent = run(gateway, way, batch, count)
            if repeat:
                gathered[way].append(spent)
    base: Spent | None = None
    for way, runs in gathered.items():
        spent = Spent(*(statistics.median(getattr(run, part) for run in runs) for part in PARTS))
        if way.sender == "socket":
            base = spent
        assert base is not None
        cpu = spent.here + spent.executor
        rate = batch.nbytes * count / spent.wall / 1e9
        print(
            f"{rows:>7,} {way.name:<22}{rate:>7.2f}{spent.wall * 1e3:>9.0f}"
            f"{spent.here * 1e3:>9.0f}{spent.executor * 1e3:>9.0f}"
            f"{base.wall / spent.wall:>8.2f}{(base.here + base.executor) / cpu:>8.2f}"
        )


PARTS = ("wall", "here", "executor")

# ---- memory, from outside -----------------------------------------------------------------------


def watch(pids: list[int]) -> None:
    """Print what each process held at first and at most, until standard input ends."""
    import select

    first = [charged_bytes(pid) for pid in pids]
    peaks = list(first)
    print("watching", flush=True)
    while not select.select([0], [], [], _SAMPLE_SECONDS)[0]:
        peaks = [max(peak, charged_bytes(pid)) for peak, pid in zip(peaks, pids, strict=True)]
    print(*first, *peaks)


def charged_bytes(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return sum(
        int(line.split()[1]) << 10 for line in lines if line.startswith(("RssAnon", "RssShmem"))
    )


def measure_memory(gateway: Gateway, rows: int, mib: int) -> None:
    batch = make_batch(rows)
    count = max(1, mib * MIB // batch.nbytes)
    for way in WAYS:
        run(gateway, way, batch, count)
        gc.collect()
        pids = [os.getpid(), *gateway.pool.stats().pids]
        command = [sys.executable, __file__, "--watch", *map(str, pids)]
        with subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as watcher:
            assert watcher.stdout is not None
            watcher.stdout.readline()
            run(gateway, way, batch, count)
            found = list(map(int, watcher.communicate("")[0].split()))
        here, executor, here_peak, executor_peak = (value / MIB for value in found)
        print(
            f"{rows:>7,} {way.name:<22}{here_peak:>9.1f}{here_peak - here:>+9.1f}"
            f"{executor_peak:>12.1f}{executor_peak - executor:>+9.1f}"
        )


@contextmanager
def open_gateway(ring_bytes: int) -> Iterator[Gateway]:
    from emsqrt.executor import ExecutorPool

    folders = str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, folders))  # for `produce` there
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        with ExecutorPool(
            1,
            memory_bytes=1024 * MIB,
            spill_dir=folder,
            ring_bytes=ring_bytes,
            allow_module_entries=True,
        ) as pool:
            gateway = Gateway(pool, folder)
            try:
                yield gateway
            finally:
                gateway.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--mib", type=int, default=512, help="bytes a run of the largest batches")
    parser.add_argument("--memory", action="store_true", help="measure memory instead of time")
    parser.add_argument("--ring", type=int, default=1024, help="KiB of the ring's heap")
    parser.add_argument("--one-core", action="store_true", help="both processes on one core")
    parser.add_argument("--watch", type=int, nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.watch:
        watch(options.watch)
        return
    if options.one_core:
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    import pyarrow as pa

    print(
        f"{len(os.sched_getaffinity(0))} CPUs, load {os.getloadavg()[0]:.1f}, pyarrow {pa.__version__}"
    )
    with open_gateway(options.ring << 10) as gateway:
        if options.memory:
            print("   rows way                    here MiB     more executor MiB     more")
            for rows in SIZES[-2:]:
                measure_memory(gateway, rows, options.mib)
            return
        print("   rows way                      GB/s  wall ms  here ms  exec ms  × wall   × CPU")
        for rows in SIZES:
            compare(gateway, rows, options.mib, options.repeats)


if __name__ == "__main__":
    main()
