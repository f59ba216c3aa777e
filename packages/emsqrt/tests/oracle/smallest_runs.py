"""Every operator over tables that outgrow its memory, and a look at processes from outside."""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Self

from emsqrt import scan
from emsqrt.memory import UsageReader
from emsqrt.pipeline import Pipeline

MIB = 1 << 20
SLACK_BYTES = 2 * MIB
"""A named cap is at most so much above the smallest that runs: a quarter of a MiB is how close it is
looked for, its margin is 1/128, and what two processes hold before they start differs by the rest."""
Verb = Callable[[Pipeline, Pipeline], Pipeline]
TEXT_TIER: dict[str, Verb] = {
    "scan": lambda a, b: a,
    "filter": lambda a, b: a.filter("n > 0"),
    "project": lambda a, b: a.select("n", "k"),
    "compute": lambda a, b: a.with_column("m", "n * 2 + k"),
    "limit": lambda a, b: a.limit(100_000, 1000),
    "sort": lambda a, b: a.sort("k:desc", "t"),
    "top": lambda a, b: a.top_k(1000, "t"),
    "many tops": lambda a, b: a.top_k(50_000, "t", offset=5),
    "aggregate": lambda a, b: a.group_by("k").agg(s="sum(n)", m="avg(n)", lo="min(n)"),
    "aggregate texts": lambda a, b: a.group_by("t").agg("count(*)", d="count(distinct n)"),
    "quantiles": lambda a, b: a.group_by("k").agg(q="median(n)", f="first(n)", l="last(n)"),
    "no key": lambda a, b: a.agg("count(*)", s="sum(n)", h="approx_count_distinct(k)"),
    "distinct": lambda a, b: a.distinct(),
    "join": lambda a, b: a.join(b, "k"),
    "left join": lambda a, b: a.join(b, "k", "left"),
    "semi join": lambda a, b: a.join(b, "k", "semi"),
    "anti join": lambda a, b: a.join(b, "k", "anti"),
    "merged join": lambda a, b: a.sort("k").join(b.sort("k"), "k", "full"),
    "union": lambda a, b: a.select("k").union(b.select("k")),
    "sort of a join": lambda a, b: a.join(b, "k").sort("u"),
}
ARROW: dict[str, Verb] = {
    **{name: verb for name, verb in TEXT_TIER.items() if name not in ("scan", "limit")},
    "full join": lambda a, b: a.join(b, "k", "full"),
    "cross join": lambda a, b: a.limit(30).join(b, how="cross"),
    "distinct by": lambda a, b: a.distinct("k"),
    "window": lambda a, b: a.window("k", "n", r="rank()", s="sum(n)"),
    "running": lambda a, b: a.window((), "t", r="row_number()", p="lag(k)"),
    "sample": lambda a, b: a.sample(count=50_000, seed=3),
    "expect": lambda a, b: a.expect(unique=("k", "n", "t"), rows=">1"),
}
FEW = [("sort", "csv"), ("aggregate", "csv"), ("join", "csv"), ("sort", "parquet")]
ALL = [
    *((name, "csv") for name in TEXT_TIER),
    *((name, kind) for name in ARROW for kind in ("parquet", "jsonl", "arrow")),
]


def make(folder: Path, rows: int) -> Path:
    """Write two tables in every format: many keys, each about twice, and text."""
    folder.mkdir(exist_ok=True)
    dice = random.Random(5)
    for name, text, size in (("a", "t", rows), ("b", "u", rows * 2 // 3)):
        path = folder / f"{name}.csv"
        with path.open("w") as file:
            file.write(f"k,{'n' if name == 'a' else 'm'},{text}\n")
            for number in range(size):
                words = "word " * dice.randint(1, 12)
                file.write(
                    f"{dice.randint(0, rows // 2)},{dice.randint(-99, 99)},{words}{number}\n"
                )
        for kind in ("parquet", "jsonl", "arrow"):
            scan(path).sink(folder / f"{name}.{kind}").run(256 * MIB, in_process=True)
    return folder


class Watcher(threading.Thread):
    """Looks at every process that this one starts, each millisecond. A context manager."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.peak_bytes = 0
        """0 when no process was started: one that was kept warm is not looked at."""
        self._before = set(children(os.getpid()))
        self._done = threading.Event()

    def run(self) -> None:
        readers: dict[int, UsageReader] = {}
        while not self._done.is_set():
            for pid in set(children(os.getpid())) - self._before - readers.keys():
                if _is_engine(pid):
                    readers[pid] = UsageReader(pid)
            for reader in readers.values():
                self.peak_bytes = max(self.peak_bytes, reader.read().charged_bytes)
            time.sleep(0.001)
        for reader in readers.values():
            reader.close()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self.join()


def children(pid: int) -> list[int]:
    """Return the children of a process, by /proc; a thread may end while it is looked at."""
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(OSError):
            found += map(int, task.read_text().split())
    return found


def _is_engine(pid: int) -> bool:
    """Whether a child has become the engine; before that it has the memory of this process."""
    try:
        own = Path("/proc/self/cmdline").read_bytes()
        return Path(f"/proc/{pid}/cmdline").read_bytes() not in (own, b"")
    except OSError:
        return False
