"""Statistics of sources before they are read, and estimates derived from them."""

from __future__ import annotations

import gzip
import json
import random
from collections.abc import Callable
from datetime import date
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet

from emsqrt.expr import parse_expr
from emsqrt.io.parquet_scan import infer_parquet_schema
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
from emsqrt.planner.distinct import guess_distinct, guess_from_groups
from emsqrt.planner.footers import measure_parquet
from emsqrt.planner.looking import names_looked_at
from emsqrt.planner.sampling import sample_text
from emsqrt.planner.selectivity import selectivity
from emsqrt.planner.statistics import equal_parts
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


def test_a_column_of_nulls_without_statistics_has_no_values(tmp_path: Path) -> None:
    table = pa.table({"t": pa.array([None] * 500, pa.string()), "n": range(500)})
    parquet.write_table(table, tmp_path / "a.parquet", write_statistics=False)

    stats = measured(tmp_path, "a.parquet")

    assert stats.rows == 500
    assert not stats.columns["t"].distinct


@pytest.mark.slow
def test_a_few_pieces_of_text_estimate_rows_and_spread(folder: Path) -> None:
    stats = measured(folder, "a.csv")
    assert stats.rows == pytest.approx(ROWS, rel=0.1)
    assert stats.bytes == (folder / "a.csv").stat().st_size
    assert stats.columns["id"].minimum == 0
    assert stats.columns["id"].maximum > ROWS * 0.9
    assert (stats.columns["id"].distinct or 0) > ROWS * 0.3
    assert stats.columns["g"].distinct == 20
    below = selectivity(parse_expr("id < 10000"), stats.columns)
    assert below == pytest.approx(0.25, abs=0.1)


def test_a_parquet_footer_is_exact(folder: Path) -> None:
    stats = measured(folder, "a.parquet")
    assert (stats.rows, stats.exact) == (ROWS, True)
    assert (stats.columns["id"].minimum, stats.columns["id"].maximum) == (0, ROWS - 1)
    assert stats.columns["n"].nulls == 0.5


def test_a_source_that_is_not_there_is_guessed_at() -> None:
    stats = measure_source(scan_of(scan("no.csv", schema=Schema.of(a="Int64")).plan))
    assert stats.rows > 0
    assert not stats.exact


SPREAD = random.Random(7)
MANY = 400_000


def _zipf(exponent: float, values: int) -> list[int]:
    weights = [1 / at**exponent for at in range(1, values + 1)]
    return random.Random(7).choices(range(values), weights, k=MANY)


def _even(values: int) -> list[int]:
    dice = random.Random(7)
    return [dice.randrange(values) for _ in range(MANY)]


