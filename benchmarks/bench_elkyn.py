"""Claim: a durable put costs little more than LMDB's own sync, and a read about ten microseconds.

Puts and gets of 200-byte records by random key, beside raw py-lmdb and sqlite3 on the same disk, taking
turns in every round; best of the rounds. Durable means synced before the call returns (sqlite3: WAL
with synchronous=FULL). Sixteen threads show group commit. Rows "without log" leave out the entry of
the log that every durable put has. The last table is what records take on the disk, beside their JSON.

    python benchmarks/bench_elkyn.py [FOLDER]
"""

from __future__ import annotations

import argparse
import json
import random
import sqlite3
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, nullcontext
from pathlib import Path

import lmdb
import ormsgpack

from elkyn import ElkynStore
from elkyn.storage.log_rows import LogRows

RECORD = {"name": "x" * 90, "city": "y" * 60, "number": 12345, "ok": True}
PACKED = ormsgpack.packb(RECORD)
KEYS = [f"key{number:06}" for number in range(20_000)]
ROUNDS = 5

Action = Callable[[str], object]


@contextmanager
def without_log() -> Iterator[None]:
    """Let stores keep no log for a block."""
    append = LogRows.append
    LogRows.append = lambda _rows, _entry: 0  # type: ignore[method-assign, assignment]
    try:
        yield
    finally:
        LogRows.append = append  # type: ignore[method-assign]


@contextmanager
def open_elkyn(folder: Path) -> Iterator[dict[str, Action]]:
    with (
        ElkynStore(folder / "elkyn") as store,
        ElkynStore(folder / "watched") as watched,
        ElkynStore(folder / "loose", durability="interval") as loose,
    ):
        store.set("/r", dict.fromkeys(KEYS, RECORD))
        loose.set("/r", dict.fromkeys(KEYS, RECORD))
        watched.set("/r", dict.fromkeys(KEYS, RECORD))
        with watched.watch("/r"):
            yield {
                "durable puts": lambda key: store.set(f"/r/{key}", RECORD),
                "durable puts, watched": lambda key: watched.set(f"/r/{key}", RECORD),
                "unsynced puts": lambda key: loose.set(f"/r/{key}", RECORD),
                "ephemeral puts": lambda key: store.set(f"/live/{key}", RECORD, ephemeral=True),
                "gets of a record": lambda key: watched.get(f"/r/{key}"),
            }


@contextmanager
def open_lmdb(folder: Path) -> Iterator[dict[str, Action]]:
    with (
        lmdb.open(str(folder / "sync"), map_size=2**30) as env,
        lmdb.open(str(folder / "nosync"), map_size=2**30, sync=False) as fast,
    ):

        def put(env: lmdb.Environment, key: str) -> None:
            with env.begin(write=True) as txn:
                txn.put(key.encode(), PACKED)

        def get(key: str) -> object:
            with env.begin() as txn:
                return ormsgpack.unpackb(txn.get(key.encode()) or b"")

        for place in (env, fast):
            with place.begin(write=True) as txn:
                for key in KEYS:
                    txn.put(key.encode(), PACKED)
        yield {
            "durable puts": lambda key: put(env, key),
            "unsynced puts": lambda key: put(fast, key),
            "gets of a record": get,
        }


@contextmanager
def open_sqlite(folder: Path) -> Iterator[dict[str, Action]]:
    with ExitStack() as stack:
        bases = []
        for level in ("FULL", "OFF"):
            base = sqlite3.connect(folder / f"{level}.db", isolation_level=None)
            bases.append(stack.enter_context(closing(base)))
            base.execute("pragma journal_mode=wal")
            base.execute(f"pragma synchronous={level}")
            base.execute("create table r (k text primary key, v blob) without rowid")
            base.execute("begin")
            base.executemany("insert into r values (?, ?)", ((key, PACKED) for key in KEYS))
            base.execute("commit")

        def put(base: sqlite3.Connection, key: str) -> None:
            base.execute("replace into r values (?, ?)", (key, PACKED))

        def get(key: str) -> object:
            row = bases[0].execute("select v from r where k = ?", (key,)).fetchone()
            return ormsgpack.unpackb(row[0])

        yield {
            "durable puts": lambda key: put(bases[0], key),
            "unsynced puts": lambda key: put(bases[1], key),
            "gets of a record": get,
        }


