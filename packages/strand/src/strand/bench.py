"""Measure rings on this machine in less than fifteen seconds: `strand bench`.

Each line is one workload between this process and a forked one, with the same workload through
`multiprocessing.Pipe` for comparison. The best of three short runs counts. `benchmarks/bench_strand.py`
of the repository measures more peers, with longer runs.
"""

from __future__ import annotations

import importlib.util
import mmap
import multiprocessing
import os
import platform
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from strand.ring import Ring, attach_ring, open_ring
from strand.schema import BLOCKS, build_schema

__all__ = ["Measurement", "measure_machine"]

_FORK = multiprocessing.get_context("fork")
_REPEATS = 3
_SHARE = 1.0  # share of the full workload; tests reduce it
_RECORDS = build_schema([("id", "u32"), ("score", "f32"), ("kind", "utf8_ref"), ("label", "utf8")])
_COLUMNS = build_schema([("id", "i64"), ("score", "f64"), ("kind", "u32"), ("weight", "f32")])
_STEP = 2048  # records between acknowledgements
_BLOCK_BYTES = 8 << 20
_ASLEEP_SECONDS = 1e-3


@dataclass(frozen=True)
class Measurement:
    """One line: a workload, and its result for a ring and a pipe in `unit` (records: `/s`)."""

    work: str
    unit: str
    ring: float
    pipe: float | None
    note: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return the measurement as JSON-compatible values."""
        return asdict(self)


def measure_machine(report: Callable[[str], None] | None = None) -> list[Measurement]:
    """Measure this machine; call `report` with each line of the table when it is ready."""
    emit = report or (lambda _: None)
    cpus = len(os.sched_getaffinity(0))
    emit(f"Python {platform.python_version()}, {cpus} CPUs, load {os.getloadavg()[0]:.1f}")
    emit(f"\n{'':<40}{'ring':>12}{'mp.Pipe':>12}{'times':>8}")
    measured = []
    for measurement in _measurements():
        measured.append(measurement)
        emit(_line(measurement))
    return measured


def _measurements() -> Iterator[Measurement]:
    count = int(500_000 * _SHARE)
    some = [(at, at * 0.5, at & 7, f"label{at:05}") for at in range(min(count, 50_000))]
    rows = some * (count // len(some))  # repeated, so that they are in the forked process's caches
    lists = [rows[at : at + 1000] for at in range(0, len(rows), 1000)]
    ring, pipe = _best(_ring_each, rows), _best(_pipe_each, rows[: count // 20])
    yield Measurement("records one by one, seek + 2 gets", "/s", ring, pipe)
    ring, pipe = _best(_ring_lists, lists), _best(_pipe_lists, lists)
    yield Measurement("rows in and out, 1,000 a batch", "/s", ring, pipe)
    if importlib.util.find_spec("numpy"):
        batches = max(2, int(60 * _SHARE))
        ring, pipe = _best(_ring_columns, batches), _best(_pipe_columns, batches)
        yield Measurement("numpy records, 65,536 a batch", "/s", ring, pipe)
    blocks = max(8, int(40 * _SHARE))
    ring, pipe, copy = (_best(run, blocks) for run in (_ring_blocks, _pipe_blocks, _copies))
    note = f"{ring / copy:.0%} of one memcpy"
    yield Measurement("payloads of 8 MiB", "B/s", ring, pipe, note)
    wakes = max(8, int(400 * _SHARE))
    ring, pipe = (min(run(wakes) for _ in range(_REPEATS)) for run in (_ring_wakes, _pipe_wakes))
    yield Measurement("wake of a sleeper, median", "s", ring, pipe)
    yield Measurement("seek + 2 gets, nothing else", "/s", _best(_seeks, rows[:65536]), None)


def _line(measurement: Measurement) -> str:
    ring, pipe = measurement.ring, measurement.pipe
    cells = f"{measurement.work:<40}{_quantity(ring, measurement.unit):>12}"
    if pipe is not None:
        times = pipe / ring if measurement.unit == "s" else ring / pipe
        cells += f"{_quantity(pipe, measurement.unit):>12}{times:>8.1f}"
    return f"{cells}  {measurement.note}".rstrip()


def _quantity(value: float, unit: str) -> str:
    if unit == "s":
        return f"{value * 1e6:.1f} µs"
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.3g} {letter}{unit}"
    return f"{value:.3g} {unit}"


def _best(run: Callable[[Any], float], work: Any) -> float:
    return max(run(work) for _ in range(_REPEATS))


def _timed(produce: Callable[[], object], consume: Callable[[], float]) -> float:
    """Run `produce` in a forked process and `consume` here; return its result per second."""
    barrier = _FORK.Barrier(2)

    def work() -> None:
        barrier.wait()
        produce()

    child = _FORK.Process(target=work)
    child.start()
    try:
        barrier.wait(10)
        begun = time.perf_counter()
        done = consume()
        return done / (time.perf_counter() - begun)
    finally:
        child.join(10)
        if child.is_alive():
            child.kill()
            child.join()


# ---- rings


def _through(ring: Ring, write: Callable[[Any], object], read: Callable[[Any], float]) -> float:
    """Time a ring: call `write` with the producer in the other process, `read` with the consumer."""

    def produce() -> None:
        with attach_ring(ring.fileno()) as own, own.producer() as writer:
            write(writer)

    with ring, ring.consumer() as view:
        return _timed(produce, lambda: read(view))


def _open_records() -> Ring:
    return open_ring(_RECORDS, 16384, "1MiB", prefault=True)


def _ring_each(rows: Sequence[Any]) -> float:
    def write(writer: Any) -> None:
        put = writer.write
        for row in rows:
            put(row)

    return _through(_open_records(), write, lambda view: _seek_all(view, len(rows)))


def _ring_lists(lists: Sequence[Any]) -> float:
    def write(writer: Any) -> None:
        for rows in lists:
            writer.write_record_batch(rows)

    def read(view: Any) -> float:
        return float(sum(1 for _row in view))

    return _through(_open_records(), write, read)


def _seek_all(view: Any, count: int) -> float:
    cursor = view.allocate_cursor()
    seek, get_u32, get_string = cursor.seek, cursor.get_u32, cursor.get_string
    seq = 0
    while seq < count:
        upto = min(view.wait_for_commit(seq), seq + _STEP)
        for at in range(seq, upto):
            seek(at)
            get_u32("id")
            get_string("label")
        view.acknowledge_read(upto)
        seq = upto
    return float(count)


def _seeks(rows: Sequence[Any]) -> float:
    """Read records that were all published before."""
    with open_ring(_RECORDS, 65536, "4MiB") as ring:
        with ring.producer() as writer:
            writer.write_record_batch(rows)
        with ring.consumer() as view:
            cursor = view.allocate_cursor()
            seek, get_u32, get_f32 = cursor.seek, cursor.get_u32, cursor.get_f32
            begun = time.perf_counter()
            for at in range(len(rows)):
                seek(at)
                get_u32("id")
                get_f32("score")
            return len(rows) / (time.perf_counter() - begun)


def _ring_columns(batches: int) -> float:
    table = _make_table()

    def write(writer: Any) -> None:
        for _ in range(batches):
            writer.write_columns(table)

    def read(view: Any) -> float:
        seq = total = 0
        while (upto := view.wait_for_commit(seq)) > seq:
            for part in view.records(seq, upto):
                total += int(part["id"].sum())
            del part
            view.acknowledge_read(upto)
            seq = upto
        return float(seq)

    return _through(open_ring(_COLUMNS, 131072, 4096, prefault=True), write, read)


def _ring_blocks(count: int) -> float:
    block = bytes(_BLOCK_BYTES)

    def write(writer: Any) -> None:
        for _ in range(count):
            writer.write_bytes(block)

    def read(view: Any) -> float:
        return float(sum(len(payload) for payload in view.payloads()))

    return _through(open_ring(BLOCKS, 16, 2 * _BLOCK_BYTES, prefault=True), write, read)


def _ring_wakes(count: int) -> float:
    def wait_each(view: Any) -> Iterator[None]:
        for seq in range(count):
            view.wait_for_commit(seq)
            view.acknowledge_read(seq + 1)
            yield

    ring = open_ring(_COLUMNS, 1024, 4096, prefault=True)

    def produce(ring_bell: Callable[[Callable[[], object]], None]) -> None:
        with attach_ring(ring.fileno()) as own, own.producer() as writer:
            ring_bell(lambda: writer.write((1, 0.5, 2, 1.5)))

    with ring, ring.consumer() as view:
        return _median_wake(count, produce, wait_each(view))


# ---- pipes, and one copy


def _through_pipe(write: Callable[[Any], object], read: Callable[[Any], float]) -> float:
    receiving, sending = _FORK.Pipe(duplex=False)
    with receiving, sending:
        return _timed(lambda: write(sending), lambda: read(receiving))


def _pipe_each(rows: Sequence[Any]) -> float:
    def write(sending: Any) -> None:
        for row in rows:
            sending.send(row)

    def read(receiving: Any) -> float:
        for _ in rows:
            receiving.recv()
        return float(len(rows))

    return _through_pipe(write, read)


def _pipe_lists(lists: Sequence[Any]) -> float:
    def read(receiving: Any) -> float:
        return float(sum(len(receiving.recv()) for _ in lists))

    return _through_pipe(lambda sending: [sending.send(rows) for rows in lists], read)


def _pipe_columns(batches: int) -> float:
    import numpy as np

    table = _make_table()

    def write(sending: Any) -> None:
        for _ in range(batches):
            sending.send_bytes(table.view(np.uint8))

    def read(receiving: Any) -> float:
        for _ in range(batches):
            np.frombuffer(receiving.recv_bytes(), table.dtype)["id"].sum()
        return float(batches * len(table))

    return _through_pipe(write, read)


def _pipe_blocks(count: int) -> float:
    count //= 8  # pipes are about that much slower
    block = bytes(_BLOCK_BYTES)
    into = bytearray(_BLOCK_BYTES)

    def read(receiving: Any) -> float:
        return float(sum(receiving.recv_bytes_into(into) for _ in range(count)))

    return _through_pipe(lambda sending: [sending.send_bytes(block) for _ in range(count)], read)


def _copies(count: int) -> float:
    """Copy blocks inside this process: the upper bound of any transport that copies once."""
    block = bytes(_BLOCK_BYTES)
    with mmap.mmap(-1, _BLOCK_BYTES) as memory:
        memory[:] = block
        begun = time.perf_counter()
        for _ in range(count):
            memory[:] = block
        return count * _BLOCK_BYTES / (time.perf_counter() - begun)


def _pipe_wakes(count: int) -> float:
    receiving, sending = _FORK.Pipe(duplex=False)

    def wait_each() -> Iterator[None]:
        for _ in range(count):
            receiving.recv()
            yield

    with receiving, sending:
        return _median_wake(count, lambda often: often(lambda: sending.send(1)), wait_each())


def _median_wake(
    count: int,
    produce: Callable[[Callable[[Callable[[], object]], None]], None],
    waits: Iterator[None],
) -> float:
    """Return the median time from a signal to the wake-up of its sleeping waiter, in seconds."""
    with mmap.mmap(-1, mmap.PAGESIZE) as shared, memoryview(shared) as page, page.cast("Q") as rung:
        latencies: list[int] = []

        def signal_often(signal: Callable[[], object]) -> None:
            for _ in range(count):
                time.sleep(_ASLEEP_SECONDS)
                rung[0] = time.perf_counter_ns()
                signal()

        def consume() -> float:
            latencies.extend(time.perf_counter_ns() - rung[0] for _ in waits)
            return 0.0

        _timed(lambda: produce(signal_often), consume)
    return sorted(latencies)[count // 2] * 1e-9


def _make_table() -> Any:
    import numpy as np

    table = np.zeros(65536, [("id", "<i8"), ("score", "<f8"), ("kind", "<u4"), ("weight", "<f4")])
    table["id"] = np.arange(len(table))
    return table
