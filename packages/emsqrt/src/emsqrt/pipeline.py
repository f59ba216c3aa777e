"""Build plans fluently: `scan("a.csv").filter("age > 25").sink("b.csv").run(mem_cap="64MiB")`.

Lazy and immutable: every verb returns a new pipeline, and nothing is read before `run`, `collect`
or `schema`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from emsqrt.expr import Agg, Column, Expr, Named, SortKey, parse_expr
from emsqrt.expr.parser import parse_named
from emsqrt.plan import (
    Aggregate,
    Distinct,
    Expect,
    Explode,
    Files,
    FileTarget,
    Filter,
    Join,
    JoinKind,
    Limit,
    Plan,
    Project,
    Rename,
    Sample,
    Scan,
    Sink,
    Sort,
    TopK,
    Union,
    Window,
    WindowCall,
    WithColumn,
    check,
    explain,
    plan_hash,
    sort_key,
    window_call,
)
from emsqrt.plan.nodes import SUFFIX
from emsqrt.process_setup import require_arrow
from sennit_core.errors import Unsupported, UsageError
from sennit_core.optional import import_optional
from sennit_core.schema import Schema
from sennit_core.text import camel_case
from sennit_core.units import parse_bytes

if TYPE_CHECKING:
    import pandas
    import pyarrow as pa

    from emsqrt.engine import Engine
    from emsqrt.manifest import Manifest
    from emsqrt.planner.physical import Tier
    from emsqrt.te import Explanation

SUFFIX_FORMATS = {
    ".csv": "csv",
    ".tsv": "csv",
    ".parquet": "parquet",
    ".pq": "parquet",
    ".arrow": "arrow",
    ".arrows": "arrow",
    ".feather": "arrow",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
}
_PACKED = (".gz", ".zst")
_AS = re.compile(r"\sas\s", re.IGNORECASE)

On: TypeAlias = str | Iterable[str | tuple[str, str]] | Mapping[str, str]
"""Keys of a join: column names that both sides have, or pairs of (left, right)."""

ColumnNames: TypeAlias = str | Iterable[str]


@dataclass(frozen=True, slots=True, repr=False)
class Pipeline:
    """A plan being built."""

    plan: Plan

    def __repr__(self) -> str:
        """Return the plan, one line per operator; nothing is read."""
        return f"Pipeline\n{explain(self.plan)}"

    def filter(self, *predicates: Expr | str) -> Pipeline:
        """Keep the rows for which every predicate is true: "age > 25" or `col("age") > 25`."""
        plan = self.plan
        for predicate in predicates:
            plan = Filter(plan, _expr(predicate))
        return Pipeline(plan)

    def select(self, *columns: Named | Expr | str, **named: Expr | str) -> Pipeline:
        """Compute these columns: "a", "a * 2 as b", `(col("a") * 2).alias("b")`, b="a * 2"."""
        made = [_named(column) for column in columns]
        made += [(name, _expr(expr)) for name, expr in named.items()]
        return Pipeline(Project(self.plan, tuple(made)))

    def rename(self, names: Mapping[str, str]) -> Pipeline:
        """Rename columns, {from: to}."""
        return Pipeline(Rename(self.plan, tuple(names.items())))

    def with_column(self, name: str, expr: Expr | str) -> Pipeline:
        """Add a column, or replace the one of that name."""
        return self.with_columns(**{name: expr})

    def with_columns(self, *columns: Named | Expr | str, **named: Expr | str) -> Pipeline:
        """Add or replace columns, as for `select`; every expression sees the current columns."""
        made = [_named(column) for column in columns]
        made += [(name, _expr(expr)) for name, expr in named.items()]
        return Pipeline(WithColumn(self.plan, tuple(made)))

    def group_by(self, *keys: Named | Expr | str, **named: Expr | str) -> Grouped:
        """Group by columns or named expressions; continue with `agg`."""
        made = [_named(key) for key in keys]
        made += [(name, _expr(expr)) for name, expr in named.items()]
        return Grouped(self.plan, tuple(made))

    def agg(self, *aggs: Named | Agg | str, **named: Agg | str) -> Pipeline:
        """Aggregate all rows into one."""
        return Grouped(self.plan, ()).agg(*aggs, **named)

    def limit(self, count: int, offset: int = 0) -> Pipeline:
        """Pass on `count` rows after `offset`, and stop reading."""
        return Pipeline(Limit(self.plan, count, offset))

    def head(self, count: int = 5) -> Pipeline:
        """Keep the first rows; `limit(count)`."""
        return self.limit(count)

    def sort(
        self, *keys: SortKey | Expr | str, descending: bool | Iterable[bool] = False
    ) -> Pipeline:
        """Order the rows: "age", "name:desc", "name:desc:nulls_first", `col("age").desc()`.

        Args:
            keys: columns or expressions; the first key is compared first.
            descending: the direction of all keys, or of each; a key with a direction of its own
                keeps it.
        """
        return Pipeline(Sort(self.plan, _directed(tuple(map(sort_key, keys)), descending)))

    def top_k(self, count: int, *keys: SortKey | Expr | str, offset: int = 0) -> Pipeline:
        """Keep the first `count` rows of that order, after `offset`."""
        return Pipeline(TopK(self.plan, tuple(map(sort_key, keys)), count, offset))

    def distinct(self, *columns: str) -> Pipeline:
        """Keep one row of each set of equal rows, by all columns or these; sorted by them."""
        return Pipeline(Distinct(self.plan, columns or None))

    unique = distinct

    def join(
        self,
        other: Pipeline | Plan,
        on: On = (),
        how: JoinKind = "inner",
        suffix: str = SUFFIX,
    ) -> Pipeline:
        """Join with the rows of `other` whose keys are equal.

        Args:
            other: the right side; an inner join is fastest with the smaller input on the right.
            on: "id", ["a", "b"], [("id", "user_id")] or {"id": "user_id"}; none for "cross".
            how: "inner", "left", "right", "full", "semi", "anti" or "cross".
            suffix: appended to right-hand column names that the left side has too.
        """
        return Pipeline(Join(self.plan, _plan(other), _pairs(on), how, suffix))

    def union(self, *others: Pipeline | Plan, by_name: bool = False) -> Pipeline:
        """Append the rows of the others; columns match by position, or `by_name`."""
        return Pipeline(Union((self.plan, *map(_plan, others)), by_name))

    concat = union

    def window(
        self,
        partition_by: Expr | str | Iterable[Expr | str] = (),
        order_by: SortKey | Expr | str | Iterable[SortKey | Expr | str] = (),
        **functions: WindowCall | Agg | str,
    ) -> Pipeline:
        """Add columns computed over the rows of a partition: `n="row_number()"`.

        Args:
            partition_by: columns or expressions; without any, all rows are one partition.
            order_by: sort keys, as for `sort`.
            functions: each column's name and function, such as "lag(amount, 1)" or
                "sum(amount) rows between 2 preceding and current row".
        """
        parts = [Column(part) if isinstance(part, str) else part for part in _several(partition_by)]
        keys = tuple(map(sort_key, _several(order_by)))
        calls = tuple((name, window_call(call)) for name, call in functions.items())
        return Pipeline(Window(self.plan, tuple(parts), keys, calls))

    def explode(
        self,
        column: str,
        as_name: str | None = None,
        *,
        outer: bool = False,
        position: str | None = None,
    ) -> Pipeline:
        """Make one row of each item of a list; `outer` keeps rows whose list is empty."""
        return Pipeline(Explode(self.plan, column, as_name, outer, position))

    def sample(
        self, fraction: float | None = None, *, count: int | None = None, seed: int = 0
    ) -> Pipeline:
        """Keep a fraction of the rows, or exactly `count`; the same rows for the same seed."""
        return Pipeline(Sample(self.plan, fraction, count, seed))

    def expect(
        self, *, unique: ColumnNames = (), not_null: ColumnNames = (), rows: str | None = None
    ) -> Pipeline:
        """Fail the run if rows violate a condition: `unique="id", not_null=["id"], rows=">0"`."""
        wishes = tuple(_several(unique)), tuple(_several(not_null))
        return Pipeline(Expect(self.plan, *wishes, rows))

    def sink(
        self,
        path: str | Path,
        format: str | None = None,  # noqa: A002 - the word of the plan
        **options: Any,
    ) -> Pipeline:
        """Write the rows to a file, which appears when it is complete.

        Args:
            path: of the file, or of the folder with `partition_by`.
            format: "csv", "jsonl", "parquet" or "arrow"; by the file's suffix when None.
            options: for the writer, as for `scan`: Parquet has partition_by, row_group_bytes,
                row_group_rows, compression.
        """
        kind = format or _format(path)
        _separate_by_tabs(path, kind, options)
        target = FileTarget(str(path), kind, _plan_names(options))
        return Pipeline(Sink(self.plan, target))

    def run(
        self,
        mem_cap: str | int | None = None,
        *,
        in_process: bool = False,
        engine: Engine | None = None,
    ) -> Manifest:
        """Run the plan in a child process of its own, and wait; see `Engine.run`."""
        return _engine(engine).run(self.plan, mem_cap=mem_cap, in_process=in_process)

    def batches(
        self, mem_cap: str | int | None = None, *, engine: Engine | None = None
    ) -> Iterator[pa.RecordBatch]:
        """Yield the rows as Arrow record batches, as they are produced."""
        return _engine(engine).batches(self.plan, mem_cap=mem_cap)

    def collect(
        self, mem_cap: str | int | None = None, *, engine: Engine | None = None
    ) -> pa.Table:
        """Return all rows as an Arrow table, in the caller's own memory."""
        require_arrow("an Arrow table")
        import pyarrow as pa

        batches = list(self.batches(mem_cap, engine=engine))
        return pa.Table.from_batches(batches, None if batches else self.schema().to_arrow())

    def to_pandas(
        self, mem_cap: str | int | None = None, *, engine: Engine | None = None
    ) -> pandas.DataFrame:
        """Return all rows as a `pandas.DataFrame`; needs pandas."""
        import_optional("pandas", ".to_pandas()")
        frame: pandas.DataFrame = self.collect(mem_cap, engine=engine).to_pandas()
        return frame

    def count(self, mem_cap: str | int | None = None, *, engine: Engine | None = None) -> int:
        """Run the plan, and return how many rows it produces."""
        counted = self.agg(n="count(*)").collect(mem_cap, engine=engine)
        return int(counted.column("n")[0].as_py())

    def schema(self) -> Schema:
        """Return the columns of the result, with their types; reads the source's first bytes."""
        from emsqrt.planner import find_schema

        return check(find_schema(self.plan, Path()))

    def explain(
        self,
        mem_cap: str | int | None = None,
        *,
        manifest: Manifest | None = None,
        engine: Engine | None = None,
    ) -> str:
        """Return the plan as text, one line an operator, and its hash.

        Args:
            mem_cap: also report how the plan is carried out under this cap: estimates, strategies,
                R, K, P, b, F, C_min and expected spill.
            manifest: of a run of this plan; its measured figures are shown next to the planned
                ones.
            engine: supplies the settings; those of the environment when None.
        """
        if mem_cap is None:
            return f"{explain(self.plan)}\nplan {plan_hash(self.plan)}"
        return str(replace(self.planned(mem_cap, engine=engine), manifest=manifest))

    def planned(self, mem_cap: str | int, *, engine: Engine | None = None) -> Explanation:
        """Return the physical plan and its schedule under a cap; use `to_json()` in programs."""
        from emsqrt.te import TeOptions, explain_plan
        from emsqrt.text_engine.compile import why_not_text

        cap_bytes = parse_bytes(mem_cap)
        tier: Tier = "arrow" if why_not_text(self.plan) else "text"
        requirement = _engine(engine).estimate(self.plan, mem_cap=cap_bytes)
        options = TeOptions.measured(requirement, cap_bytes)
        return explain_plan(self.plan, cap_bytes, tier=tier, options=options)


