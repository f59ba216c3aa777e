"""Claim: ten million leaves are read as fast as a few, and the ten last of a million cost ten reads.

A million records of ten fields under random keys, one field indexed, in one store: what loading takes,
a leaf and a record by random key, and windows by the index. Beside it SQLite with the same rows as
MessagePack and an index on the same field, on the same disk. Reads are timed one by one in rounds, in
turns with the peer; the table has the median round.

    python benchmarks/bench_elkyn_large.py [FOLDER] [--records 1000000]
"""

from __future__ import annotations

import argparse
import os
import random
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import ormsgpack

from elkyn import ElkynStore

CHUNK = 5_000
ROUNDS = 9
RULES = {"rules": {"players": {".indexOn": ["score"]}}}

Action = Callable[[str], object]


def record(number: int) -> dict[str, object]:
    """Return a record of ten fields; its score is hashed from its number."""
    return {
        "active": number % 2 == 0,
        "city": ("Vienna", "Graz", "Linz", "Salzburg")[number % 4],
        "createdAt": 1_700_000_000_000 + number * 977,
        "email": f"user{number}@example.com",
        "level": number % 99,
        "name": f"Name {number}",
        "rank": number,
        "score": number * 2_654_435_761 % 2**32,
        "team": f"t{number % 1000}",
        "visits": number % 500,
    }


def chunks(count: int) -> Iterator[dict[str, dict[str, object]]]:
    """Yield records by key, some thousands at a time; keys come in no order."""
    for start in range(0, count, CHUNK):
        numbers = range(start, min(start + CHUNK, count))
        yield {key(number): record(number) for number in numbers}


def key(number: int) -> str:
    """Return the key of a record."""
    return f"p{number * 2_654_435_761 % 2**32:08x}"


def load(store: ElkynStore, base: sqlite3.Connection, count: int) -> tuple[float, float]:
    """Fill both; returns the seconds each took."""
    store.set_rules(RULES)
    base.execute("create table players (k text primary key, score int, v blob) without rowid")
    base.execute("create index by_score on players (score)")
    seconds = [0.0, 0.0]
    for found in chunks(count):
        start = time.perf_counter()
        store.update("/players", found)
        middle = time.perf_counter()
        rows = ((key, one["score"], ormsgpack.packb(one)) for key, one in found.items())
        with base:
            base.executemany("insert into players values (?, ?, ?)", rows)
        seconds[0] += middle - start
        seconds[1] += time.perf_counter() - middle
    return seconds[0], seconds[1]


def actions(store: ElkynStore, base: sqlite3.Connection) -> dict[str, tuple[Action, Action]]:
    """Return what is timed, by name: ours and the peer's; each takes the key of a record."""

    def row(key: str) -> dict[str, object]:
        found = base.execute("select v from players where k = ?", (key,)).fetchone()
        unpacked: dict[str, object] = ormsgpack.unpackb(found[0])
        return unpacked

    def last(_key: str) -> object:
        query = "select k, v from players order by score desc limit 10"
        return {key: ormsgpack.unpackb(value) for key, value in base.execute(query)}

    def above(key: str) -> object:
        query = "select k, v from players where score >= ? order by score limit 10"
        score = int(key[1:], 16)
        return {key: ormsgpack.unpackb(value) for key, value in base.execute(query, (score,))}

    players = "/players"
    return {
        "a leaf": (lambda key: store.get(f"/players/{key}/score"), lambda key: row(key)["score"]),
        "a record": (lambda key: store.get(f"/players/{key}"), row),
        "the 10 last by an index": (
            lambda _key: store.query(players, order_by="score", limit_to_last=10),
            last,
        ),
        "10 from a random place of it": (
            lambda key: store.query(
                players, order_by="score", start_at=int(key[1:], 16), limit_to_first=10
            ),
            above,
        ),
    }


def microseconds(action: Action, keys: list[str]) -> float:
    """Return what one call takes."""
    start = time.perf_counter()
    for one in keys:
        action(one)
    return (time.perf_counter() - start) / len(keys) * 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", nargs="?", help="where the stores lie; the system's when missing")
    parser.add_argument("--records", type=int, default=1_000_000, help="of ten leaves each")
    parser.add_argument("--quick", action="store_true", help="50,000 records")
    options = parser.parse_args()
    count = 50_000 if options.quick else options.records
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder = Path(name)
        with (
            ElkynStore(folder / "elkyn", durability="interval", oplog_bytes_max=0) as store,
            closing(sqlite3.connect(folder / "lite.db")) as base,
        ):
            base.execute("pragma journal_mode=wal")
            ours, theirs = load(store, base, count)
            print(f"{count * 10:,} leaves in {count:,} records, load {os.getloadavg()[0]:.1f}\n")
            print("| | Elkyn | SQLite | SQLite ÷ Elkyn |\n|---|---|---|---|")
            each = (ours / count * 1e6, theirs / count * 1e6)
            print(
                f"| load a record, µs | {each[0]:.1f} | {each[1]:.1f} | {each[1] / each[0]:.2f} |"
            )
            for what, pair in actions(store, base).items():
                rounds: tuple[list[float], list[float]] = ([], [])
                for _round in range(ROUNDS):
                    keys = [key(random.randrange(count)) for _ in range(2_000)]
                    for action, found in zip(pair, rounds, strict=True):
                        found.append(microseconds(action, keys))
                us, them = map(statistics.median, rounds)
                print(f"| {what}, µs | {us:.1f} | {them:.1f} | {them / us:.2f} |", flush=True)
        start = time.perf_counter()
        with ElkynStore(folder / "elkyn", durability="interval"):
            opened = time.perf_counter() - start
        print(f"\nOpened again in {opened * 1e3:.2f} ms.")


if __name__ == "__main__":
    main()
