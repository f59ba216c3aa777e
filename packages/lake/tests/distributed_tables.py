"""Small tables with everything that may go wrong in a merge: NULL, NaN, decimals, text, empty shards."""

from __future__ import annotations

import datetime
import decimal
import random

import pyarrow as pa

from lake.peers.sql import Column

from .distributed_plans import Cluster

T = (
    Column("k", "BIGINT"),
    Column("g", "VARCHAR"),
    Column("n", "INTEGER"),
    Column("x", "DOUBLE"),
    Column("m", "DECIMAL(12,2)"),
    Column("d", "DATE"),
    Column("b", "BOOLEAN"),
)
U = (Column("k", "BIGINT"), Column("v", "INTEGER"), Column("w", "VARCHAR"))
D = (Column("g", "VARCHAR"), Column("label", "VARCHAR"), Column("rank", "INTEGER"))
ARROW = {
    "t": pa.schema(
        [
            ("k", pa.int64()),
            ("g", pa.string()),
            ("n", pa.int32()),
            ("x", pa.float64()),
            ("m", pa.decimal128(12, 2)),
            ("d", pa.date32()),
            ("b", pa.bool_()),
        ]
    ),
    "u": pa.schema([("k", pa.int64()), ("v", pa.int32()), ("w", pa.string())]),
    "d": pa.schema([("g", pa.string()), ("label", pa.string()), ("rank", pa.int32())]),
}
TYPES = {"t": T, "u": U, "d": D}
PLACEMENTS = (
    *("rows", "buckets", "t by rows", "u by buckets"),
    *("whole at holders", "whole at one", "copies", "one node", "seen here"),
)


_AWAY: dict[str, dict[str, tuple[int, ...]]] = {
    # Nothing is at the coordinator; `t` is split unless it says where all of it is.
    "whole at holders": {"u": (1, 2), "d": (1, 2)},
    "whole at one": {"u": (1,), "d": (1, 2)},
    # A node has each pair of tables, and none has all three.
    "copies": {"t": (1, 2), "u": (1,), "d": (2, 0)},
    "one node": {"t": (1,), "u": (1,), "d": (1,)},
    # As rows that the user sees of a restricted dataset.
    "seen here": {"u": (1, 2), "d": (0,)},
}


def sample_rows(count: int = 60, seed: int = 7) -> dict[str, pa.Table]:
    """Rows of all tables; sums of the floats are exact in any order."""
    random_ = random.Random(seed)

    def maybe(value: object) -> object:
        return None if random_.random() < 0.15 else value

    t = [
        {
            "k": maybe(random_.randrange(12)),
            "g": maybe(random_.choice(["a", "b", "B", "", "ü"])),
            "n": maybe(random_.randrange(-5, 20)),
            "x": maybe(random_.choice([0.5, -1.25, 3.0, 1e6, 2.0])),
            "m": maybe(decimal.Decimal(random_.randrange(-9999, 9999)).scaleb(-2)),
            "d": maybe(datetime.date(2024, 1, 1) + datetime.timedelta(days=random_.randrange(90))),
            "b": maybe(random_.random() < 0.5),
        }
        for _ in range(count)
    ]
    u = [
        {
            "k": maybe(random_.randrange(15)),
            "v": maybe(random_.randrange(10)),
            "w": random_.choice("xyz"),
        }
        for _ in range(count // 2)
    ]
    d = [
        {"g": "a", "label": "first", "rank": 1},
        {"g": "b", "label": "second", "rank": 2},
        {"g": "c", "label": "third", "rank": None},
        {"g": None, "label": "fourth", "rank": 3},
    ]
    rows = {"t": t, "u": u, "d": d}
    return {name: pa.Table.from_pylist(rows[name], ARROW[name]) for name in rows}


def place(placement: str, data: dict[str, pa.Table]) -> Cluster:
    """Place `t` and `u`; `d` is on every node, or only on some that hold shards."""
    cluster = Cluster(data, TYPES)
    if placement in _AWAY:
        cluster.split_by_rows("t", 4)
        for name, nodes in _AWAY[placement].items():
            if name == "t":
                cluster.hold_at("t", nodes)
            else:
                cluster.replicate(name, nodes)
        return cluster
    cluster.replicate("d")
    if placement in ("buckets", "u by buckets"):
        cluster.split_by_bucket("u", "k", 3)
    elif placement == "rows":
        cluster.split_by_rows("u", 2)
    else:
        cluster.replicate("u")
    if placement == "buckets":
        cluster.split_by_bucket("t", "k", 3)
    elif placement == "u by buckets":
        cluster.replicate("t")
    else:
        cluster.split_by_rows("t", 4)
    return cluster
