"""Joins in another order: the same rows, for less work, only where order is not observable."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import pytest

from emsqrt.expr import Call, col
from emsqrt.pipeline import Pipeline, scan
from emsqrt.plan import (
    Aggregate,
    Distinct,
    Filter,
    Join,
    Plan,
    Project,
    Rename,
    Scan,
    check,
    scans_of,
    walk,
)
from emsqrt.planner import ColumnStats, SourceStats, estimate_work, order_joins, prune_columns
from emsqrt.planner.testing import Rows, rows_of
from sennit_core.errors import UsageError
from sennit_core.schema import Schema

HERE = Path()


def stats(rows: float, **distinct: float) -> SourceStats:
    columns = {name: ColumnStats(8, distinct=count) for name, count in distinct.items()}
    return SourceStats(rows, int(rows * 20), columns)


FACTS = scan("facts.csv", schema=Schema.of(fact="Int64", order="Int64", part="Int64"))
ORDERS = scan("orders.csv", schema=Schema.of(order="Int64", person="Int64"))
PEOPLE = scan("people.csv", schema=Schema.of(person="Int64", city="Utf8"))
HINTS = {
    "facts.csv": stats(6e6, fact=6e6, order=1.5e6, part=2e5),
    "orders.csv": stats(1.5e6, order=1.5e6, person=1e5),
    "people.csv": stats(1.5e5, person=1.5e5, city=1000),
}
WRITTEN = FACTS.join(ORDERS, "order").join(PEOPLE.filter("city == 'Rome'"), "person")


def joins_of(plan: Plan) -> list[str]:
    """The first scans on both sides of each join, from the first to be joined."""
    paths = [
        [Path(scan.source.paths[0]).stem for scan in scans_of(side)]  # type: ignore[union-attr]
        for node in walk(plan)
        if isinstance(node, Join)
        for side in (node.left, node.right)
    ]
    return ["+".join(path) for path in paths]


def test_selective_joins_come_first() -> None:
    plan = WRITTEN.group_by("city").agg(n="count(*)").plan
    made = order_joins(plan, HERE, HINTS)
    assert joins_of(plan) == ["facts", "orders", "facts+orders", "people"]
    assert joins_of(made) == ["orders", "people", "facts", "orders+people"]
    assert check(made) == check(plan)
    before, after = (estimate_work(each, HINTS).seconds for each in (plan, made))
    assert after < before * 0.8
    assert estimate_work(plan, HINTS).rows_out == pytest.approx(
        estimate_work(made, HINTS).rows_out, rel=0.3
    )


@pytest.mark.parametrize(
    "pipeline",
    [
        WRITTEN,
        WRITTEN.sort("part"),
        WRITTEN.group_by("city").agg(one="first(part)"),
        WRITTEN.distinct("city"),
        WRITTEN.limit(5).agg(n="count(*)"),
        FACTS.join(ORDERS, "order", "left").join(PEOPLE, "person", "left").agg(n="count(*)"),
        FACTS.join(PEOPLE, {"part": "person"}).agg(n="count(*)"),
    ],
)
def test_an_order_that_is_seen_or_matters_stays(pipeline: Pipeline) -> None:
    assert order_joins(pipeline.plan, HERE, HINTS) is pipeline.plan


@pytest.mark.parametrize(
    "pipeline",
    [
        WRITTEN.distinct(),
        PEOPLE.join(WRITTEN.select("person"), "person", "semi"),
        WRITTEN.select("part", "city").agg(n="sum(part)"),
        WRITTEN.filter("part > person").agg(n="count(*)"),
    ],
)
def test_an_order_that_is_not_observable_is_chosen(pipeline: Pipeline) -> None:
    made = order_joins(pipeline.plan, HERE, HINTS)
    assert made is not pipeline.plan
    assert check(made) == check(pipeline.plan)
    assert prune_columns(made, HERE) is not made


def test_a_term_that_may_fail_keeps_its_rows() -> None:
    risky = WRITTEN.filter("cast(city as Int64) > 1").agg(n="count(*)")
    filters = [
        node for node in walk(order_joins(risky.plan, HERE, HINTS)) if isinstance(node, Filter)
    ]
    assert any(isinstance(node.input, Project | Join) for node in filters)


def test_many_inputs_are_joined_greedily() -> None:
    hints, rows = {"hub.csv": stats(1e6, **{f"k{at}": 1e3 for at in range(14)})}, None
    names = {f"k{at}": "Int64" for at in range(14)}
    rows = scan("hub.csv", schema=Schema.of(**names))
    for at in range(14):
        name = f"side{at}.csv"
        hints[name] = stats(1000 if at < 13 else 3, **{f"k{at}": 1000 if at < 13 else 3})
        rows = rows.join(scan(name, schema=Schema.of(**{f"k{at}": "Int64"})), f"k{at}")
    made = order_joins(rows.agg(n="count(*)").plan, HERE, hints)
    assert joins_of(made)[:2] == ["hub", "side13"]
    assert estimate_work(made, hints).seconds < estimate_work(rows.plan, hints).seconds


# Random graphs ------------------------------------------------------------------------------


def random_world(chance: random.Random) -> tuple[Plan, dict[str, Rows], dict[str, SourceStats]]:
    """Joins of three to six small tables as a chain, star, clique or anything."""
    tables: dict[str, Rows] = {}
    hints: dict[str, SourceStats] = {}
    shape = chance.choice(["chain", "star", "clique", "any"])
    made: Plan | None = None
    for at in range(chance.randint(3, 6)):
        names = chance.sample(["a", "b", "c", "d"], chance.randint(1, 3))
        values = [None, 0, 1, 1, 2]
        rows = [tuple(chance.choice(values) for _ in names) for _ in range(chance.randint(1, 5))]
        path = f"t{at}.csv"
        tables[path] = rows
        hints[path] = stats(
            10 ** chance.uniform(0, 6), **{n: 10 ** chance.uniform(0, 6) for n in names}
        )
        table: Plan = scan(path, schema=Schema.of(**dict.fromkeys(names, "Int64"))).plan
        if chance.random() < 0.2:
            table = Filter(table, col(names[0]) > 0)
        made = table if made is None else _joined(made, table, at, shape, chance)
    assert made is not None
    return _on_top(made, chance), tables, hints


def _joined(left: Plan, right: Plan, at: int, shape: str, chance: random.Random) -> Plan:
    ours, theirs = check(left).names, check(right).names
    first = {"chain": ours[-1], "star": ours[0]}.get(shape, chance.choice(ours))
    pairs = [(first, chance.choice(theirs))]
    if shape == "clique" or chance.random() < 0.3:
        pairs += [(name, name) for name in ours if name in theirs]
    on = tuple({other: (one, other) for one, other in pairs}.values())
    left_right = (left, right) if chance.random() < 0.7 else (right, left)
    on = on if left_right[0] is left else tuple((two, one) for one, two in on)
    how = "inner" if chance.random() < 0.9 else chance.choice(["left", "semi", "full"])
    made: Plan = Join(*left_right, tuple(dict.fromkeys(on)), how, f"_{at}")  # type: ignore[arg-type]
    names = check(made).names
    if chance.random() < 0.25:
        made = Rename(made, ((names[0], f"{names[0]}_r{at}"),))
    if chance.random() < 0.25:
        one, other = (col(chance.choice(check(made).names)) for _ in range(2))
        made = Filter(made, Call(chance.choice(["eq", "le"]), (one, other)))
    return made


def _on_top(plan: Plan, chance: random.Random) -> Plan:
    names = check(plan).names
    if chance.random() < 0.5:
        return Distinct(plan)
    keys = tuple((name, col(name)) for name in chance.sample(names, chance.randint(0, 2)))
    total = ("total", col(chance.choice(names)).sum())
    return Aggregate(plan, keys, (("n", col(names[-1]).count()), total))


def _counted(rows: Any) -> Counter[tuple[Any, ...]]:
    return Counter(tuple(row) for row in rows)


def _worlds(
    count: int, seed: int
) -> Iterator[tuple[Plan, dict[str, Rows], dict[str, SourceStats]]]:
    chance = random.Random(seed)
    for _ in range(count):
        try:
            yield random_world(chance)
        except UsageError:  # two columns would have one name
            continue


def sql_of(plan: Plan) -> str:
    """A plan of these tests as DuckDB's SQL."""
    names = check(plan).names
    match plan:
        case Scan(source):
            return f"SELECT * FROM {Path(source.paths[0]).stem}"  # type: ignore[union-attr]
        case Filter(below, Call(fn, (one, other))):
            sign = {"eq": "=", "le": "<=", "gt": ">"}[fn]
            return f"SELECT * FROM ({sql_of(below)}) WHERE {one!s} {sign} {other!s}"
        case Rename(below, pairs):
            new = dict(pairs)
            kept = ", ".join(f"{name} AS {new.get(name, name)}" for name in check(below).names)
            return f"SELECT {kept} FROM ({sql_of(below)})"
        case Distinct(below):
            return f"SELECT DISTINCT * FROM ({sql_of(below)})"
        case Aggregate(below, keys, aggs):
            made = [name for name, _ in keys] + [f"{agg!s} AS {name}" for name, agg in aggs]
            by = f"GROUP BY {', '.join(name for name, _ in keys)}" if keys else ""
            return f"SELECT {', '.join(made)} FROM ({sql_of(below)}) {by}"
        case Join(left, right):
            return _join_sql(plan, left, right, names)
    raise AssertionError(plan)


