"""Joins by shards: each kind, with each side small, has the bits of one task and DuckDB's rows."""

import random
from typing import Any, get_args

import pytest
from fuzz_oracle import difference

from elytra.pipelines.pipeline import Pipeline
from elytra.splitter import DatasetSize, Rules, Split, Whole, split
from elytra.testing.pipeline_runs import (
    SCHEMA,
    Schemas,
    batch_of,
    bits,
    distributed,
    over_files,
    random_rows,
    run,
    table_of,
)
from emsqrt.expr import col
from emsqrt.plan import JoinKind, Sort

KINDS: tuple[JoinKind, ...] = get_args(JoinKind)
NODE = Schemas()
SMALL, LARGE = DatasetSize(1, 1), DatasetSize(1, 1 << 30)


def sizes(small: str) -> Rules:
    """Return the rules of a split in which one of the datasets t and u is small."""
    return Rules(lambda ref: SMALL if ref.dataset == small else LARGE)


def datasets() -> tuple[Pipeline, Pipeline]:
    left, right = (Pipeline.over(NODE, name) for name in "tu")
    return left, right.rename({"f": "g"})


def joined(how: JoinKind, by: int = 0) -> Pipeline:
    """Return a join by a shared name, by two names, or by a name and keys of two types."""
    left, right = datasets()
    if how == "cross":
        return left.join(right, how="cross")
    if by == 0:
        return left.join(right, on="k", how=how)
    if by == 1:
        return left.join(right.rename({"i": "j"}), on={"i": "j", "k": "k"}, how=how)
    return left.join(right.with_columns(i=col("i").cast("Int16")), on="i", how=how)


def above(dice: random.Random, rows: Pipeline) -> Pipeline:
    return dice.choice(
        (
            lambda: rows,
            lambda: rows.group_by("k").agg(n="count()", most="max(f)", zsum="sum(f)"),
            lambda: rows.filter("i > 3 or i is null").agg(n="count()", some="count(f)"),
            lambda: rows.group_by("k").agg(one="first(i)"),
            lambda: rows.sort("i:desc"),
            lambda: rows.limit(9, 2),
            lambda: rows.top_k(7, "f"),
            lambda: rows.distinct("k"),
            lambda: rows.with_column("twice", "i * 2").join(
                datasets()[1].select(c="k"), {"k": "c"}
            ),
        )
    )()


def compare(pipeline: Pipeline, small: str, seed: int) -> Split:
    """Compare a pipeline at some cuts with one task, and that with DuckDB; return its split."""
    dice = random.Random(seed)
    tables = {"t": random_rows(dice), "u": random_rows(dice)}
    whole = split(pipeline.plan, SCHEMA, whole=True)
    assert isinstance(whole, Whole)
    expected = run(whole.plan, {name: [batch_of(rows)] for name, rows in tables.items()})
    for _ in range(2):
        places = [dice.randint(0, 40) for _ in range(dice.randint(0, 4))]
        others = {"u": tables["u"]}
        found = distributed(pipeline, tables["t"], places, others, sizes(small))
        assert bits(found) == bits(expected), (seed, places)
        assert found.schema == expected.schema
    as_tables = {name: table_of(rows) for name, rows in tables.items()}
    assert difference(over_files(whole.plan), as_tables, expected) is None, seed
    cut = split(pipeline.plan, SCHEMA, rules=sizes(small))
    assert isinstance(cut, Split)
    return cut


@pytest.mark.parametrize("small", ["t", "u"])
@pytest.mark.parametrize("how", KINDS)
def test_a_join_with_a_small_side_has_the_rows_of_one_task(how: JoinKind, small: str) -> None:
    by = KINDS.index(how) % 3

    cut = compare(joined(how, by), small, seed=by)

    assert {part.source.dataset for part in cut.parts} == {"u" if small == "t" else "t"}


@pytest.mark.nightly
@pytest.mark.timeout(1200)
def test_many_joins_and_what_is_above_them_have_the_rows_of_one_task() -> None:
    for seed in range(600):
        dice = random.Random(seed)
        rows = joined(dice.choice(KINDS), dice.randint(0, 2))
        compare(above(dice, rows), dice.choice("tu"), seed)


@pytest.mark.parametrize("how", ["inner", "left", "right", "full"])
def test_groups_of_a_join_are_partial_states_of_each_shard(how: JoinKind) -> None:
    """So rows are neither numbered nor merged: an aggregate has the same states in any order."""
    cut = compare(joined(how).group_by("k").agg(n="count()", most="max(g)"), "t", seed=3)

    assert "$left" not in cut.partial_schema.names
    assert "n$count" in cut.partial_schema.names


def test_rows_of_a_small_left_side_come_in_its_order() -> None:
    cut = compare(joined("inner"), "t", seed=4)

    assert cut.merge_steps is not None
    assert isinstance(cut.merge_steps[0], Sort)
    assert cut.merge_steps[0].merge


@pytest.mark.parametrize("name", ["$left", "$key7", "$state"])
def test_a_column_called_as_one_of_the_split_leaves_the_join_in_one_task(name: str) -> None:
    left, right = datasets()
    pipeline = left.join(right.rename({"g": name}), on="k", how="full")

    cut = split(pipeline.plan, SCHEMA, rules=sizes("u"))

    assert isinstance(cut, Whole)
    assert "a column is called" in cut.because


def test_a_plan_that_a_split_makes_too_large_stays_in_one_task() -> None:
    left, right = datasets()
    for at in range(60):
        left = left.with_column(f"c{at}", f"i + {at}")

    cut = split(left.join(right, on="k", how="full").plan, SCHEMA, rules=sizes("u"))

    assert isinstance(cut, Whole)
    assert "operators" in cut.because


def test_two_joins_that_add_rows_stay_in_one_task() -> None:
    left, right = datasets()
    pipeline: Any = left.join(right, on="k", how="full").join(right.select("k"), "k", how="right")

    cut = split(pipeline.plan, SCHEMA, rules=sizes("u"))

    assert isinstance(cut, Whole)
    assert "two joins add rows" in cut.because
