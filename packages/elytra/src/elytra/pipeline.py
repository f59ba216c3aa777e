"""The fluent API: a pipeline is a plan that grows, and nothing runs until it is asked to.

Every verb returns a new pipeline. `count`, `sum`, `reduce`, `agg` … are as lazy as `filter`;
`collect`, `to_arrow`, `df`, `pl`, `show`, `iter_results`, `distribute` and `submit` run.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from elytra.job_handle import Job
from elytra.planned import Planned
from elytra.python_function import Shape, trace_condition, trace_map, trace_value
from elytra.reduction import Fold, check_initial, recognise
from elytra.result import Result
from elytra.splitter import Whole, datasets_of, split
from elytra.writing import write_file
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
from sennit_core.records import DatasetInfo
from sennit_core.schema import DataType, Schema

if TYPE_CHECKING:
    import pandas as pd
    import polars as pl
    import pyarrow as pa

Formula: TypeAlias = Expr | str | Callable[[Any], object]
"""An expression, its text, or a function of one row that is traced: `lambda r: r.price * r.qty`.

Expressions and text have SQL's meaning, functions have Python's (`elytra.python_values`)."""

On: TypeAlias = str | Iterable[str | tuple[str, str]] | Mapping[str, str]
"""Keys of a join: names that both sides have, or pairs of (left, right)."""

ColumnNames: TypeAlias = str | Iterable[str]

ColumnName: TypeAlias = Expr | str
"""A column, as `col("name")` or by its bare name."""


class Runner(Protocol):
    """What a pipeline needs of the node it runs on; `elytra.client.Client` is one."""

    def dataset(self, id_or_name: str) -> DatasetInfo:
        """Return the record of a dataset."""
        ...

    def submit(self, plan: Plan, **options: Any) -> Job:
        """Start a job."""
        ...


@dataclass(slots=True)
class _Origin:
    """The node that a family of pipelines runs on; each dataset's schema is asked for once."""

    runner: Runner
    _schemas: dict[str, Schema] = field(default_factory=dict)

    def schema(self, ref: DatasetRef) -> Schema:
        if ref.dataset not in self._schemas:
            self._schemas[ref.dataset] = self.runner.dataset(ref.dataset).schema
        return self._schemas[ref.dataset]


_NO_INITIAL: Any = object()


