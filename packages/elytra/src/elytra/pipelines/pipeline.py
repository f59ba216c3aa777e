"""The fluent API: a pipeline builds a plan, and nothing runs until a result is requested.

Every method returns a new pipeline. `count`, `sum`, `reduce`, `agg` … are as lazy as `filter`;
`collect`, `to_arrow`, `df`, `pl`, `show`, `iter_results`, `distribute` and `submit` run the plan.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from elytra.client.job_handle import Job
from elytra.client.result import Result
from elytra.pipelines.planned import Planned
from elytra.pipelines.source_columns import Reader, columns_of_source, source_at
from elytra.pipelines.writing import write_file
from elytra.splitter import Whole, datasets_of, split
from elytra.tracing.function import Shape, trace_condition, trace_map, trace_value
from elytra.tracing.reduction import Fold, check_initial, recognise
from emsqrt.expr import Agg, Column, Expr, coalesce, greatest, least, lit, parse_expr
from emsqrt.expr import count as count_rows
from emsqrt.expr.nodes import as_expr
from emsqrt.plan import (
    Aggregate,
    DatasetRef,
    Distinct,
    Expect,
    Explode,
    Files,
    Filter,
    Join,
    JoinKind,
    Limit,
    Plan,
    Project,
    Rename,
    Sample,
    Scan,
    Sort,
    SortKey,
    TopK,
    Union,
    Window,
    WindowCall,
    WithColumn,
    explain,
    sort_key,
    window_call,
)
from emsqrt.plan.nodes import SUFFIX
from sennit_core.errors import UsageError
from sennit_core.optional import import_optional
from sennit_core.schema import DataType, Schema

if TYPE_CHECKING:
    import pandas as pd
    import polars as pl
    import pyarrow as pa

Formula: TypeAlias = Expr | str | Callable[[Any], object]
"""An expression, its text, or a function of one row that is traced: `lambda r: r.price * r.qty`.

Expressions and text have SQL's meaning, functions have Python's (`elytra.tracing.values`)."""

On: TypeAlias = str | Iterable[str | tuple[str, str]] | Mapping[str, str]
"""Keys of a join: names that both sides have, or pairs of (left, right)."""

ColumnNames: TypeAlias = str | Iterable[str]

ColumnName: TypeAlias = Expr | str
"""A column, as `col("name")` or by its bare name."""


class Runner(Reader, Protocol):
    """The methods of a client that a pipeline uses; `elytra.client.client.Client` has them."""

    def submit(self, plan: Plan, **options: Any) -> Job:
        """Start a job."""
        ...

    def run(self, plan: Plan, *, timeout_seconds: float | None = None, **options: Any) -> Result:
        """Run a job and return its result."""
        ...


@dataclass(slots=True)
class _Origin:
    """The node that derived pipelines share; each dataset's schema is requested once."""

    runner: Runner
    _schemas: dict[DatasetRef, Schema] = field(default_factory=dict)

    def schema(self, ref: DatasetRef) -> Schema:
        if ref not in self._schemas:
            self._schemas[ref] = columns_of_source(self.runner, ref)
        return self._schemas[ref]


_NO_INITIAL: Any = object()