@dataclass(frozen=True, slots=True, repr=False)
class Grouped:
    """Rows grouped by keys, waiting for their aggregates."""

    plan: Plan
    keys: tuple[tuple[str, Expr], ...]

    def __repr__(self) -> str:
        """Return the keys, and the plan of the rows that are grouped."""
        named = (
            name if isinstance(expr, Column) and expr.name == name else f"{expr!s} as {name}"
            for name, expr in self.keys
        )
        return f"Grouped by {', '.join(named) or 'nothing'}\n{explain(self.plan)}"

    def agg(self, *aggs: Named | Agg | str, **named: Agg | str) -> Pipeline:
        """Aggregate each group: `total="sum(amount)"`, `n=count()`, "count(*)" or "count(*) as n"."""
        made = [_named_agg(agg) for agg in aggs]
        made += [(name, _agg(agg)) for name, agg in named.items()]
        return Pipeline(Aggregate(self.plan, self.keys, tuple(made)))

    def count(self, name: str = "count") -> Pipeline:
        """Count the rows of each group, in a column called `name`."""
        return self.agg(**{name: "count(*)"})


def scan(
    *paths: str | Path,
    format: str | None = None,  # noqa: A002 - the word of the plan
    schema: Schema | None = None,
    **options: Any,
) -> Pipeline:
    """Begin with files, which are read in this order.

    Args:
        paths: CSV, JSONL, Parquet or Arrow files, all of one format.
        format: "csv", "jsonl", "parquet" or "arrow"; by the first path's suffix when None.
        schema: the columns with their types; found in the first file when None.
        options: for the reader: CSV has delimiter, quote, header, null_values, record_bytes_max,
            bad_rows, reject_file. The names of the plan (`nullValues`) mean the same.
    """
    if not paths:
        raise UsageError("scan needs at least one file")
    for path in paths:
        if not isinstance(path, str | Path):
            raise UsageError(f"{path!r} is no path", hint="pass each file separately: scan(*paths)")
    if not isinstance(schema, Schema | None):
        raise UsageError(
            f"{schema!r} is no schema", hint='such as Schema.of(id="Int64", name="Utf8")'
        )
    kind = format or _format(paths[0])
    _separate_by_tabs(paths[0], kind, options)
    return Pipeline(Scan(Files(tuple(map(str, paths)), kind, _plan_names(options)), schema))