@dataclass(frozen=True, slots=True)
class Pipeline(Planned):
    """A lazy computation over a dataset, or over several that are joined."""

    plan: Plan
    _origin: _Origin = field(repr=False)
    _shape: Shape = field(default="row", repr=False)
    """What functions get for each row: what the last `map` returned, until columns have names."""

    @classmethod
    def over(cls, runner: Runner, dataset: str, snapshot: str | None = None) -> Pipeline:
        """Begin a pipeline over a dataset.

        Args:
            runner: The node that has it.
            dataset: Its id or name.
            snapshot: The id of one snapshot; the newest by default.
        """
        return cls(Scan(DatasetRef(dataset, snapshot)), _Origin(runner))

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
        """Skip `offset` rows and keep the next `count`, in the dataset's own order."""
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
        """Keep the first `count` rows of that order, after `offset`."""
        return self._keep(TopK(self.plan, self._keys(keys), count, offset))

    def distinct(self, *columns: str) -> Pipeline:
        """Keep one row of those that are equal, in all columns or in these; sorted by them."""
        return self._keep(Distinct(self.plan, columns or None))

    def sample(
        self, fraction: float | None = None, *, count: int | None = None, seed: int = 0
    ) -> Pipeline:
        """Keep a fraction of the rows, or exactly `count`; the same ones for the same seed."""
        return self._keep(Sample(self.plan, fraction, count, seed))

    def explode(
        self,
        column: str,
        as_name: str | None = None,
        *,
        outer: bool = False,
        position: str | None = None,
    ) -> Pipeline:
        """Make one row of each item of a list; `outer` keeps rows whose list is empty."""
        return self._grow(Explode(self.plan, column, as_name, outer, position))

    def expect(
        self, *, unique: ColumnNames = (), not_null: ColumnNames = (), rows: str | None = None
    ) -> Pipeline:
        """Fail the job unless the rows are as said: `unique="id", not_null=["id"], rows=">0"`."""
        return self._keep(Expect(self.plan, _names(unique), _names(not_null), rows))

    # Several datasets

    def join(
        self, other: Pipeline, on: On = (), how: JoinKind = "inner", suffix: str = SUFFIX
    ) -> Pipeline:
        """Put rows together with those of `other` whose keys are equal; one task reads both.

        Args:
            other: The right side, a pipeline of the same node; best the smaller one.
            on: "id", ["a", "b"], [("id", "user_id")] or {"id": "user_id"}; none for "cross".
            how: "inner", "left", "right", "full", "semi", "anti" or "cross".
            suffix: Goes behind the names of the right side that the left side has too.
        """
        return self._grow(Join(self.plan, self._beside(other), join_pairs(on), how, suffix))

    def union(self, *others: Pipeline, by_name: bool = False) -> Pipeline:
        """Go on with the rows of the others; columns go together by position or `by_name`."""
        return self._grow(Union((self.plan, *map(self._beside, others)), by_name))

    concat = union

    # Columns

    def window(
        self,
        partition_by: Formula | Sequence[Formula] = (),
        order_by: SortKey | Formula | Sequence[SortKey | Formula] = (),
        **functions: WindowCall | Agg | str,
    ) -> Pipeline:
        """Add columns that look at the other rows of a partition: `n="row_number()"`.

        Args:
            partition_by: Columns or formulas; all rows are one partition without.
            order_by: Sort keys, as `sort` takes them.
            functions: Each column's name and function, such as "lag(amount, 1)" or
                "sum(amount) rows between 2 preceding and current row".
        """
        parts = tuple(self._column(part) for part in _several(partition_by))
        calls = tuple((name, window_call(call)) for name, call in functions.items())
        return self._grow(Window(self.plan, parts, self._keys(_several(order_by)), calls))

    def select(self, /, *columns: ColumnName, **formulas: Formula) -> Pipeline:
        """Keep these columns, and make those that are named: `select("a", total=col("b") * 2)`."""
        return self._grow(Project(self.plan, self._named(columns, formulas, verb="select")))

    def map(self, formula: Formula | Mapping[str, Formula]) -> Pipeline:
        """Make new rows.

        Functions that follow get what the function returned: a value, a tuple, or a dict.

        Args:
            formula: A function of a row that returns a dict, a tuple (its columns are `_0 _1 …`)
                or one value; a mapping from names to formulas; or one formula (its column is
                called "value" unless it is a column).

        Raises:
            Unsupported: The function does what cannot be traced; the message names it.
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
        """Add one column, or replace the one of that name."""
        return self.with_columns(**{name: formula})

    def with_columns(self, /, **formulas: Formula) -> Pipeline:
        """Add or replace columns; every formula sees the columns as they were before."""
        return self._grow(WithColumn(self.plan, self._named((), formulas, verb="with_columns")))

    def drop(self, *names: str) -> Pipeline:
        """Leave columns out."""
        schema = self.schema
        for name in names:
            schema.field(name)  # UnknownColumn, with the nearest name
        return self.select(*(name for name in schema.names if name not in names))

    def cast(self, types: Mapping[str, DataType | str]) -> Pipeline:
        """Convert columns: `cast({"id": "Utf8"})`; a value that does not fit fails the job."""
        return self.with_columns(**{name: Column(name).cast(to) for name, to in types.items()})

    def rename(self, names: Mapping[str, str]) -> Pipeline:
        """Give columns other names: `rename({"old": "new"})`."""
        return self._grow(Rename(self.plan, tuple(names.items()))) if names else self

    # Aggregates

    def group_by(self, /, *keys: ColumnName, **formulas: Formula) -> Groups:
        """Group the rows by columns, or by named formulas; `.agg(...)` says what to make of them."""
        return Groups(self, self._named(keys, formulas, verb="group_by"))

    def agg(self, /, **aggregates: Formula) -> Pipeline:
        """Aggregate all rows into one: `agg(total=col("distance").sum())`."""
        return Groups(self, ()).agg(**aggregates)

    def count(self) -> Pipeline:
        """Count the rows."""
        return self.agg(count=count_rows())

    def sum(self, column: Formula | None = None) -> Pipeline:
        """Add up a column; a bare text names one, and the only column needs no name."""
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

        Sums of floats are exact and rounded once, in any order of the rows; None is left out.

        Args:
            fold: `lambda a, b: a + b`, `lambda total, r: total + r.price * r.qty`,
                `lambda n, _: n + 1`, `min`, `max` or what amounts to one of them. It is read, not
                run: the fold happens at the shards.
            initial: What the fold begins with, and the answer where there are no rows. Without
                one, the fold begins with the first value and no rows give None.
            column: What is folded in place of the rows.

        Raises:
            Unsupported: The fold is none of these; the message names what was seen.
            UsageError: It needs an initial value, or one of another type.
        """
        if isinstance(initial, str) and initial in self.schema.names:
            raise UsageError(
                f"reduce(f, {initial!r}) begins the fold with that text",
                hint=f"write reduce(f, column={initial!r}) to fold the column",
            )
        if column is not None:
            return self.map(self._column(column)).reduce(fold, initial)
        found = recognise(fold, self.schema, self._shape)
        if initial is _NO_INITIAL:
            if not found.is_plain or found.constant or found.term is None:
                raise UsageError(
                    "this fold needs an initial value: without one it begins with a whole row"
                    if self._shape == "row"
                    else "this fold needs an initial value: its first step is another than the rest",
                    hint="reduce(f, 0), or map to one value first",
                )
            return self.agg(**{found.name: Agg(found.name, found.term.expr)})
        check_initial(found, initial)
        return self._folded(found, initial)

    def _folded(self, found: Fold, initial: Any) -> Pipeline:
        """Aggregate, then put the initial value in: it counts once, whatever the shards are."""
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

    # What it is

    @property
    def schema(self) -> Schema:
        """The columns of the answer; asks the node for the dataset's schema once."""
        return split(self.plan, self._origin.schema).schema

    def explain(self) -> str:
        """Tell, as text, what runs at each shard and what in the merge."""
        cut = split(self.plan, self._origin.schema)
        if isinstance(cut, Whole):
            whole = cut.over(lambda ref: Files((f"<shards of {ref.dataset}>",), "parquet"))
            return f"in one task:\n{_indented(explain(whole))}"
        (ref,) = datasets_of(self.plan)
        shard = cut.shard_plan(Files((f"<shard of {ref.dataset}>",), "parquet"))
        text = f"at each shard:\n{_indented(explain(shard))}"
        if cut.merge_steps is None:
            return f"{text}\nthe answer: the shards' rows, in order"
        merge = cut.merge_plan(Files(("<partials>",), "arrow"))
        return f"{text}\nmerge:\n{_indented(explain(merge))}"

    # What runs

    def submit(self, engine: str = "auto", mem_cap: str | int | None = None) -> Job:
        """Start the job and return at once.

        Args:
            engine: The backend; "auto" lets the node choose.
            mem_cap: Most memory for each task, such as "64MiB".
        """
        options = {} if mem_cap is None else {"memCap": mem_cap}
        return self._origin.runner.submit(self.plan, engine=engine, **options)

    def distribute(
        self,
        engine: str = "auto",
        mem_cap: str | int | None = None,
        timeout_seconds: float | None = None,
    ) -> Result:
        """Run on the node and wait for the answer; a timeout or Ctrl-C cancels the job.

        Raises:
            SennitError: What the job failed with.
            DeadlineExceeded: It took longer than the timeout.
        """
        job = self.submit(engine, mem_cap)
        try:
            return job.result(timeout_seconds)
        except (KeyboardInterrupt, TimeoutError):
            job.cancel()
            raise

    def collect(self) -> Result:
        """Run and return the answer."""
        return self.distribute()

    def to_arrow(self) -> pa.Table:
        """Run and return the answer as a pyarrow Table."""
        return self.collect().to_arrow()

    def df(self) -> pd.DataFrame:
        """Run and return the answer as a pandas DataFrame."""
        import_optional("pandas", ".df()")  # before the job runs, not after
        return self.collect().df()

    def pl(self) -> pl.DataFrame:
        """Run and return the answer as a polars DataFrame."""
        import_optional("polars", ".pl()")
        return self.collect().pl()

    to_pandas = df
    to_polars = pl

    def write_csv(self, path: str | os.PathLike[str]) -> Path:
        """Run and write the answer to a local CSV file, batch by batch; returns its path."""
        return self._write("csv", path)

    def write_json(self, path: str | os.PathLike[str]) -> Path:
        """Run and write the answer to a local file of JSON lines: one object a line."""
        return self._write("json", path)

    def write_parquet(self, path: str | os.PathLike[str]) -> Path:
        """Run and write the answer to a local Parquet file."""
        return self._write("parquet", path)

    def _write(self, form: str, path: str | os.PathLike[str]) -> Path:
        return write_file(form, path, self.schema.to_arrow(), self.iter_results())

    def iter_results(self) -> Iterator[pa.RecordBatch]:
        """Run and yield the answer batch by batch, so that it may exceed memory."""
        return self.submit().iter_results()

    def show(self, count: int = 20) -> None:
        """Run and print the first rows."""
        sys.stdout.write(f"{self.limit(count).collect()}\n")

    # How formulas are read

    def _grow(self, plan: Plan, shape: Shape = "row") -> Pipeline:
        return Pipeline(plan, self._origin, shape)

    def _keep(self, plan: Plan) -> Pipeline:
        """Grow by an operator whose rows are those that came in."""
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

    def _beside(self, other: Pipeline) -> Plan:
        if other._origin.runner is not self._origin.runner:
            raise UsageError(
                "the two pipelines are of different nodes",
                hint="begin both with the same Elytra or session",
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
                    f"{name or fn} needs to know which of {len(names)} columns it is of",
                    hint=f'{name or fn}("{names[0]}"), or map to one value first',
                )
            column = names[0]
        return self.agg(**{name or fn: Agg(fn, self._column(column))})


@dataclass(frozen=True, slots=True)
class Groups:
    """Rows that are grouped and wait to be aggregated."""

    _pipeline: Pipeline
    _keys: tuple[tuple[str, Expr], ...]

    def agg(self, /, **aggregates: Formula) -> Pipeline:
        """Make one row of each group: its keys and these aggregates, such as `n="count()"`."""
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
    """One thing or several; a text, an expression, a key and a function are one."""
    alone = isinstance(value, str | Expr | SortKey) or callable(value)
    return (value,) if alone else tuple(value)


def _names(value: ColumnNames) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else tuple(value)


def join_pairs(on: On) -> tuple[tuple[str, str], ...]:
    """Return the keys of a join as pairs of (left, right), however they were given."""
    if isinstance(on, str):
        return ((on, on),)
    if isinstance(on, Mapping):
        return tuple(on.items())
    return tuple((key, key) if isinstance(key, str) else (key[0], key[1]) for key in on)


def _indented(text: str) -> str:
    return "\n".join(f"  {line}" for line in text.splitlines())