@dataclass(frozen=True, slots=True)
class Pipeline(Planned):
    """A lazy computation over one dataset, or over several joined datasets."""

    plan: Plan
    _origin: _Origin = field(repr=False)
    _shape: Shape = field(default="row", repr=False)
    """The form in which functions receive a row; `map` sets it, named columns reset it."""

    @classmethod
    def over(
        cls, runner: Runner, dataset: str, snapshot: str | None = None, **place: Any
    ) -> Pipeline:
        """Begin a pipeline over a dataset or view.

        Args:
            runner: The client of the node that stores it.
            dataset: Its id or name.
            snapshot: The id of one snapshot; the newest by default.
            place: `version` or `timestamp` instead, as of `Elytra.remote`.
        """
        return cls(Scan(source_at(dataset, snapshot, **place)), _Origin(runner))

    # Rows

    def filter(self, *conditions: Formula) -> Pipeline:
        """Keep the rows for which all conditions are true; NULL is not true."""
        grown = self
        for condition in conditions:
            grown = grown._keep(Filter(grown.plan, grown._condition(condition)))
        return grown

    def where(self, *conditions: Formula) -> Pipeline:
        """Keep rows, as `filter` does."""
        return self.filter(*conditions)

    def limit(self, count: int, offset: int = 0) -> Pipeline:
        """Skip `offset` rows and keep the next `count`, in the dataset's order."""
        if count < 0 or offset < 0:
            raise UsageError(f"limit({count}, {offset}): neither may be negative")
        return self._keep(Limit(self.plan, count, offset))

    def take(self, count: int) -> Pipeline:
        """Keep the first rows, as `limit` does."""
        return self.limit(count)

    def head(self, count: int = 10) -> Pipeline:
        """Keep the first rows."""
        return self.limit(count)

    def sort(self, *keys: SortKey | Formula) -> Pipeline:
        """Order the rows: "age", "name:desc", "name:desc:nulls_first", or a formula."""
        return self._keep(Sort(self.plan, self._keys(keys)))

    def top_k(self, count: int, *keys: SortKey | Formula, offset: int = 0) -> Pipeline:
        """Keep the first `count` rows in the order of the keys, after skipping `offset`."""
        return self._keep(TopK(self.plan, self._keys(keys), count, offset))

    def distinct(self, *columns: str) -> Pipeline:
        """Keep one row of each set of duplicates, by all columns or these; the result is sorted."""
        return self._keep(Distinct(self.plan, columns or None))

    def sample(
        self, fraction: float | None = None, *, count: int | None = None, seed: int = 0
    ) -> Pipeline:
        """Keep a fraction of the rows, or exactly `count`; the same rows for the same seed."""
        return self._keep(Sample(self.plan, fraction, count, seed))

    def explode(
        self,
        column: str,
        as_name: str | None = None,
        *,
        outer: bool = False,
        position: str | None = None,
    ) -> Pipeline:
        """Make one row for each item of a list; `outer` keeps rows whose list is empty."""
        return self._grow(Explode(self.plan, column, as_name, outer, position))

    def expect(
        self, *, unique: ColumnNames = (), not_null: ColumnNames = (), rows: str | None = None
    ) -> Pipeline:
        """Fail the job unless all checks hold: `unique="id", not_null=["id"], rows=">0"`."""
        return self._keep(Expect(self.plan, _names(unique), _names(not_null), rows))

    # Several datasets

    def join(
        self, other: Pipeline, on: On = (), how: JoinKind = "inner", suffix: str = SUFFIX
    ) -> Pipeline:
        """Join the rows with the rows of `other` whose keys are equal; one task reads both.

        Args:
            other: The right side, a pipeline of the same node; preferably the smaller one.
            on: "id", ["a", "b"], [("id", "user_id")] or {"id": "user_id"}; none for "cross".
            how: "inner", "left", "right", "full", "semi", "anti" or "cross".
            suffix: Appended to column names of the right side that the left side also has.
        """
        return self._grow(
            Join(self.plan, self._plan_on_same_node(other), join_pairs(on), how, suffix)
        )

    def union(self, *others: Pipeline, by_name: bool = False) -> Pipeline:
        """Append the rows of the other pipelines; columns are matched by position or `by_name`."""
        return self._grow(Union((self.plan, *map(self._plan_on_same_node, others)), by_name))

    concat = union

    # Columns

    def window(
        self,
        partition_by: Formula | Sequence[Formula] = (),
        order_by: SortKey | Formula | Sequence[SortKey | Formula] = (),
        **functions: WindowCall | Agg | str,
    ) -> Pipeline:
        """Add columns computed by window functions: `n="row_number()"`.

        Args:
            partition_by: Columns or formulas; without them, all rows are one partition.
            order_by: Sort keys, in the form that `sort` accepts.
            functions: Each column's name and function, such as "lag(amount, 1)" or
                "sum(amount) rows between 2 preceding and current row".
        """
        parts = tuple(self._column(part) for part in _several(partition_by))
        calls = tuple((name, window_call(call)) for name, call in functions.items())
        return self._grow(Window(self.plan, parts, self._keys(_several(order_by)), calls))

    def select(self, /, *columns: ColumnName, **formulas: Formula) -> Pipeline:
        """Keep these columns and add computed ones: `select("a", total=col("b") * 2)`."""
        return self._grow(Project(self.plan, self._named(columns, formulas, verb="select")))

    def map(self, formula: Formula | Mapping[str, Formula]) -> Pipeline:
        """Compute new rows.

        Functions of later steps receive what this function returned: a value, a tuple, or a dict.

        Args:
            formula: A function of a row that returns a dict, a tuple (its columns are `_0 _1 …`)
                or one value; a mapping from names to formulas; or one formula (its column is
                called "value" unless it is a column).

        Raises:
            Unsupported: The function does something that cannot be traced; the message names it.
        """
        if isinstance(formula, Mapping):
            return self.select(**formula)
        if callable(formula) and not isinstance(formula, Expr):
            traced = trace_map(formula, self.schema, self._shape)
            return self._grow(Project(self.plan, traced.columns), traced.shape)
        expr = self._read(formula)
        name = expr.name if isinstance(expr, Column) else "value"
        return self._grow(Project(self.plan, ((name, expr),)), "value")

    def with_column(self, name: str, formula: Formula) -> Pipeline:
        """Add one column, or replace the column of that name."""
        return self.with_columns(**{name: formula})

    def with_columns(self, /, **formulas: Formula) -> Pipeline:
        """Add or replace columns; every formula sees the columns as they were before."""
        return self._grow(WithColumn(self.plan, self._named((), formulas, verb="with_columns")))

    def drop(self, *names: str) -> Pipeline:
        """Drop columns."""
        schema = self.schema
        for name in names:
            schema.field(name)  # UnknownColumn, with the nearest name
        return self.select(*(name for name in schema.names if name not in names))

    def cast(self, types: Mapping[str, DataType | str]) -> Pipeline:
        """Convert columns: `cast({"id": "Utf8"})`; a value that does not fit fails the job."""
        return self.with_columns(**{name: Column(name).cast(to) for name, to in types.items()})

    def rename(self, names: Mapping[str, str]) -> Pipeline:
        """Rename columns: `rename({"old": "new"})`."""
        return self._grow(Rename(self.plan, tuple(names.items()))) if names else self

    # Aggregates

    def group_by(self, /, *keys: ColumnName, **formulas: Formula) -> Groups:
        """Group the rows by columns or named formulas; `.agg(...)` aggregates the groups."""
        return Groups(self, self._named(keys, formulas, verb="group_by"))

    def agg(self, /, **aggregates: Formula) -> Pipeline:
        """Aggregate all rows into one: `agg(total=col("distance").sum())`."""
        return Groups(self, ()).agg(**aggregates)

    def count(self) -> Pipeline:
        """Count the rows."""
        return self.agg(count=count_rows())

    def sum(self, column: Formula | None = None) -> Pipeline:
        """Sum a column: by name or formula; may be omitted when there is only one column."""
        return self._aggregated("sum", column)

    def min(self, column: Formula | None = None) -> Pipeline:
        """Find the smallest value."""
        return self._aggregated("min", column)

    def max(self, column: Formula | None = None) -> Pipeline:
        """Find the largest value."""
        return self._aggregated("max", column)

    def mean(self, column: Formula | None = None) -> Pipeline:
        """Average a column."""
        return self._aggregated("avg", column, name="mean")

    def reduce(
        self,
        fold: Callable[[Any, Any], Any],
        initial: Any = _NO_INITIAL,
        *,
        column: Formula | None = None,
    ) -> Pipeline:
        """Fold the rows with a function of an accumulator and a row, as `functools.reduce` does.

        Sums of floats are exact and rounded once, in any order of the rows; None is skipped.

        Args:
            fold: `lambda a, b: a + b`, `lambda total, r: total + r.price * r.qty`,
                `lambda n, _: n + 1`, `min`, `max` or an equivalent. The function is traced, not run
                on
                data: the engine aggregates at the shards.
            initial: The initial value, and the result where there are no rows. Without it, the
                fold starts with the first value, and the result of no rows is None.
            column: A column or formula to fold instead of the rows.

        Raises:
            Unsupported: The function is not such a fold; the message names what was found.
            UsageError: The initial value is missing or of the wrong type.
        """
        if isinstance(initial, str) and initial in self.schema.names:
            raise UsageError(
                f"the initial value of reduce(f, {initial!r}) is a string",
                hint=f"write reduce(f, column={initial!r}) to fold the column",
            )
        if column is not None:
            return self.map(self._column(column)).reduce(fold, initial)
        found = recognise(fold, self.schema, self._shape)
        if initial is _NO_INITIAL:
            if not found.is_plain or found.constant or found.term is None:
                raise UsageError(
                    "this fold needs an initial value: without one it starts with a whole row"
                    if self._shape == "row"
                    else "this fold needs an initial value: its first step differs from the others",
                    hint="reduce(f, 0), or map to one value first",
                )
            return self.agg(**{found.name: Agg(found.name, found.term.expr)})
        check_initial(found, initial)
        return self._folded(found, initial)

    def _folded(self, found: Fold, initial: Any) -> Pipeline:
        """Aggregate, then apply the initial value: once, regardless of the number of shards."""
        counted = self.agg(
            rows=count_rows(),
            **({} if found.term is None else {"found": Agg(found.name, found.term.expr)}),
        )
        answer: Expr
        if found.name == "sum":
            answer = lit(initial)
            if found.term is not None:
                answer = coalesce(Column("found"), 0) + answer
            if found.constant:
                answer = answer + Column("rows") * found.constant
        else:
            answer = (least if found.name == "min" else greatest)(Column("found"), initial)
        return self._grow(Project(counted.plan, ((found.name, answer),)), "value")

    # Schema and plan

    @property
    def schema(self) -> Schema:
        """The columns of the result; requests the dataset's schema from the node once."""
        return split(self.plan, self._origin.schema).schema

    def explain(self) -> str:
        """Return the plan as text: the steps at each shard and the steps of the merge."""
        cut = split(self.plan, self._origin.schema)
        if isinstance(cut, Whole):
            whole = cut.over(
                lambda scan, ref: replace(
                    scan, source=Files((f"<shards of {ref.dataset}>",), "parquet")
                )
            )
            return f"in one task:\n{_indented(explain(whole))}"
        (ref,) = datasets_of(self.plan)
        shard = cut.shard_plan(Files((f"<shard of {ref.dataset}>",), "parquet"))
        text = f"at each shard:\n{_indented(explain(shard))}"
        if cut.merge_steps is None:
            return f"{text}\nthe result: the shards' rows, in order"
        merge = cut.merge_plan(Files(("<partials>",), "arrow"))
        return f"{text}\nmerge:\n{_indented(explain(merge))}"

    # Running

    def submit(self, engine: str = "auto", mem_cap: str | int | None = None) -> Job:
        """Start the job and return immediately.

        Args:
            engine: The backend; "auto" lets the node choose.
            mem_cap: Memory limit of each task, such as "64MiB".
        """
        options = {} if mem_cap is None else {"memCap": mem_cap}
        return self._origin.runner.submit(self.plan, engine=engine, **options)

    def distribute(
        self,
        engine: str = "auto",
        mem_cap: str | int | None = None,
        timeout_seconds: float | None = None,
    ) -> Result:
        """Run on the node and wait for the result; a timeout or Ctrl-C cancels the job.

        Raises:
            SennitError: The job's error.
            DeadlineExceeded: The job ran longer than the timeout.
        """
        options = {} if mem_cap is None else {"memCap": mem_cap}
        runner = self._origin.runner
        return runner.run(self.plan, timeout_seconds=timeout_seconds, engine=engine, **options)

    def collect(self) -> Result:
        """Run and return the result."""
        return self.distribute()

    def to_arrow(self) -> pa.Table:
        """Run and return the result as a pyarrow Table."""
        return self.collect().to_arrow()

    def df(self) -> pd.DataFrame:
        """Run and return the result as a pandas DataFrame."""
        import_optional("pandas", ".df()")  # fail before the job runs, not after
        return self.collect().df()

    def pl(self) -> pl.DataFrame:
        """Run and return the result as a polars DataFrame."""
        import_optional("polars", ".pl()")
        return self.collect().pl()

    to_pandas = df
    to_polars = pl

    def write_csv(self, path: str | os.PathLike[str]) -> Path:
        """Run and write the result to a local CSV file, batch by batch; return its path."""
        return self._write("csv", path)

    def write_json(self, path: str | os.PathLike[str]) -> Path:
        """Run and write the result to a local JSON Lines file: one object per line."""
        return self._write("json", path)

    def write_parquet(self, path: str | os.PathLike[str]) -> Path:
        """Run and write the result to a local Parquet file."""
        return self._write("parquet", path)

    def _write(self, form: str, path: str | os.PathLike[str]) -> Path:
        return write_file(form, path, self.schema.to_arrow(), self.iter_results())

    def iter_results(self) -> Iterator[pa.RecordBatch]:
        """Run and yield the result batch by batch; it may be larger than memory."""
        return self.submit().iter_results()

    def show(self, count: int = 20) -> None:
        """Run and print the first rows."""
        sys.stdout.write(f"{self.limit(count).collect()}\n")

    # Building plans and reading formulas

    def _grow(self, plan: Plan, shape: Shape = "row") -> Pipeline:
        return Pipeline(plan, self._origin, shape)

    def _keep(self, plan: Plan) -> Pipeline:
        """Append an operator that does not change the form of the rows."""
        return replace(self, plan=plan)

    def _read(self, formula: Formula) -> Expr:
        if isinstance(formula, str):
            return parse_expr(formula)
        if isinstance(formula, Expr) or not callable(formula):
            return as_expr(formula)
        return trace_value(formula, self.schema, self._shape)

    def _condition(self, formula: Formula) -> Expr:
        if callable(formula) and not isinstance(formula, Expr):
            return trace_condition(formula, self.schema, self._shape)
        return self._read(formula)

    def _keys(self, keys: Sequence[Any]) -> tuple[SortKey, ...]:
        plain = (SortKey, str, Expr)
        return tuple(sort_key(key if isinstance(key, plain) else self._read(key)) for key in keys)

    def _column(self, formula: Formula) -> Expr:
        return Column(formula) if isinstance(formula, str) else self._read(formula)

    def _plan_on_same_node(self, other: Pipeline) -> Plan:
        if other._origin.runner is not self._origin.runner:
            raise UsageError(
                "the two pipelines belong to different nodes",
                hint="create both from the same Elytra object or session",
            )
        return other.plan

    def _named(
        self, columns: tuple[ColumnName, ...], formulas: Mapping[str, Formula], verb: str
    ) -> tuple[tuple[str, Expr], ...]:
        named: list[tuple[str, Expr]] = []
        for column in columns:
            if isinstance(column, str):
                column = Column(column)
            if not isinstance(column, Column):
                raise UsageError(
                    f"{verb} cannot name the column {column!r}", hint=f"{verb}(name=...)"
                )
            named.append((column.name, column))
        named += [(name, self._read(formula)) for name, formula in formulas.items()]
        if not named:
            raise UsageError(f"{verb} needs at least one column")
        return tuple(named)

    def _aggregated(self, fn: str, column: Formula | None, name: str | None = None) -> Pipeline:
        if column is None:
            names = self.schema.names
            if len(names) != 1:
                raise UsageError(
                    f"{name or fn} needs the name of one of the {len(names)} columns",
                    hint=f'{name or fn}("{names[0]}"), or map to one value first',
                )
            column = names[0]
        return self.agg(**{name or fn: Agg(fn, self._column(column))})


