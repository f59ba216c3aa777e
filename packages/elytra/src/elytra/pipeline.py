"""The fluent API: a pipeline is a plan that grows, and nothing runs until it is asked to.

Every verb returns a new pipeline. `count`, `sum`, `reduce`, `agg` … are as lazy as `filter`;
`collect`, `to_arrow`, `df`, `pl`, `show`, `iter_results`, `distribute` and `submit` run.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from elytra.job import Job
from elytra.reduction import recognise
from elytra.result import Result
from elytra.splitter import split
from emsqrt.expr import Agg, Column, Expr, parse_expr, trace
from emsqrt.expr import count as count_rows
from emsqrt.expr.nodes import as_expr
from emsqrt.expr.trace import Row
from emsqrt.plan import (
    Aggregate,
    DatasetRef,
    Files,
    Filter,
    Limit,
    Plan,
    Project,
    Rename,
    Scan,
    WithColumn,
    explain,
)
from sennit_core.errors import UsageError
from sennit_core.records import DatasetInfo
from sennit_core.schema import Schema

if TYPE_CHECKING:
    import pandas as pd
    import polars as pl
    import pyarrow as pa

Formula: TypeAlias = Expr | str | Callable[[Any], object]
"""An expression, its text, or a function of one row that is traced: `lambda r: r.price * r.qty`."""

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
    """The dataset that a family of pipelines reads; its schema is asked for once."""

    runner: Runner
    ref: DatasetRef
    _schema: Schema | None = None

    def schema(self) -> Schema:
        if self._schema is None:
            self._schema = self.runner.dataset(self.ref.dataset).schema
        return self._schema


@dataclass(frozen=True, slots=True)
class Pipeline:
    """A lazy computation over one dataset."""

    plan: Plan
    _origin: _Origin = field(repr=False)

    @classmethod
    def over(cls, runner: Runner, dataset: str, snapshot: str | None = None) -> Pipeline:
        """Begin a pipeline over a dataset.

        Args:
            runner: The node that has it.
            dataset: Its id or name.
            snapshot: The id of one snapshot; the newest by default.
        """
        ref = DatasetRef(dataset, snapshot)
        return cls(Scan(ref), _Origin(runner, ref))

    # Rows

    def filter(self, *conditions: Formula) -> Pipeline:
        """Keep the rows for which all conditions are true; NULL is not true."""
        grown = self
        for condition in conditions:
            grown = grown._grow(Filter(grown.plan, grown._read(condition)))
        return grown

    def where(self, *conditions: Formula) -> Pipeline:
        """Keep rows, as `filter` does."""
        return self.filter(*conditions)

    def limit(self, count: int, offset: int = 0) -> Pipeline:
        """Skip `offset` rows and keep the next `count`, in the dataset's own order."""
        if count < 0 or offset < 0:
            raise UsageError(f"limit({count}, {offset}): neither may be negative")
        return self._grow(Limit(self.plan, count, offset))

    def head(self, count: int = 10) -> Pipeline:
        """Keep the first rows."""
        return self.limit(count)

    # Columns

    def select(self, /, *columns: ColumnName, **formulas: Formula) -> Pipeline:
        """Keep these columns, and make those that are named: `select("a", total=col("b") * 2)`."""
        return self._grow(Project(self.plan, self._named(columns, formulas, verb="select")))

    def map(self, formula: Formula | Mapping[str, Formula]) -> Pipeline:
        """Make new rows.

        Args:
            formula: A mapping from names to formulas, or a function of a row that returns such a
                mapping, or one formula (its column is called "value" unless it is a column).

        Raises:
            UsageError: The function needs a value where there is only an expression (`if`, `and`).
        """
        if callable(formula):
            made = formula(Row(tuple(self.schema.names)))
            formula = made if isinstance(made, Mapping) else as_expr(made)
        if isinstance(formula, Mapping):
            return self.select(**formula)
        expr = self._read(formula)
        name = expr.name if isinstance(expr, Column) else "value"
        return self._grow(Project(self.plan, ((name, expr),)))

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

    def sum(self, column: Formula) -> Pipeline:
        """Add up a column; a bare text names one."""
        return self._fold("sum", column)

    def min(self, column: Formula) -> Pipeline:
        """Find the smallest value."""
        return self._fold("min", column)

    def max(self, column: Formula) -> Pipeline:
        """Find the largest value."""
        return self._fold("max", column)

    def mean(self, column: Formula) -> Pipeline:
        """Average a column."""
        return self._fold("avg", column, name="mean")

    def reduce(self, fold: Callable[[Any, Any], Any], column: Formula | None = None) -> Pipeline:
        """Fold a column with a function of two values.

        Args:
            fold: `lambda a, b: a + b`, `min`, `max` or what amounts to one of them. It is read,
                not run: the fold happens at the shards.
            column: What is folded; may be left out when the pipeline has just one column.

        Raises:
            Unsupported: The fold is none of these; the message names what was seen.
        """
        name = recognise(fold)
        if column is None:
            names = self.schema.names
            if len(names) != 1:
                raise UsageError(
                    f"reduce needs to know which of {len(names)} columns it folds",
                    hint="pass column=..., or select one column first",
                )
            column = names[0]
        return self._fold(name, column)

    # What it is

    @property
    def schema(self) -> Schema:
        """The columns of the answer; asks the node for the dataset's schema once."""
        return split(self.plan, self._origin.schema()).schema

    def explain(self) -> str:
        """Tell, as text, what runs at each shard and what in the merge."""
        halves = split(self.plan, self._origin.schema())
        shard = halves.shard_plan(Files((f"<shard of {self._origin.ref.dataset}>",), "parquet"))
        text = f"at each shard:\n{_indented(explain(shard))}"
        if halves.merge_steps is None:
            return f"{text}\nthe answer: the shards' rows, in order"
        merge = halves.merge_plan(Files(("<partials>",), "arrow"))
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
        return self.collect().df()

    def pl(self) -> pl.DataFrame:
        """Run and return the answer as a polars DataFrame."""
        return self.collect().pl()

    def iter_results(self) -> Iterator[pa.RecordBatch]:
        """Run and yield the answer batch by batch, so that it may exceed memory."""
        return self.submit().iter_results()

    def show(self, count: int = 20) -> None:
        """Run and print the first rows."""
        sys.stdout.write(f"{self.limit(count).collect()}\n")

    # How formulas are read

    def _grow(self, plan: Plan) -> Pipeline:
        return Pipeline(plan, self._origin)

    def _read(self, formula: Formula) -> Expr:
        if isinstance(formula, str):
            return parse_expr(formula)
        if isinstance(formula, Expr) or not callable(formula):
            return as_expr(formula)
        return trace(formula, self.schema)

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

    def _fold(self, fn: str, column: Formula, name: str | None = None) -> Pipeline:
        operand = Column(column) if isinstance(column, str) else self._read(column)
        return self.agg(**{name or fn: Agg(fn, operand)})


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


def _indented(text: str) -> str:
    return "\n".join(f"  {line}" for line in text.splitlines())
