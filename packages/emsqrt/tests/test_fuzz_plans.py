"""Random plans over random tables, in any memory and any tier, answer as DuckDB does."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest
from fuzz_data import MENU, SUMMABLE, random_table
from fuzz_oracle import Oracle, TooManyRows, differ
from fuzz_runs import Ran, Rows, run_batches, run_files, run_thin, smallest, write_table
from hypothesis import HealthCheck, event, given, note, settings
from hypothesis import strategies as st

from emsqrt.expr import ValueOutOfRange
from emsqrt.pipeline import Pipeline, scan
from emsqrt.plan import check, explain
from sennit_core.errors import Unsupported, UsageError
from sennit_core.schema import Schema

MIB = 1 << 20
Draw = Callable[[st.SearchStrategy[Any]], Any]
HOWS = ("inner", "left", "right", "full", "semi", "anti", "cross")
DIRECTIONS = ("", ":desc", ":nulls_first", ":desc:nulls_first")
SMALL = ("i8", "i16", "u8", "u16", "n", "g")
NO_TEXT_FORM = ("b", "xs")
"""Columns that CSV and JSON Lines do not carry."""


class Case:
    """A plan, the tables that it reads, and how it is carried out."""

    def __init__(
        self, pipeline: Pipeline, tables: dict[str, tuple[Schema, pa.Table]], way: str, memory: int
    ) -> None:
        self.pipeline = pipeline
        self.tables = tables
        self.way = way
        self.memory = memory
        self.batch_rows = 1
        self.made = 0

    def __repr__(self) -> str:
        rows = {
            name: (table.num_rows, str(schema)) for name, (schema, table) in self.tables.items()
        }
        return f"{explain(self.pipeline.plan)}\n{rows}\n{self.way}, {self.memory} bytes"


WAYS = ("batches", "batches", "batches", "parquet", "arrow", "jsonl", "csv", "thin", "thin")
ROWS = (0, 1, 2, 7, 40, 700, 9000)


@st.composite
def cases(draw: Draw, rows: Sequence[int] = ROWS, ways: Sequence[str] = WAYS) -> Case:
    """Draw a plan of up to five steps over two tables."""
    way = draw(st.sampled_from(ways))
    tables: dict[str, tuple[Schema, pa.Table]] = {}
    sources = []
    for name in ("l", "r"):
        columns = [
            c for c in MENU if way in ("batches", "parquet", "arrow") or c not in NO_TEXT_FORM
        ]
        names = draw(st.lists(st.sampled_from(columns), min_size=1, max_size=6, unique=True))
        count, seed = draw(st.sampled_from(rows)), draw(st.integers(0, 1 << 20))
        is_text = way not in ("batches", "parquet", "arrow")
        schema, table = random_table(names, count, seed, nul=not is_text)
        suffix = {"batches": "arrow", "thin": "csv"}.get(way, way)
        path = f"{name}.{suffix}"
        tables[path] = schema, table
        sources.append(scan(path, schema=schema))
    case = Case(sources[0], tables, way, draw(st.sampled_from((0, 0, 1, 4, 64))))
    case.batch_rows = draw(st.sampled_from((1000, 64, 100_000)))
    case.pipeline, other = (
        exploded(draw, case, source) if "xs" in check(source.plan) else source for source in sources
    )
    for _ in range(draw(st.integers(0, 1))):
        other = step(draw, case, other, None)
    for _ in range(draw(st.integers(1, 4))):
        case.pipeline = step(draw, case, case.pipeline, other)
    return case


def step(draw: Draw, case: Case, rows: Pipeline, other: Pipeline | None) -> Pipeline:
    """Draw one more operator; one that makes no sense here is left out."""
    verb = draw(st.sampled_from(VERBS if other else VERBS[:-4]))
    names = check(rows.plan).names
    firm = [name for name in names if not name.startswith("z")]
    try:
        made = verb(draw, case, rows, firm, other) if firm else rows
        check(made.plan)
        return made
    except UsageError:
        return rows


def fresh(case: Case, prefix: str = "c") -> str:
    """Return a name that no column has."""
    case.made += 1
    return f"{prefix}{case.made}"


def pick(draw: Draw, names: Sequence[str], most: int = 3) -> list[str]:
    """Draw a few columns."""
    chosen: list[str] = draw(
        st.lists(st.sampled_from(list(names)), min_size=1, max_size=most, unique=True)
    )
    return chosen


def _filter(draw: Draw, case: Case, rows: Pipeline, names: list[str], _: Any) -> Pipeline:
    one, two = draw(st.sampled_from(names)), draw(st.sampled_from(names))
    return rows.filter(
        draw(
            st.sampled_from(
                (
                    f"{one} is not null",
                    f"{one} is null or {two} is not null",
                    f"{one} <= {two}",
                    f"not ({one} == {two})",
                    f"{one} > 1",
                    f"{one} in (0, 1, -1) or {two} is null",
                    f"{one} between -3 and 20",
                    f"{one} == 'a' or {two} < 'b'",
                    f"coalesce({one}, {two}) == {one}",
                    f"case when {one} is null then {two} is null else {one} <> {two} end",
                )
            )
        )
    )


def _with(draw: Draw, case: Case, rows: Pipeline, names: list[str], _: Any) -> Pipeline:
    one, two = draw(st.sampled_from(names)), draw(st.sampled_from(names))
    expr = draw(
        st.sampled_from(
            (
                one,
                f"coalesce({one}, {two})",
                f"case when {one} is null then 1 when {one} = {two} then 2 end",
                f"nullif({one}, {two})",
                f"{one} is null",
                f"{one} < {two}",
                "true",
                "5",
            )
        )
    )
    name = draw(st.sampled_from((one, fresh(case))))
    return rows.with_column(name, expr)


def _project(draw: Draw, case: Case, rows: Pipeline, names: list[str], _: Any) -> Pipeline:
    kept = pick(draw, names, 6)
    return rows.select(*kept, **{fresh(case): kept[-1]})


def _rename(draw: Draw, case: Case, rows: Pipeline, names: list[str], _: Any) -> Pipeline:
    return rows.rename({name: fresh(case) for name in pick(draw, names)})


def _sort(draw: Draw, case: Case, rows: Pipeline, names: list[str], _: Any) -> Pipeline:
    return rows.sort(*(name + draw(st.sampled_from(DIRECTIONS)) for name in pick(draw, names)))


def _top(draw: Draw, case: Case, rows: Pipeline, names: list[str], _: Any) -> Pipeline:
    keys = [name + draw(st.sampled_from(DIRECTIONS)) for name in pick(draw, names)]
    count, offset = draw(st.sampled_from((1, 5, 100, 5000))), draw(st.sampled_from((0, 3, 500)))
    return rows.top_k(count, *keys, offset=offset)


def _limit(draw: Draw, case: Case, rows: Pipeline, names: list[str], _: Any) -> Pipeline:
    return rows.limit(draw(st.sampled_from((1, 30, 5000))), draw(st.sampled_from((0, 2, 400))))


def _distinct(draw: Draw, case: Case, rows: Pipeline, names: list[str], _: Any) -> Pipeline:
    if len(names) < len(check(rows.plan).names) or draw(st.booleans()):
        return rows.distinct(*pick(draw, names))
    return rows.distinct()


def _aggregate(draw: Draw, case: Case, rows: Pipeline, names: list[str], _: Any) -> Pipeline:
    keys = pick(draw, names) if draw(st.integers(0, 4)) else []
    schema = check(rows.plan)
    sums = [n for n in names if n in SUMMABLE and str(schema.field(n).type) == MENU.get(n)]
    made: dict[str, str] = {}
    for _ in range(draw(st.integers(1, 4))):
        any_one = draw(st.sampled_from(names))
        form = draw(st.sampled_from(PLAIN_AGGS))
        made[fresh(case, "zh" if form.startswith("approx") else "c")] = form.format(any_one)
        if sums:
            form = draw(st.sampled_from(SUM_AGGS))
            name = fresh(case, "c" if form.startswith("sum") else "z")
            summed = draw(st.sampled_from(sums))
            if summed not in SMALL and form.startswith(("var", "stddev")):
                form = "avg({})"  # their squares lose digits, as spec/float-sum.md says
            made[name] = form.format(summed)
    return rows.group_by(*keys).agg(**made)


PLAIN_AGGS = (
    "count(*)",
    "count({})",
    "min({})",
    "max({})",
    "first({})",
    "last({})",
    "count(distinct {})",
    "approx_count_distinct({})",
    "quantile_disc({}, 0.4)",
)
SUM_AGGS = (
    "sum({})",
    "sum(distinct {})",
    "avg({})",
    "avg(distinct {})",
    "var({})",
    "stddev({})",
    "median({})",
    "quantile({}, 0.9)",
    "quantile({}, 0)",
)


def _sample(draw: Draw, case: Case, rows: Pipeline, names: list[str], _: Any) -> Pipeline:
    seed = draw(st.integers(0, 5))
    if draw(st.booleans()):
        return rows.sample(draw(st.sampled_from((0.0, 0.3, 1.0))), seed=seed)
    return rows.sample(count=draw(st.sampled_from((0, 1, 50, 3000))), seed=seed)


def _expect(draw: Draw, case: Case, rows: Pipeline, names: list[str], _: Any) -> Pipeline:
    return rows.expect(rows=">=0")


def _window(draw: Draw, case: Case, rows: Pipeline, names: list[str], _: Any) -> Pipeline:
    parts = pick(draw, names, 2) if draw(st.booleans()) else []
    keys = [name + draw(st.sampled_from(DIRECTIONS)) for name in pick(draw, names, 2)]
    keys = keys if draw(st.integers(0, 3)) else []
    schema = check(rows.plan)
    sums = [n for n in names if n in SUMMABLE and str(schema.field(n).type) == MENU.get(n)]
    made: dict[str, str] = {}
    for _ in range(draw(st.integers(1, 3))):
        one = draw(st.sampled_from(names))
        form = draw(st.sampled_from(RANKINGS if keys else ("row_number()", "count(*)")))
        made[fresh(case)] = form.format(one)
        frame = draw(st.sampled_from(FRAMES))
        if sums:
            form = draw(st.sampled_from(("sum({})", "avg({})", "min({})", "max({})", "count({})")))
            name = fresh(case, "z" if form.startswith("avg") else "c")
            made[name] = form.format(draw(st.sampled_from(sums))) + frame
        made[fresh(case)] = draw(st.sampled_from(("first_value", "last_value", "min", "max"))) + (
            f"({one}){frame or FRAMES[1]}"
        )
    return rows.window(parts, keys, **made)


RANKINGS = (
    *("row_number()", "rank()", "dense_rank()", "ntile(3)", "lag({})", "lead({}, 2)", "count({})"),
    *("lag({}, 0)", "lag({}, 700)", "count(*)", "ntile(1000)"),
)
FRAMES = (
    "",
    " rows between 2 preceding and current row",
    " rows between unbounded preceding and 1 preceding",
    " rows between 1 following and unbounded following",
    " rows between 300 preceding and 200 following",
    " rows between 3 following and 5 following",
    " rows between unbounded preceding and unbounded following",
)


def exploded(draw: Draw, case: Case, rows: Pipeline) -> Pipeline:
    """Take the lists apart, which no other operator looks at."""
    position = draw(st.sampled_from((None, fresh(case))))
    outer, name = draw(st.booleans()), draw(st.sampled_from((None, fresh(case))))
    return rows.explode("xs", name, outer=outer, position=position)


def _join(draw: Draw, case: Case, rows: Pipeline, names: list[str], other: Any) -> Pipeline:
    how = draw(st.sampled_from(HOWS))
    if how == "cross":
        return rows.limit(40).join(other.limit(50), how="cross")
    theirs = [name for name in check(other.plan).names if not name.startswith("z")]
    if not theirs:
        return rows
    both = [name for name in names if name in theirs]
    if both and draw(st.booleans()):
        keys = pick(draw, both, 2)
        if draw(st.booleans()):
            return rows.sort(*keys).join(other.sort(*keys), keys, how)
        return rows.join(other, keys, how)
    on = [(draw(st.sampled_from(names)), draw(st.sampled_from(theirs)))]
    return rows.limit(3000).join(other.limit(900), on, how)


def _union(draw: Draw, case: Case, rows: Pipeline, names: list[str], other: Any) -> Pipeline:
    if draw(st.booleans()):
        return rows.union(other, by_name=True)
    return rows.union(rows.limit(17, 3))


VERBS: list[Callable[..., Pipeline]] = [
    _filter,
    _with,
    _project,
    _rename,
    _limit,
    _top,
    _expect,
    _sample,
    _sort,
    _sort,
    _distinct,
    _distinct,
    _aggregate,
    _aggregate,
    _aggregate,
    _window,
    _window,
    _join,
    _join,
    _join,
    _union,
]


def outcome(case: Case, memory_bytes: int, scratch: Path) -> Ran | None:
    """Carry a case out its way; None when that way is not for it."""
    plan, schema = case.pipeline.plan, check(case.pipeline.plan)
    if case.way == "batches":
        tables = {name: table for name, (_, table) in case.tables.items()}
        return run_batches(plan, tables, memory_bytes, scratch, case.batch_rows)
    if case.way == "thin":
        return run_thin(plan, memory_bytes, scratch, schema)
    return run_files(plan, memory_bytes, scratch, case.way, schema)


def asked(case: Case) -> Rows | None:
    """Return DuckDB's rows; None where its SQL has no words of the same meaning."""
    with Oracle({name: table for name, (_, table) in case.tables.items()}) as oracle:
        try:
            return oracle.rows(case.pipeline.plan)
        except Unsupported:
            event("not SQL")
            return None