ROWS = [  # name, action, count, threads
    ("durable puts", "durable puts", 1000, 1),
    ("durable puts, without log", "durable puts", 1000, 1),
    ("durable puts, 16 threads", "durable puts", 1600, 16),
    ("durable puts, watched", "durable puts, watched", 1000, 1),
    ("unsynced puts", "unsynced puts", 5000, 1),
    ("unsynced puts, without log", "unsynced puts", 5000, 1),
    ("ephemeral puts", "ephemeral puts", 5000, 1),
    ("gets of a record", "gets of a record", 10_000, 1),
]


def rate(action: Action, count: int, threads: int) -> float:
    """Return actions a second, run once."""
    keys = random.choices(KEYS, k=count)

    def run(part: int) -> None:
        for key in keys[part::threads]:
            action(key)

    started = time.perf_counter()
    if threads == 1:
        run(0)
    else:
        workers = [threading.Thread(target=run, args=(part,)) for part in range(threads)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
    return count / (time.perf_counter() - started)


def demo_record(number: int) -> dict[str, object]:
    """Return a record as an application has them."""
    chance = random.Random(number)
    return {
        "name": f"{chance.choice(['Ann', 'Bob', 'Carol', 'Dmitri'])} {number}son",
        "email": f"user{number}@example.com",
        "city": chance.choice(["Vienna", "Graz", "Linz", "Salzburg"]),
        "age": chance.randint(18, 90),
        "active": chance.random() < 0.5,
        "createdAt": 1_700_000_000_000 + number * 977,
        "score": round(chance.random() * 100, 2),
        "visits": chance.randint(0, 500),
    }


def tree_bytes(store: ElkynStore) -> int:
    """Return the bytes of the pages of the tree and its keys, without the log."""
    env = store._disk._durable  # noqa: SLF001 - pages are no part of the public API
    with env.read() as txn:
        stats = [txn.stat(env.databases[name]) for name in ("tree", "meta", "shapes")]
    pages = ("leaf_pages", "branch_pages", "overflow_pages")
    return sum(stat[kind] * stat["psize"] for stat in stats for kind in pages)


def print_sizes() -> None:
    """Print how much room records take that came in bulk, by push, and in no order."""
    records = {f"user{number:06}": demo_record(number) for number in range(20_000)}
    shuffled = random.sample(list(records.items()), len(records))
    print(f"\n{'bytes on the disk':28}{'tree':>10}{'JSON':>10}{'x':>6}{'compacted':>11}{'x':>6}")
    for how in ("set at once", "pushed", "in random order"):
        with ElkynStore(mode="memory", oplog_bytes_max=0) as store:
            if how == "set at once":
                store.set("/users", records)
            for start in range(0, len(records) if how != "set at once" else 0, 100):
                chunk = dict(shuffled[start : start + 100])
                if how == "pushed":
                    chunk = {store.admin.new_push_id(): record for record in chunk.values()}
                store.update("/users", chunk)
            plain = len(json.dumps(store.get("/"), separators=(",", ":")))
            found = tree_bytes(store)
            store.admin.compact()
            packed = tree_bytes(store)
            cells = f"{found:10,}{plain:10,}{found / plain:6.2f}{packed:11,}{packed / plain:6.2f}"
            print(f"{how:28}{cells}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", nargs="?", help="where the stores lie; the system's when missing")
    where = parser.parse_args().folder
    with tempfile.TemporaryDirectory(dir=where) as name, ExitStack() as stack:
        folder = Path(name)
        peers = {
            "elkyn": stack.enter_context(open_elkyn(folder)),
            "lmdb": stack.enter_context(open_lmdb(folder)),
            "sqlite": stack.enter_context(open_sqlite(folder)),
        }
        print(f"{'operations a second':28}{'elkyn':>10}{'lmdb':>10}{'x':>6}{'sqlite':>10}{'x':>6}")
        for row, action, count, threads in ROWS:
            best: dict[str, float] = {}
            for _round in range(ROUNDS):
                for peer, actions in peers.items():
                    if action in actions and (threads == 1 or peer != "sqlite"):
                        with without_log() if "without log" in row else nullcontext():
                            found = rate(actions[action], count, threads)
                        best[peer] = max(best.get(peer, 0), found)
            cells = f"{row:28}{best['elkyn']:10,.0f}"
            for peer in ("lmdb", "sqlite"):
                known = best.get(peer)
                ratio = (
                    f"{known:10,.0f}{best['elkyn'] / known:6.2f}" if known else f"{'-':>10}{'-':>6}"
                )
                cells += ratio
            print(cells)
    print_sizes()


if __name__ == "__main__":
    main()
