"""What is known of sources before they are read, and what follows for the rows above."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet

from emsqrt.expr import parse_expr
from emsqrt.pipeline import Pipeline, scan
from emsqrt.planner import (
    ColumnStats,
    SourceStats,
    estimate_work,
    find_schema,
    lower_to_physical,
    measure_source,
    scan_of,
)
from emsqrt.planner.selectivity import selectivity
from emsqrt.planner.statistics import equal_parts, guess_distinct
from sennit_core.schema import Schema

ROWS = 40_000


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("sources")
    lines = (f"{i},{i % 20},{'' if i % 4 else 'text ' + str(i)},{i / 7}" for i in range(ROWS))
    (made / "a.csv").write_text("id,g,t,f\n" + "\n".join(lines) + "\n")
    table = pa.table({"id": range(ROWS), "n": [None, 1.5] * (ROWS // 2)})
    parquet.write_table(table, made / "a.parquet", row_group_size=10_000)
    return made


def measured(folder: Path, name: str) -> SourceStats:
    return measure_source(scan_of(find_schema(scan(name).plan, folder)), folder)


def test_a_few_pieces_of_text_tell_rows_and_spread(folder: Path) -> None:
    stats = measured(folder, "a.csv")
    assert stats.rows == pytest.approx(ROWS, rel=0.1)
    assert stats.bytes == (folder / "a.csv").stat().st_size
    assert stats.columns["id"].minimum == 0
    assert stats.columns["id"].maximum > ROWS * 0.9
    assert (stats.columns["id"].distinct or 0) > ROWS * 0.3
    assert stats.columns["g"].distinct == 20
    below = selectivity(parse_expr("id < 10000"), stats.columns)
    assert below == pytest.approx(0.25, abs=0.1)


def test_a_parquet_footer_tells_exactly(folder: Path) -> None:
    stats = measured(folder, "a.parquet")
    assert (stats.rows, stats.exact) == (ROWS, True)
    assert (stats.columns["id"].minimum, stats.columns["id"].maximum) == (0, ROWS - 1)
    assert stats.columns["n"].nulls == 0.5


def test_a_source_that_is_not_there_is_guessed_at() -> None:
    stats = measure_source(scan_of(scan("no.csv", schema=Schema.of(a="Int64")).plan))
    assert stats.rows > 0
    assert not stats.exact


def test_values_seen_once_stand_for_others() -> None:
    few = guess_distinct(Counter({"a": 50, "b": 50}), 1e6)
    many = guess_distinct(Counter(map(str, range(100))), 1e6)
    assert few == 2
    assert 1e3 < many <= 1e6


COLUMNS = {
    "a": ColumnStats(8, nulls=0.2, distinct=100, minimum=0, maximum=100),
    "b": ColumnStats(8, distinct=10),
}


@pytest.mark.parametrize(
    ("text", "share"),
    [
        ("a == 5", 0.008),
        ("a == 500", 0.0),
        ("a < 25", 0.2),
        ("25 > a", 0.2),
        ("a is null", 0.2),
        ("a is not null", 0.8),
        ("b == 1 and b == 2", 0.01),
        ("b == 1 or b == 2", 0.19),
        ("b in (1, 2, 3)", 0.3),
        ("not b == 1", 0.9),
        ("true", 1.0),
        ("b == null", 0.0),
    ],
)
def test_predicates_keep_their_share(text: str, share: float) -> None:
    assert selectivity(parse_expr(text), COLUMNS) == pytest.approx(share, abs=1e-9)


PARTS = {
    "n": ColumnStats(8, distinct=1e5, minimum=0, maximum=1000, histogram=(0, 1, 1, 1, 10, 1000)),
    "t": ColumnStats(8, distinct=1e5, minimum="a", maximum="z", histogram=("a", "b", "c", "z")),
}


@pytest.mark.parametrize(
    ("text", "share"),
    [
        ("n < 10", 0.8),
        ("n <= 1", 0.6),
        ("n < 1", 0.2),
        ("n > 505", 0.1),
        ("n < 5.5", 0.7),
        ("n between 10 and 505", 0.1),
        ("n == 1", 0.4),
        ("n == 7", 1e-5),
        ("n > 1000", 0.0),
        ("n >= 0", 1.0),
        ("t < 'c'", 2 / 3),
        ("t < 'm'", 5 / 6),
        ("t < 3", 1 / 3),
    ],
)
def test_a_histogram_tells_the_share_of_a_range(text: str, share: float) -> None:
    assert selectivity(parse_expr(text), PARTS) == pytest.approx(share, abs=1e-9)


def test_a_histogram_has_equally_many_values_in_each_part() -> None:
    assert equal_parts(list(range(101)), 5) == (0, 25, 50, 75, 100)
    assert equal_parts([3, 4], 5) == (3, 4)
    assert equal_parts([3]) == ()


BIG, SMALL = SourceStats(1e6, 10**8, COLUMNS), SourceStats(100, 10**4, COLUMNS)
X = scan("x.csv", schema=Schema.of(a="Int64", b="Int64"))
Y = scan("y.csv", schema=Schema.of(a="Int64", b="Int64"))


@pytest.mark.parametrize(
    ("pipeline", "rows"),
    [
        (X.filter("b == 1"), 1e5),
        (X.limit(5), 5),
        (X.group_by("b").agg("count(*)"), 10),
        (X.agg("count(*)"), 1),
        (X.distinct("a"), 101),
        (X.union(Y), 1e6 + 100),
        (X.join(Y, "b"), 1e7),
        (X.join(Y, how="cross"), 1e8),
        (X.join(Y, "b", "semi"), 1e6),
        (X.sample(0.5), 5e5),
        (X.rename({"b": "c"}).filter("c == 1"), 1e5),
    ],
)
def test_rows_are_estimated_through_operators(pipeline: Pipeline, rows: float) -> None:
    work = estimate_work(pipeline.plan, {"x.csv": BIG, "y.csv": SMALL})
    assert work.rows_out == pytest.approx(rows)
    assert work.bytes_in >= 10**8


def test_statistics_choose_how_a_join_is_carried_out() -> None:
    def strategy(pipeline: Pipeline) -> str:
        work = estimate_work(pipeline.plan, {"x.csv": BIG, "y.csv": SMALL})
        nodes = lower_to_physical(pipeline.plan, work).plan.nodes
        return next(node.strategy for node in nodes if node.operator == "join")

    assert strategy(X.join(Y, "a")) == "hash, build right"
    assert strategy(Y.join(X, "a")) == "hash, build right"
    assert strategy(Y.join(X, "a", "left")) == "hash, build right"
    assert strategy(X.sort("a:desc").join(Y.sort("a"), "a")) == "hash, build right"
    assert strategy(X.join(Y, "a").agg(n="count(*)")) == "hash, build right, in any order"
    assert strategy(Y.join(X, "a").agg(n="count(*)")) == "hash, build left, in any order"
    assert strategy(Y.join(X, "a", "anti").agg(n="count(*)")) == "hash, build right, in any order"
    assert strategy(X.sort("a").join(Y.sort("a"), "a")) == "merge, both sides sorted by a"
    assert strategy(X.sort("a").join(Y.sort("a"), "a", "full")) == "hash, build right"
    assert strategy(X.distinct("b").join(Y.sort("a"), {"b": "a"})) == (
        "merge, both sides sorted by b"
    )
    both = [Y.sort("b", "a").filter("a > 1"), Y.group_by("b", "a").agg(n="count(*)")]
    assert strategy(both[0].join(both[1], ["a", "b"])) == "merge, both sides sorted by b, a"
    assert strategy(both[0].join(both[1], ["b"], "anti")) == "merge, both sides sorted by b"
    assert strategy(both[0].join(both[1], ["a"])) == "hash, build right"