def judge(case: Case) -> None:
    """Ask DuckDB and the engine, and compare; also with the engine in plenty of memory."""
    note(repr(case))
    schema = check(case.pipeline.plan)
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        for name, (columns, table) in case.tables.items():
            if case.way != "batches":
                write_table(table, columns, scratch / name)
        try:
            wanted, refused = asked(case), None
        except TooManyRows:
            event("too many rows")
            return
        except duckdb.Error as error:
            wanted, refused = None, error
        try:
            first = case.memory * MIB or 1 << 16
            ran = smallest(lambda size: outcome(case, size, scratch), first)[0]
        except ValueOutOfRange as error:
            event("overflow")
            words = str(error)
            if wanted is None and ("sum" in words or " is not a Decimal(" in words):
                return  # beyond Int64, or an integer that a narrow decimal cannot hold
            raise
        if ran is None:
            event("not thin")
            return
        event(f"{case.way}, spilled: {ran.spilled_bytes > 0}")
        if refused is not None:
            raise refused
        if wanted is not None:
            difference = differ(ran.rows, wanted, schema)
            assert difference is None, difference
        plenty = outcome(case, 256 * MIB, scratch)
        assert plenty is not None
        assert repr(plenty.rows) == repr(ran.rows)


IN_SCRATCH = settings(
    deadline=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


@pytest.mark.timeout(600)
@settings(IN_SCRATCH, max_examples=150)
@given(cases())
def test_plans_answer_as_duckdb_does(case: Case) -> None:
    judge(case)


@pytest.mark.nightly
@pytest.mark.timeout(3600)
@settings(IN_SCRATCH, max_examples=2500)
@given(cases((*ROWS, 30_000)))
def test_many_plans_answer_as_duckdb_does(case: Case) -> None:
    judge(case)