@dataclass(frozen=True, slots=True)
class Groups:
    """Grouped rows, to be aggregated with `agg`."""

    _pipeline: Pipeline
    _keys: tuple[tuple[str, Expr], ...]

    def agg(self, /, **aggregates: Formula) -> Pipeline:
        """Return one row for each group: its keys and these aggregates, such as `n="count()"`."""
        if not aggregates and not self._keys:
            raise UsageError("agg needs at least one aggregate")
        named: list[tuple[str, Agg]] = []
        for name, formula in aggregates.items():
            aggregate = self._pipeline._read(formula)  # noqa: SLF001 - the other half of one idea
            if not isinstance(aggregate, Agg):
                raise UsageError(
                    f"{name} is not an aggregate: {formula!r}",
                    hint="use .sum(), .min(), .max(), .mean(), .count() on a column",
                )
            named.append((name, aggregate))
        plan = Aggregate(self._pipeline.plan, self._keys, tuple(named))
        return self._pipeline._grow(plan)  # noqa: SLF001 - the other half of one idea

    def count(self) -> Pipeline:
        """Count the rows of each group."""
        return self.agg(count=count_rows())


def _several(value: Any) -> Sequence[Any]:
    """Return the value as a sequence; a string, expression, key or function is a single item."""
    alone = isinstance(value, str | Expr | SortKey) or callable(value)
    return (value,) if alone else tuple(value)


def _names(value: ColumnNames) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else tuple(value)


def join_pairs(on: On) -> tuple[tuple[str, str], ...]:
    """Return the keys of a join as pairs of (left, right), from any form of `on`."""
    if isinstance(on, str):
        return ((on, on),)
    if isinstance(on, Mapping):
        return tuple(on.items())
    return tuple((key, key) if isinstance(key, str) else (key[0], key[1]) for key in on)


def _indented(text: str) -> str:
    return "\n".join(f"  {line}" for line in text.splitlines())
