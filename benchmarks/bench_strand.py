"""Claim: typed records and batches cross processes faster than by any other way from Python.

Every table has its peers in the same run, taking turns in every round: mp.Queue, mp.Pipe,
faster-fifo, pyzmq, iceoryx2, Arrow IPC over a socket, one memcpy. What was sent is built before the clock
starts and summed by the receiver, so no peer can skip work. The best of the rounds is printed with
the median beside it, CPU seconds are user and system time of both sides, and the ratio is to the best peer.
`*` marks our rows; a peer that is missing says why.

    python benchmarks/bench_strand.py [--sections record,wake] [--peers strand,Pipe] [--repeats 5]
                                      [--quick] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import sys
from collections.abc import Callable
from functools import partial
from importlib import metadata
from pathlib import Path

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # its threads would spin beside the peers

import numpy as np
import pyarrow as pa
from strand_peers import arrow, bulk, columns, iceoryx, producers, records, seeks, texts, wakes
from strand_peers.tables import Options, Table, print_summary, run_table

SECTIONS: dict[str, tuple[Callable[[bool], Table], ...]] = {
    "record": (records.one_a_message,),
    "rows": (records.rows_in_batches,),
    "columns": tuple(
        partial(build, batch)
        for build in (columns.same_layout, columns.separate_columns)
        for batch in (1000, 65536)
    ),
    "texts": tuple(
        partial(build, batch)
        for build in (texts.python_columns, texts.arrow_columns)
        for batch in (1000, 64000)
    ),
    "bulk": tuple(partial(bulk.arrays, mebibytes) for mebibytes in (1, 8, 64)),
    "wake": (wakes.of_a_sleeper, wakes.of_a_spinner),
    "arrow": (partial(arrow.string_batches, 1000), partial(arrow.string_batches, 64_000)),
    "fan-in": (producers.eight_to_one,),
    "seeks": (seeks.seeks, seeks.heap_growth),
    "executor": (arrow.executor_path,),
}
PEERS = ("faster-fifo", "pyzmq", "iceoryx2")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--sections", default=",".join(SECTIONS), help="comma list of: %(default)s")
    parser.add_argument("--peers", default="", help="comma list of parts of names; all when empty")
    parser.add_argument("--repeats", type=int, default=3, help="rounds of each table")
    parser.add_argument("--limit", type=float, default=60, help="seconds one run may take")
    parser.add_argument("--quick", action="store_true", help="less work in each run")
    parser.add_argument("--json", type=Path, help="write every run's figures here")
    asked = parser.parse_args()
    unknown = set(asked.sections.split(",")) - set(SECTIONS)
    if unknown:
        parser.error(f"no section {', '.join(sorted(unknown))}; there are {', '.join(SECTIONS)}")
    peers = tuple(part for part in asked.peers.split(",") if part)
    options = Options(asked.repeats, asked.limit, peers)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # what runs is ended, and tidied up
    _print_machine()
    results = []
    try:
        for name in asked.sections.split(","):
            for build in SECTIONS[name]:
                table = build(asked.quick)
                results.append((table, run_table(table, options)))
    finally:
        iceoryx.remove_leftovers()
    print_summary(results)
    if asked.json:
        found = [o.to_json(table) for table, outcomes in results for o in outcomes]
        asked.json.write_text(json.dumps(found, indent=1) + "\n")


def _print_machine() -> None:
    print(
        f"python {platform.python_version()}, numpy {np.__version__}, pyarrow {pa.__version__}, "
        f"{len(os.sched_getaffinity(0))} CPUs, load {os.getloadavg()[0]:.1f}"
    )
    for name in PEERS:
        try:
            print(f"{name} {metadata.version(name)}", end="  ")
        except metadata.PackageNotFoundError:
            print(f"{name} is not installed (lock/bench.txt has it)", end="  ")
    print()


if __name__ == "__main__":
    main()