def _join_sql(node: Join, left: Plan, right: Plan, names: tuple[str, ...]) -> str:
    ours, theirs = check(left).names, check(right).names
    same = " AND ".join(f"l.{one} = r.{other}" for one, other in node.on)
    both = f"({sql_of(left)}) l {node.how.upper()} JOIN ({sql_of(right)}) r ON {same}"
    if node.how == "semi":
        return f"SELECT l.* FROM {both}"
    shared = [one for one, other in node.on if one == other]
    cells = [f"coalesce(l.{n}, r.{n})" if n in shared else f"l.{n}" for n in ours]
    cells += [f"r.{name}" for name in theirs if name not in shared]
    return "SELECT {} FROM {}".format(
        ", ".join(f"{cell} AS {name}" for cell, name in zip(cells, names, strict=True)), both
    )


def _compare(count: int, seed: int) -> int:
    changed = 0
    with duckdb.connect(config={"threads": 1}) as connection:
        for plan, tables, hints in _worlds(count, seed):
            made = order_joins(plan, HERE, hints)
            changed += made is not plan
            ours = _counted(rows_of(prune_columns(made, HERE), tables))
            assert ours == _counted(rows_of(plan, tables))
            for path, rows in tables.items():
                schema = next(s.schema for s in scans_of(plan) if s.source.paths[0] == path)  # type: ignore[union-attr]
                assert schema is not None
                cells = ", ".join(str(row).replace("None", "NULL::BIGINT") for row in rows)
                cells = cells.replace(",)", ")")
                connection.execute(
                    f"CREATE OR REPLACE TABLE {Path(path).stem} AS "
                    f"FROM (VALUES {cells}) t({', '.join(schema.names)})"
                )
            assert ours == _counted(connection.execute(sql_of(plan)).fetchall())
    return changed


@pytest.mark.slow
def test_another_order_changes_no_row_of_random_joins() -> None:
    assert _compare(24, 11) > 4


@pytest.mark.nightly
def test_another_order_changes_no_row_of_many_random_joins() -> None:
    assert _compare(400, 12) > 80
