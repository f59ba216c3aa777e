from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import closing
from decimal import Decimal
from typing import Any, get_args

import duckdb
import pyarrow as pa
import pytest

from emsqrt.operators import Operator, registry
from emsqrt.plan import DatasetRef, Join, JoinKind, Scan
from emsqrt.testing import InputRows, run_operator
from sennit_core.errors import Unsupported
from sennit_core.schema import Schema

MIB = 1 << 20
HERE = Scan(DatasetRef("here"))
KINDS: tuple[JoinKind, ...] = get_args(JoinKind)


def joined(
    left: pa.Table,
    right: pa.Table,
    on: Sequence[tuple[str, str]],
    how: JoinKind,
    memory_bytes: int = 8 * MIB,
    batch_rows: int = 1000,
) -> pa.Table:
    inputs = [
        InputRows(Schema.from_arrow(side.schema), side.to_batches(max_chunksize=batch_rows))
        for side in (left, right)
    ]
    node = Join(HERE, HERE, tuple(on), how)
    batches = run_operator(node, *inputs, memory_bytes=memory_bytes)
    assert all(batch.schema == batches[0].schema for batch in batches)
    return pa.Table.from_batches(batches) if batches else pa.table({})


def table(rows: int, side: str, seed: int) -> pa.Table:
    """Rows numbered from 0, of which a third has the same key and some have none."""
    state, keys, days = seed, [], []
    for _ in range(rows):
        state = (state * 1103515245 + 12345) & 0x7FFFFFFF
        kind = (state >> 8) % 30
        keys.append(7 if kind < (0 if rows > 500 else 10) else None if kind == 29 else (state >> 8))
        days.append(f"day {(state >> 12) % 3}")
    bound = rows * 2 // 3
    numbers = [None if one is None else one if one == 7 else one % bound for one in keys]
    texts = [None if one is None else "x" * (one % 40) for one in numbers]
    return pa.table(
        {
            side: pa.array(range(rows), pa.int64()),
            "k": pa.array(numbers, pa.int64()),
            "day": pa.array(days, pa.string()),
            f"text_{side}": pa.array(texts, pa.string()),
            f"flag_{side}": pa.array([one is not None and one % 2 == 0 for one in numbers]),
        }
    )


def duckdb_rows(left: pa.Table, right: pa.Table, how: JoinKind) -> list[dict[str, Any]]:
    """What DuckDB makes of it, in the order that is promised."""
    with duckdb.connect() as connection:
        connection.register("l", left)
        connection.register("r", right)
        words = "CROSS JOIN r" if how == "cross" else f"{how} JOIN r USING (k, day)"
        order = "l.l" if how in ("semi", "anti") else "l.l NULLS LAST, r.r"
        answer = connection.execute(f"SELECT * FROM l {words} ORDER BY {order}")
        names = [part[0] for part in answer.description]
        return [dict(zip(names, row, strict=True)) for row in answer.fetchall()]


@pytest.mark.parametrize("how", [kind for kind in KINDS if kind != "cross"])
def test_duckdb_joins_alike(how: JoinKind) -> None:
    left, right = table(400, "l", 1), table(300, "r", 2)

    found = joined(left, right, [("k", "k"), ("day", "day")], how)

    assert found.to_pylist() == duckdb_rows(left, right, how)


def test_a_cross_join_returns_every_pair() -> None:
    left, right = table(70, "l", 1).select(["l"]), table(60, "r", 2)

    assert joined(left, right, [], "cross").to_pylist() == duckdb_rows(left, right, "cross")


@pytest.mark.slow
@pytest.mark.sample(2)
@pytest.mark.parametrize("how", [kind for kind in KINDS if kind != "cross"])
def test_the_answer_is_the_same_at_any_memory(how: JoinKind) -> None:
    left, right = table(20_000, "l", 3), table(30_000, "r", 4)
    on = [("k", "k"), ("day", "day")]

    small, large = (joined(left, right, on, how, memory_bytes=size * MIB) for size in (4, 64))

    assert small.combine_chunks().equals(large.combine_chunks())
    assert small.num_rows > 1000