def _separate_by_tabs(path: str | Path, kind: str, options: dict[str, Any]) -> None:
    """Set the delimiter to tab for a `.tsv` file, unless an option sets it."""
    if kind == "csv" and plain_suffix(path) == ".tsv":
        options.setdefault("delimiter", "\t")


def _plan_names(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return options under the names that plans use, each once.

    Raises:
        UsageError: an option has both spellings.
    """
    spelled = {camel_case(name): value for name, value in options.items()}
    if len(spelled) < len(options):
        twice = next(name for name in options if name != camel_case(name) in options)
        raise UsageError(f"{twice} and {camel_case(twice)} are the same option; pass one of them")
    return spelled


def _expr(value: Named | Expr | str) -> Expr:
    if isinstance(value, Named):
        return value.expr  # an enclosing keyword names the column, or it needs no name
    return parse_expr(value) if isinstance(value, str) else value


def _directed(keys: tuple[SortKey, ...], descending: bool | Iterable[bool]) -> tuple[SortKey, ...]:
    """Return sort keys with the directions of `descending`; a key that is `desc` stays so."""
    directions = [descending] * len(keys) if isinstance(descending, bool) else list(descending)
    if len(directions) != len(keys):
        raise UsageError(f"descending has {len(directions)} values for {len(keys)} keys")
    return tuple(
        replace(key, descending=key.descending or down)
        for key, down in zip(keys, directions, strict=True)
    )


def _named(value: Named | Expr | str) -> tuple[str, Expr]:
    if isinstance(value, Named):
        return value.name, value.expr
    if isinstance(value, str):
        return parse_named(value) if _AS.search(value) else (value, Column(value))
    if isinstance(value, Column):
        return value.name, value
    if isinstance(value, Expr):
        raise UsageError(f"the column {value!s} needs a name", hint=f"such as total={str(value)!r}")
    raise UsageError(
        f"{value!r} is no column",
        hint='pass each separately: its name, or text such as "a * 2 as b"',
    )


def _agg(value: Named | Expr | str) -> Agg:
    expr = _expr(value)
    if not isinstance(expr, Agg):
        raise UsageError(f"{expr!s} is not an aggregate", hint="such as sum(amount) or count(*)")
    return expr


def _named_agg(value: Named | Agg | str) -> tuple[str, Agg]:
    if isinstance(value, Named):
        return value.name, _agg(value.expr)
    if isinstance(value, str) and _AS.search(value):
        name, expr = parse_named(value)
        return name, _agg(expr)
    agg = _agg(value)
    return "count" if agg.arg is None else f"{agg.fn}_{agg.arg!s}", agg


def _plan(value: Pipeline | Plan) -> Plan:
    plan = value.plan if isinstance(value, Pipeline) else value
    if not isinstance(plan, Plan):
        raise UsageError(f"{value!r} is no pipeline", hint='begin one with scan("…")')
    return plan


def _pairs(on: On) -> tuple[tuple[str, str], ...]:
    if isinstance(on, str):
        return ((on, on),)
    if isinstance(on, Mapping):
        return tuple(on.items())
    return tuple((key, key) if isinstance(key, str) else (key[0], key[1]) for key in on)


def _several(value: Any) -> list[Any]:
    """Return a list of one or several values; a text, an expression and a key are one value."""
    return [value] if isinstance(value, str | Expr | SortKey) else list(value)


def plain_suffix(path: str | Path) -> str:
    """Return the suffix that names a file's format, `.csv` of `a.csv.gz`, in lower case."""
    name = str(path).lower()
    for packed in _PACKED:
        name = name.removesuffix(packed)
    return Path(name).suffix


def _format(path: str | Path) -> str:
    suffix = plain_suffix(path)
    if suffix not in SUFFIX_FORMATS:
        raise Unsupported(
            f"the suffix of {str(path)!r} names no known format",
            hint=f"pass format=, or use one of {', '.join(SUFFIX_FORMATS)}",
        )
    return SUFFIX_FORMATS[suffix]


def _engine(engine: Engine | None) -> Engine:
    from emsqrt.engine import Engine as NewEngine

    return engine or NewEngine()