# Drawn when a test needs them: together they cost two seconds in each process that collects tests.
DISTRIBUTIONS: dict[str, tuple[Callable[[], list[int]], float]] = {
    "even, 20": (lambda: _even(20), 1.01),
    "even, 1k": (lambda: _even(1000), 1.1),
    "even, 20k": (lambda: _even(20_000), 1.3),
    "unique": (lambda: list(range(MANY)), 1.01),
    "constant": (lambda: [1] * MANY, 1.0),
    "sorted, 4 each": (lambda: [at // 4 for at in range(MANY)], 1.2),
    "sorted, 1k each": (lambda: [at // 1000 for at in range(MANY)], 2.0),
    "half one value": (lambda: [at * bit for at, bit in enumerate(_even(2))], 1.2),
    "zipf, 1k": (lambda: _zipf(1.0, 1000), 1.7),
    "zipf, 30k": (lambda: _zipf(1.0, 30_000), 4.0),
    "steep zipf, 30k": (lambda: _zipf(1.5, 30_000), 4.0),
}


@pytest.mark.slow
@pytest.mark.sample(4)
@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_pieces_estimate_the_number_of_distinct_values(name: str) -> None:
    draw, error_most = DISTRIBUTIONS[name]
    values = draw()
    pieces = [values[(MANY - 160) * at // 31 :][:160] for at in range(32)]
    guess, true = guess_distinct(pieces, MANY), len(set(values))
    assert true / error_most <= guess <= true * error_most


def test_all_rows_are_exact() -> None:
    assert guess_distinct([[1, 2], [2, 3]], 4) == 3
    assert guess_distinct([], 4) == 0


@pytest.mark.slow
def test_row_groups_with_exact_counts_estimate_the_total() -> None:
    values, rows = _even(20_000), 10_000
    groups = [(rows, len(set(values[at : at + rows]))) for at in range(0, MANY, rows)]
    assert guess_from_groups([(float(n), float(d)) for n, d in groups], MANY) == pytest.approx(
        20_000, rel=0.03
    )
    assert guess_from_groups([(100.0, 7.0)] * 3, 1e6) == pytest.approx(7, rel=0.01)
    assert guess_from_groups([(100.0, 100.0)] * 3, 1e6) == 1e6


def test_pieces_are_spread_over_all_files(folder: Path) -> None:
    for part in range(40):
        (folder / f"part{part:02}.csv").write_text("v\n" + f"{part}\n" * 9000)
    source = scan(*(f"part{part:02}.csv" for part in range(40)), schema=Schema.of(v="Int64"))
    stats = measure_source(scan_of(source.plan), folder)
    assert stats.rows == pytest.approx(360_000, rel=0.1)
    assert (stats.columns["v"].minimum, stats.columns["v"].maximum) == (0, 39)
    assert stats.columns["v"].distinct == pytest.approx(40, rel=0.5)


TYPED = """d,t,n,u,b,f
2024-01-31,2024-01-31T05:00:00,12.50,"a, ""b""
c",true,1.5
1969-12-31,1969-12-31T23:59:59.5,-0.01,,false,
"""


def test_pieces_of_text_are_read_as_the_run_reads_them(tmp_path: Path) -> None:
    (tmp_path / "typed.csv").write_text(TYPED)
    types = {"d": "Date", "t": "Timestamp(us)", "n": "Decimal(9,2)", "u": "Utf8"}
    schema = Schema.of(**types, b="Bool", f="Float64")
    (piece,) = sample_text([tmp_path / "typed.csv"], "csv", {}, schema).pieces
    assert list(piece["d"]) == [date(2024, 1, 31), date(1969, 12, 31)]
    assert piece["t"][1].isoformat() == "1969-12-31T23:59:59.500000"
    assert list(piece["n"]) == [Decimal("12.50"), Decimal("-0.01")]
    assert list(piece["u"]) == ['a, "b"\nc', None]
    assert (list(piece["b"]), list(piece["f"])) == ([True, False], [1.5, None])


@pytest.mark.nightly
def test_compressed_text_and_json_lines_are_looked_at_too(folder: Path) -> None:
    lines = b"".join(b'{"k": %d, "s": "x%d"}\n' % (at % 30, at) for at in range(50_000))
    (folder / "a.jsonl").write_bytes(lines)
    (folder / "b.csv.gz").write_bytes(gzip.compress((folder / "a.csv").read_bytes()))
    assert measured(folder, "a.jsonl").rows == pytest.approx(50_000, rel=0.05)
    assert measured(folder, "a.jsonl").columns["k"].distinct == 30
    assert measured(folder, "b.csv.gz").columns["g"].distinct == 20


def test_columns_of_one_source_estimate_their_groups_together(folder: Path) -> None:
    rows = scan("a.csv").with_column("h", "g").group_by("g", "h").agg(n="count(*)")
    (folder / "c.csv").write_text("a,b\n" + "".join(f"{v},{v * 7}\n" for v in range(200)) * 300)
    both = scan("c.csv").group_by("a", "b").agg(n="count(*)")
    for pipeline, groups in ((rows, 20), (both, 200)):
        work = estimate_work(find_schema(pipeline.plan, folder), None, folder)
        assert work.rows_out == pytest.approx(groups, rel=0.1)


def test_dictionaries_of_parquet_count_distinct_values(folder: Path) -> None:
    wide = pa.table(
        {"s": [f"text {SPREAD.randrange(3000)}" for _ in range(ROWS)], "id": range(ROWS)}
    )
    parquet.write_table(wide, folder / "d.parquet", row_group_size=4000, use_dictionary=True)
    columns = measured(folder, "d.parquet").columns
    assert columns["s"].distinct == pytest.approx(3000, rel=0.15)
    assert columns["id"].distinct == pytest.approx(ROWS, rel=0.05)
    below = selectivity(parse_expr("id < 10000"), columns)
    assert below == pytest.approx(0.25, abs=0.02)


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
def test_a_histogram_estimates_the_share_of_a_range(text: str, share: float) -> None:
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
    assert strategy(Y.join(X, "a")) == "hash, build left, sorted after"
    assert strategy(Y.join(X, "a", "left")) == "hash, build left, sorted after"
    assert strategy(X.sort("a:desc").join(Y.sort("a"), "a")) == "hash, build right"
    assert strategy(X.join(Y, "a").agg(n="count(*)")) == "hash, build right, in any order"
    assert strategy(Y.join(X, "a").agg(n="count(*)")) == "hash, build left, in any order"
    assert strategy(Y.join(X, "a", "anti").agg(n="count(*)")) == "hash, build left, in any order"
    assert strategy(X.sort("a").join(Y.sort("a"), "a")) == "merge, both sides sorted by a"
    assert strategy(X.sort("a").join(Y.sort("a"), "a", "full")) == "merge, both sides sorted by a"
    assert strategy(X.distinct("b").join(Y.sort("a"), {"b": "a"})) == (
        "merge, both sides sorted by b"
    )
    both = [Y.sort("b", "a").filter("a > 1"), Y.group_by("b", "a").agg(n="count(*)")]
    assert strategy(both[0].join(both[1], ["a", "b"])) == "merge, both sides sorted by b, a"
    assert strategy(both[0].join(both[1], ["b"], "anti")) == "merge, both sides sorted by b"
    assert strategy(both[0].join(both[1], ["a"])) == "hash, build right"


def test_values_of_another_type_have_no_place_among_a_columns(tmp_path: Path) -> None:
    lines = [f'{{"price": {value}}}\n' for value in ('"1.50"', '"beyond"', "[1]", '"0.25"', "null")]
    (tmp_path / "a.jsonl").write_text("".join(lines))
    source = scan(tmp_path / "a.jsonl", schema=Schema.of(price="Decimal(12,2)"))
    stats = measure_source(scan_of(source.plan), tmp_path).columns["price"]
    assert (stats.minimum, stats.maximum) == (Decimal("0.25"), Decimal("1.50"))


LOOKED_AT: list[tuple[Pipeline, set[str] | None]] = [
    (X.sort("a"), set()),
    (X.filter("a > 1").sort("b"), {"a"}),
    (X.rename({"a": "c"}).with_column("d", "c + b").group_by("d").agg(n="sum(b)"), {*"abcd"}),
    (X.join(Y, {"a": "b"}).filter("b_right > 1"), {"a", "b", "b_right"}),
    (X.distinct("b"), {"b"}),
    (X.distinct(), None),
]


@pytest.mark.parametrize(("pipeline", "names"), LOOKED_AT)
def test_values_are_looked_at_where_an_estimate_depends_on_them(
    pipeline: Pipeline, names: set[str] | None
) -> None:
    assert names_looked_at(pipeline.plan) == names


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_unused_columns_are_only_measured(kind: str, tmp_path: Path) -> None:
    path = tmp_path / f"some.{kind}"
    rows = [(at % 7, None if at % 3 else 1.5, "x" * (at % 5)) for at in range(900)]
    if kind == "csv":
        path.write_text(
            "a,f,t\n" + "".join(f"{a},{'' if f is None else f},{t}\n" for a, f, t in rows)
        )
    else:
        path.write_text(
            "".join(json.dumps(dict(zip("aft", row, strict=True))) + "\n" for row in rows)
        )
    source = scan_of(scan(path, schema=Schema.of(a="Int64", f="Float64", t="Utf8")).plan)

    whole = measure_source(source)
    for names in ({"a"}, {"t"}, set()):
        some = measure_source(source, names=names)
        assert (some.rows, some.bytes, some.exact) == (900, whole.bytes, True)
        for name, stats in some.columns.items():
            if name in names:
                assert stats == whole.columns[name]
            else:
                assert stats == ColumnStats(stats.bytes)
                assert stats.bytes == pytest.approx(whole.columns[name].bytes)


def test_a_struct_of_several_types_is_measured(tmp_path: Path) -> None:
    rows = pa.table({"s": [{"n": 1, "t": "a"}, {"n": 2, "t": "b"}]})
    parquet.write_table(rows, tmp_path / "s.parquet")
    found = infer_parquet_schema(tmp_path / "s.parquet")
    stats = measure_parquet([tmp_path / "s.parquet"], 1000, found)
    assert stats.rows == 2
