"""Random pipelines: any cut of the rows gives the same bits, and DuckDB gives the same answer."""

import random
from collections.abc import Callable
from functools import partial
from typing import Any

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
from emsqrt.plan import DatasetRef, Expect, Join, Plan, Sample, walk

Step = Callable[[random.Random, Pipeline], Pipeline]


def _number(dice: random.Random, rows: Pipeline) -> str | None:
    """Return the name of a numeric column; None if there is none."""
    names = [field.name for field in rows.schema.fields if field.type.is_numeric]
    return dice.choice(names) if names else None


def _name(dice: random.Random, rows: Pipeline) -> str:
    return dice.choice(rows.schema.names)


def _some(dice: random.Random, rows: Pipeline) -> list[str]:
    names = list(rows.schema.names)
    return dice.sample(names, dice.randint(1, len(names)))


def _fresh(dice: random.Random) -> str:
    return f"c{dice.randint(0, 10**9)}"


def _filter(dice: random.Random, rows: Pipeline) -> Pipeline:
    number = _number(dice, rows)
    if number is None or dice.random() < 0.3:
        return rows.filter(f"{_name(dice, rows)} is not null")
    bound = dice.randint(-50, 50)
    return rows.filter(dice.choice((f"{number} > {bound}", f"{number} <= {bound}")))


def _filter_by_function(dice: random.Random, rows: Pipeline) -> Pipeline:
    number, bound = _number(dice, rows), dice.randint(-50, 50)
    if number is None:
        return rows
    return rows.filter(lambda r: (r[number] > bound) | r[number].is_null())


def _with(dice: random.Random, rows: Pipeline) -> Pipeline:
    number = _number(dice, rows)
    if number is None:
        return rows
    formula = dice.choice((f"{number} * 2", f"coalesce({number}, 7)", f"abs({number})"))
    return rows.with_column(_fresh(dice), formula)


def _aggregates(dice: random.Random, rows: Pipeline) -> dict[str, str]:
    found = {_fresh(dice): "count()"}
    number = _number(dice, rows)
    for _ in range(dice.randint(0, 3)):
        fn = dice.choice(("sum", "min", "max", "avg", "count", "var"))
        if number is not None:
            # DuckDB's variance of few values is off by more: names with z are compared loosely.
            found[f"{'z' if fn in ('var', 'avg', 'sum') else ''}{_fresh(dice)}"] = f"{fn}({number})"
    return found


def _other(dice: random.Random, rows: Pipeline) -> Pipeline:
    """Return a pipeline over one of the datasets; names of its columns may be those of `rows`."""
    other = Pipeline.over(rows._origin.runner, dice.choice(("t", "u", "u")))
    if dice.random() < 0.3:
        other = other.group_by("k").agg(i="max(i)", f="min(f)")
    # A name that both sides of a join have gets a suffix, once.
    if dice.random() < 0.5 and not any(name.endswith("_right") for name in rows.schema.names):
        return other
    return other.rename({name: _fresh(dice) for name in ("k", "i", "f")})


def _join(dice: random.Random, rows: Pipeline) -> Pipeline:
    other = _other(dice, rows)
    pairs = [
        (mine.name, theirs.name)
        for mine in rows.schema.fields
        for theirs in other.schema.fields
        if mine.type == theirs.type
    ]
    if not pairs or len(rows.schema) > 12:
        return rows
    how: Any = dice.choice(("inner", "left", "semi", "anti", "right", "full"))
    few = rows if dice.random() < 0.5 and not _has_join(rows.plan) else rows.limit(60)
    return few.join(other, dict([dice.choice(pairs)]), how=how)


def _has_join(plan: Plan) -> bool:
    return any(isinstance(node, Join) for node in walk(plan))


def _union(dice: random.Random, rows: Pipeline) -> Pipeline:
    names, other = rows.schema.names, _other(dice, rows)
    if [field.type for field in rows.schema] == [field.type for field in other.schema]:
        return rows.union(other)
    # Integers become floats, and columns that only one side has are NULL in the other.
    number = next((f.name for f in rows.schema if f.type.name == "Float64"), None)
    if number is None:
        return rows
    return rows.union(other.select(**{number: other.schema.names[1]}), by_name=True).select(*names)


