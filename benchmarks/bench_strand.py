"""Arrow batches from one process to another: a block ring beside a pipe and a socket pair.

    python benchmarks/bench_strand.py [--repeats 3] [--mib 512]

The producer serializes each batch as an Arrow IPC message; the consumer rebuilds it and sums one
column, which is checked. Rates count the batches' bytes and are the best of the repeats. All peers
run in one sitting on the same data; the ratio is to the copying ring.
"""

from __future__ import annotations

import argparse
import gc
import multiprocessing as mp
import os
import socket
import time
from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

import strand

FORK = mp.get_context("fork")
Peer = Callable[[pa.RecordBatch, int], int]


def make_batch(rows: int) -> pa.RecordBatch:
    numbers = np.arange(rows)
    labels = pa.array([f"label {i % 100:05}" for i in range(rows)])
    return pa.record_batch(
        {"id": numbers, "score": numbers * 0.5, "at": numbers.astype("M8[us]"), "label": labels}
    )


def add(total: int, batch: pa.RecordBatch) -> int:
    return total + int(pc.sum(batch.column("id")).as_py())


def in_child(work: Callable[[], None]) -> mp.process.BaseProcess:
    child = FORK.Process(target=work)
    child.start()
    return child


def ring(copy: bool) -> Peer:
    def run(batch: pa.RecordBatch, count: int) -> int:
        with strand.open_ring(strand.BLOCKS, records=256, heap="8MiB") as opened:

            def produce() -> None:
                with strand.attach_ring(opened.fileno()) as own, own.producer() as writer:
                    for _ in range(count):
                        writer.write_arrow(batch)

            child = in_child(produce)
            total = 0
            with opened.consumer() as view:
                for received in view.batches(copy=copy):
                    total = add(total, received)
                del received
            child.join()
        return total

    return run


def pipe(batch: pa.RecordBatch, count: int) -> int:
    receiving, sending = FORK.Pipe(duplex=False)

    def produce() -> None:
        for _ in range(count):
            sending.send_bytes(batch.serialize())

    child = in_child(produce)
    total = 0
    for _ in range(count):
        buffer = pa.py_buffer(receiving.recv_bytes())
        total = add(total, pa.ipc.read_record_batch(buffer, batch.schema))
    child.join()
    receiving.close()
    sending.close()
    return total


def socket_pair(batch: pa.RecordBatch, count: int) -> int:
    ours, theirs = socket.socketpair()

    def produce() -> None:
        with theirs.makefile("wb") as file, pa.ipc.new_stream(file, batch.schema) as stream:
            for _ in range(count):
                stream.write_batch(batch)
        theirs.shutdown(socket.SHUT_WR)

    child = in_child(produce)
    theirs.close()
    total = 0
    with ours.makefile("rb", buffering=1 << 20) as file, pa.ipc.open_stream(file) as stream:
        for received in stream:
            total = add(total, received)
    child.join()
    ours.close()
    return total


PEERS: dict[str, Peer] = {
    "ring, copied out": ring(copy=True),
    "ring, zero copy": ring(copy=False),
    "multiprocessing.Pipe": pipe,
    "socketpair, IPC stream": socket_pair,
}


def measure(run: Peer, batch: pa.RecordBatch, count: int, repeats: int) -> float:
    """Return the best rate in bytes a second."""
    expected = count * pc.sum(batch.column("id")).as_py()
    best = 0.0
    for _ in range(repeats):
        gc.collect()
        start = time.perf_counter()
        if run(batch, count) != expected:
            raise SystemExit("a peer lost or changed records")
        best = max(best, batch.nbytes * count / (time.perf_counter() - start))
    return best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--mib", type=int, default=512, help="bytes per run of the largest batches")
    options = parser.parse_args()
    print(f"{os.cpu_count()} CPUs, load {os.getloadavg()[0]:.1f}, pyarrow {pa.__version__}")
    print(f"{'rows in a batch':>16}  {'peer':<24}{'GB/s':>8}{'batches/s':>12}{'ratio':>8}")
    for rows, share in ((100, 32), (1_000, 8), (64_000, 1)):
        batch = make_batch(rows)
        count = max(1, options.mib * 2**20 // share // batch.nbytes)
        base = 0.0
        for name, run in PEERS.items():
            rate = measure(run, batch, count, options.repeats)
            base = base or rate
            speed = f"{rate / 1e9:>8.2f}{rate / batch.nbytes:>12,.0f}{rate / base:>8.2f}"
            print(f"{rows:>16,}  {name:<24}{speed}")


if __name__ == "__main__":
    main()