@pytest.mark.parametrize("how", ["inner", "full"])
@pytest.mark.parametrize(
    ("one", "other"),
    [
        (pa.array([1, 2, None], pa.int32()), pa.array([2, 3, 1 << 40], pa.int64())),
        (pa.array([200, 2, None], pa.uint8()), pa.array([2, -56, None], pa.int8())),
        (
            pa.array([Decimal("1.50"), Decimal("2.00"), None], pa.decimal128(12, 2)),
            pa.array([Decimal("2.0000"), Decimal("1.5001"), None], pa.decimal128(10, 4)),
        ),
        (
            pa.array([float("nan"), -0.0, 1.5], pa.float32()),
            pa.array([0.0, float("nan"), 1.1], pa.float64()),
        ),
    ],
)
def test_keys_of_different_types_are_compared_in_one(
    one: pa.Array, other: pa.Array, how: JoinKind
) -> None:
    left, right = pa.table({"a": one, "x": [1, 2, 3]}), pa.table({"b": other, "y": [1, 2, 3]})

    found = joined(left, right, [("a", "b")], how)

    pairs = [
        (x, y)
        for x, a in zip([1, 2, 3], one.to_pylist(), strict=True)
        for y, b in zip([1, 2, 3], other.to_pylist(), strict=True)
        if a is not None and (a == b or (a != a and b != b))
    ]
    rows = found.select(["x", "y"]).to_pylist()
    assert [(row["x"], row["y"]) for row in rows if row["x"] and row["y"]] == pairs
    assert len(rows) == (len(pairs) if how == "inner" else 6 - len(pairs))
    assert found.schema.field("a").type == one.type
    assert found.schema.field("b").type == other.type


def test_a_shared_key_has_the_value_of_the_side_that_has_a_row() -> None:
    left = pa.table({"k": pa.array([1, 2], pa.int32())})
    right = pa.table({"k": pa.array([2, 3], pa.int64()), "v": ["two", "three"]})

    found = joined(left, right, [("k", "k")], "full")

    assert found.to_pydict() == {"k": [1, 2, 3], "v": [None, "two", "three"]}
    assert found.schema.field("k").type == pa.int64()


def test_columns_of_one_name_get_a_suffix() -> None:
    rows = pa.table({"k": [1, 2], "v": ["one", "two"]})

    found = joined(rows, rows, [("k", "k")], "inner")

    assert found.to_pydict() == {"k": [1, 2], "v": ["one", "two"], "v_right": ["one", "two"]}


def test_nested_columns_travel_and_are_no_keys() -> None:
    rows = pa.table({"k": [1], "v": [[1, 2]]})

    found = joined(rows, rows, [("k", "k")], "inner")

    assert found.to_pylist() == [{"k": 1, "v": [1, 2], "v_right": [1, 2]}]
    with pytest.raises(Unsupported, match="List"):
        joined(rows, rows, [("v", "v")], "inner")


class OneBatch:
    """Passes on the first batch of its input, and then closes it."""

    def __init__(self, inputs: Sequence[Operator]) -> None:
        (self._input,) = inputs
        self.schema = self._input.schema

    def batches(self) -> Generator[Any]:
        with closing(self._input.batches()) as batches:
            yield next(batches)


@pytest.mark.slow
@pytest.mark.parametrize("memory_bytes", [4 * MIB, 64 * MIB])
def test_a_join_that_is_closed_early_releases_all_memory(
    memory_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    make = registry._MAKERS[Join]
    early = {
        **registry._MAKERS,
        Join: lambda node, inputs, run: OneBatch([make(node, inputs, run)]),
    }
    monkeypatch.setattr(registry, "_MAKERS", early)
    left, right = table(20_000, "l", 3), table(30_000, "r", 4)

    found = joined(left, right, [("k", "k")], "full", memory_bytes)

    assert 0 < found.num_rows < 20_000