STEPS: dict[str, Step] = {
    "filter": _filter,
    "function": _filter_by_function,
    "with": _with,
    "select": lambda dice, rows: rows.select(*_some(dice, rows)),
    "rename": lambda dice, rows: rows.rename({_name(dice, rows): _fresh(dice)}),
    "drop": lambda dice, rows: rows.select(*_some(dice, rows)[:2]),
    "limit": lambda dice, rows: rows.limit(dice.randint(0, 15), dice.randint(0, 5)),
    "sort": lambda dice, rows: rows.sort(*_keys(dice, rows)),
    "first": lambda dice, rows: rows.sort(*_keys(dice, rows)).limit(dice.randint(0, 9)),
    "top": lambda dice, rows: rows.top_k(
        dice.randint(1, 9), *_keys(dice, rows), offset=dice.randint(0, 3)
    ),
    "distinct": lambda dice, rows: rows.distinct(*dice.choice(((), _some(dice, rows)))),
    "group": lambda dice, rows: rows.group_by(*_some(dice, rows)[:2]).agg(
        **_aggregates(dice, rows)
    ),
    "aggregate": lambda dice, rows: rows.agg(**_aggregates(dice, rows)),
    "sample": lambda dice, rows: rows.sample(
        dice.choice((0.0, 0.3, 1.0)), seed=dice.randint(0, 99)
    ),
    "sample_count": lambda dice, rows: rows.sample(
        count=dice.randint(0, 30), seed=dice.randint(0, 99)
    ),
    "expect": lambda dice, rows: rows.filter(f"{(name := _name(dice, rows))} is not null").expect(
        not_null=name
    ),
    "join": _join,
    "union": _union,
    "window": lambda dice, rows: rows.window(
        _some(dice, rows)[:1], _keys(dice, rows), **{_fresh(dice): "row_number()"}
    ),
}


def _keys(dice: random.Random, rows: Pipeline) -> list[str]:
    return [
        name + dice.choice(("", ":desc", ":desc:nulls_first", ":asc:nulls_first"))
        for name in _some(dice, rows)
    ]


def random_pipeline(dice: random.Random) -> Pipeline:
    rows = Pipeline.over(Schemas(), "t")
    for _ in range(dice.randint(1, 6)):
        rows = STEPS[dice.choice(list(STEPS))](dice, rows)
    return rows


def _size(sizes: dict[str, DatasetSize], ref: DatasetRef) -> DatasetSize:
    return sizes[ref.dataset]


def check_pipeline(seed: int) -> type[Split | Whole]:
    """Compare one random pipeline with itself at other cuts, and with DuckDB."""
    dice = random.Random(seed)
    pipeline, table, other = random_pipeline(dice), random_rows(dice), random_rows(dice)
    whole = split(pipeline.plan, SCHEMA, whole=True)
    assert isinstance(whole, Whole)
    expected = run(whole.plan, {"t": [batch_of(table)], "u": [batch_of(other)]})

    small, large = DatasetSize(1, 1), DatasetSize(1, 1 << 30)
    for sizes in ({"t": small, "u": small}, {"t": small, "u": large}, {"t": large, "u": small}):
        rules = Rules(partial(_size, sizes))
        cut = split(pipeline.plan, SCHEMA, rules=rules)
        if isinstance(cut, Whole):
            assert cut.because, "a plan that is not split says why"
            continue
        for _ in range(2):
            places = [dice.randint(0, 40) for _ in range(dice.randint(0, 5))]
            found = distributed(pipeline, table, places, {"u": other}, rules)
            assert bits(found) == bits(expected), (seed, places, sizes)
            assert found.schema == expected.schema, seed

    if not any(isinstance(node, Sample | Expect) for node in walk(whole.plan)):
        tables = {"t": table_of(table), "u": table_of(other)}
        assert difference(over_files(whole.plan), tables, expected) is None, seed
    return type(cut)


def test_random_pipelines_have_one_answer() -> None:
    kinds = [check_pipeline(seed) for seed in range(25)]

    assert {Split, Whole} == set(kinds)  # both ways are compared


@pytest.mark.nightly
@pytest.mark.timeout(1200)
def test_many_random_pipelines_have_one_answer() -> None:
    for seed in range(3000):
        check_pipeline(seed)
