"""Windows by shards that share no partition: which shards do not, and that the rows are those of one task."""

import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from elytra.pipelines.pipeline import Pipeline
from elytra.service.shard_ranges import key_ranges
from elytra.service.work import Shard
from elytra.shard_joins import KeyRanges
from elytra.splitter import Rules, Split, Whole, split
from elytra.testing.pipeline_runs import (
    SCHEMA,
    Rows,
    Schemas,
    batch_of,
    bits,
    distributed,
    random_rows,
    run,
)
from emsqrt.plan import DatasetRef, Sort
from lake.objects.verification import ShardFile
from sennit_core.records import ShardInfo

VALUES = st.one_of(st.none(), st.integers(-9, 9))


def shard(values: list[int | None]) -> Shard:
    """Return a shard with the statistics of these values of the column i."""
    known = [value for value in values if value is not None]
    stats: dict[str, Any] = {"nulls": len(values) - len(known)}
    stats |= {"min": min(known), "max": max(known)} if known else {}
    info = ShardInfo("x", partition={}, rows=len(values), bytes=1, stats={"i": stats})
    return Shard(info, ShardFile("t", 0, "x"))


@settings(max_examples=15)
@given(st.lists(st.lists(VALUES, max_size=4), max_size=4))
def test_ranges_are_those_of_the_values(table: list[list[int | None]]) -> None:
    found = key_ranges([shard(values) for values in table], SCHEMA, "i")

    kept = [set(values) for values in table if values]
    if found is not None:
        assert sum(map(len, kept)) == len(set().union(*kept)), "two shards share a value"
    if found == "ascending":
        last = [(value is None, value or 0) for values in kept for value in sorted_values(values)]
        assert last == sorted(last)


def sorted_values(values: set[int | None]) -> list[int | None]:
    return sorted(values, key=lambda value: (value is None, value or 0))


def test_unknown_bounds_may_overlap() -> None:
    whole = shard([1, 2])
    for stats in ({}, {"i": {"nulls": 0}}, {"i": {"min": 5, "max": 6}}):
        other = Shard(ShardInfo("x", partition={}, rows=2, bytes=1, stats=stats), whole.file)
        assert key_ranges([whole, other], SCHEMA, "i") is None
    assert key_ranges([whole], SCHEMA, "f") is None, "a float may be NaN"


def windowed(rows: Pipeline, keys: list[str]) -> Pipeline:
    calls = {"n": "row_number()", "all": "sum(f) rows between 1 preceding and current row"}
    return rows.window(keys, ["f:desc"], **calls)


def cut_by_key(dice: random.Random, ranges: KeyRanges) -> tuple[Rows, list[int]]:
    """Return rows whose values of i are each in one shard, and where the shards end."""
    groups: dict[int, Rows] = {}
    for row in random_rows(dice):
        groups.setdefault(99 if row[1] is None else row[1] // 20, []).append(row)
    order = sorted(groups)
    if ranges == "disjoint":
        dice.shuffle(order)
    table = [row for group in order for row in groups[group]]
    sizes = [len(groups[group]) for group in order]
    return table, [sum(sizes[:at]) for at in range(len(sizes))]


def of_i(ranges: KeyRanges) -> Rules:
    return Rules(ranges_of=lambda _, column: ranges if column == "i" else None)


def compare(seed: int, ranges: KeyRanges, pipeline: Pipeline) -> Split:
    table, places = cut_by_key(random.Random(seed), ranges)
    rules = of_i(ranges)
    whole = split(pipeline.plan, SCHEMA, whole=True)
    assert isinstance(whole, Whole)
    found = distributed(pipeline, table, places, rules=rules)
    assert bits(found) == bits(run(whole.plan, {"t": [batch_of(table)]})), seed
    cut = split(pipeline.plan, SCHEMA, rules=rules)
    assert isinstance(cut, Split)
    return cut


@pytest.mark.parametrize("keys", [["i"], ["i", "k"]])
def test_windows_over_shards_in_order_are_the_rows_of_the_tasks(keys: list[str]) -> None:
    rows = Pipeline.over(Schemas(), "t").filter("k is not null").rename({"i": "j"})
    renamed = ["j" if key == "i" else key for key in keys]
    for seed in range(2):
        cut = compare(seed, "ascending", windowed(rows, renamed).filter("n = 1").select("k", "n"))
        assert cut.merge_steps is None


@pytest.mark.parametrize(("ranges", "keys"), [("disjoint", ["i"]), ("ascending", ["k", "i"])])
def test_windows_over_shards_in_another_order_are_merged(
    ranges: KeyRanges, keys: list[str]
) -> None:
    rows = Pipeline.over(Schemas(), "t")
    for seed in range(2):
        cut = compare(seed, ranges, windowed(rows, keys).group_by("k").agg(n="first(n)"))
        assert cut.merge_steps is not None
        assert isinstance(cut.merge_steps[0], Sort)
        assert cut.merge_steps[0].merge


@pytest.mark.parametrize(
    "changed",
    [
        lambda rows: rows.with_column("i", "abs(i)"),
        lambda rows: rows.select("k", "f", i="f"),
        lambda rows: rows.union(rows),
        lambda rows: rows.join(rows.select("k"), "k", how="full"),
    ],
)
def test_a_key_that_is_no_column_of_the_shards_is_in_any_of_them(changed: Any) -> None:
    pipeline = windowed(changed(Pipeline.over(Schemas(), "t")), ["i"])

    cut = split(pipeline.plan, SCHEMA, rules=of_i("ascending"))

    assert isinstance(cut, Whole)


@pytest.mark.nightly
def test_many_windows_have_the_rows_of_one_task() -> None:
    rows = Pipeline.over(Schemas(), "t")
    for seed in range(300):
        dice = random.Random(seed)
        ranges: KeyRanges = dice.choice(("ascending", "disjoint"))
        compare(seed, ranges, windowed(rows, dice.choice((["i"], ["i", "k"], ["k", "i"]))))


def test_the_key_of_a_window_is_that_of_its_dataset() -> None:
    asked: list[tuple[str, str]] = []

    def ranges_of(ref: DatasetRef, column: str) -> None:
        asked.append((ref.dataset, column))

    rows = Pipeline.over(Schemas(), "t").select("k", "f", who="i")
    split(windowed(rows, ["who"]).plan, SCHEMA, rules=Rules(ranges_of=ranges_of))

    assert ("t", "i") in asked
