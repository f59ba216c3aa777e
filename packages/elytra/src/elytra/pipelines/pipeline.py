"""The fluent API: a pipeline builds a plan, and nothing runs until a result is requested.

Every method returns a new pipeline. `count`, `sum`, `reduce`, `agg` … are as lazy as `filter`;
`collect`, `to_arrow`, `df`, `pl`, `show`, `iter_results`, `distribute` and `submit` run the plan
(`elytra.pipelines.running`). Functions that are not traced are in `elytra.pipelines.opaque`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from html import escape
from typing import TYPE_CHECKING, Any, TypeAlias

from elytra.local.python_steps import NO_INITIAL
from elytra.pipelines.explanation import explain_pipeline
from elytra.pipelines.failing_step import naming_step
from elytra.pipelines.opaque import Declared, Opaque
from elytra.pipelines.origin import Origin, Runner
from elytra.pipelines.source_columns import source_at
from elytra.splitter import split
from elytra.tracing.function import Shape, trace_condition, trace_map, trace_value
from elytra.tracing.reduction import Fold, check_initial, recognise
from emsqrt.expr import Agg, Column, Expr, coalesce, greatest, least, lit, parse_expr
from emsqrt.expr import count as count_rows
from emsqrt.expr.nodes import as_expr
from emsqrt.plan import (
    Aggregate,
    Distinct,
    Expect,
    Explode,
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
from sennit_core.errors import Unsupported, UsageError
from sennit_core.schema import DataType, Schema

if TYPE_CHECKING:
    from elytra.local.runner import LocalRunner

Formula: TypeAlias = Expr | str | Callable[[Any], object]
"""An expression, its text, or a function of one row that is traced: `lambda r: r.price * r.qty`.

Expressions and text have SQL's meaning, functions have Python's (`elytra.tracing.values`)."""

On: TypeAlias = str | Iterable[str | tuple[str, str]] | Mapping[str, str]
"""Keys of a join: names that both sides have, or pairs of (left, right)."""

ColumnNames: TypeAlias = str | Iterable[str]

ColumnName: TypeAlias = Expr | str
"""A column, as `col("name")` or by its bare name."""


@dataclass(frozen=True, slots=True)
class Pipeline(Opaque):
    """A lazy computation over one dataset, or over several joined datasets."""

    plan: Plan
    _origin: Origin = field(repr=False)
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
        return cls(Scan(source_at(dataset, snapshot, **place)), Origin(runner))

    @classmethod
    def over_rows(cls, runner: LocalRunner, plan: Plan, shape: Shape = "row") -> Pipeline:
        """Begin a pipeline over files of this machine, which a local session runs."""
        return cls(plan, Origin(runner, runner), shape)

    # Rows

    def filter(self, *conditions: Formula, opaque: bool = False) -> Pipeline:
        """Keep the rows for which all conditions are true; NULL is not true.

        Args:
            conditions: Expressions, texts, or functions of a row, which are traced.
            opaque: Call functions with each row instead: in `Elytra.local()`, or at a node that
                allows it.
        """
        if opaque:
            return self._filtered_opaquely(conditions)
        grown = self
        for condition in conditions:
            grown = grown._keep(Filter(grown.plan, grown._condition(condition)))
        return grown

    def _filtered_opaquely(self, conditions: tuple[Formula, ...]) -> Pipeline:
        grown = self
        for condition in conditions:
            grown = grown._apply("filter", _function(condition, "filter"), None)
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
        """Join the rows with the rows of `other` whose keys are equal.

        Args:
            other: The right side, a pipeline of the same node. Every task reads the small side, if one
                has at most 16 MiB; preferably this one.
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

    def map(
        self,
        formula: Formula | Mapping[str, Formula],
        *,
        opaque: bool = False,
        schema: Declared = None,
    ) -> Pipeline:
        """Compute new rows.

        Functions of later steps receive what this function returned: a value, a tuple, or a dict.

        Args:
            formula: A function of a row that returns a dict, a tuple (its columns are `_0 _1 …`)
                or one value; a mapping from names to formulas; or one formula (its column is
                called "value" unless it is a column).
            opaque: Call the function with each row instead of tracing it: in
                `Elytra.local()`, or at a node that allows it.
            schema: The columns that an opaque function returns, `{"id": "Int64"}`, or the type of
                its value. Without them it is called now, with the first rows, to find them.

        Raises:
            Unsupported: The function does something that cannot be traced; the message names it.
        """
        if opaque:
            return self._apply("map", _function(formula, "map"), schema)
        if isinstance(formula, Mapping):
            return self.select(**formula)
        if callable(formula) and not isinstance(formula, Expr):
            traced = trace_map(formula, self.schema, self._shape)
            return self._grow(Project(self.plan, traced.columns), traced.shape)
        expr = self._read(formula)
        name = expr.name if isinstance(expr, Column) else "value"
        return self._grow(Project(self.plan, ((name, expr),)), "value")

    def flat_map(
        self, function: Callable[[Any], Any], *, opaque: bool = False, schema: Declared = None
    ) -> Pipeline:
        """Make one row of each item that a function of a row returns.

        Args:
            function: Returns a list column, `lambda r: r.tags`. With `opaque`, anything that can
                be iterated over: values, tuples or dicts, as of `map`.
            opaque: Call the function with each row instead of tracing it: in
                `Elytra.local()`, or at a node that allows it.
            schema: The columns that an opaque function's items have, as of `map`.

        Raises:
            Unsupported: The function returns no list column, or cannot be traced.
        """
        if opaque:
            return self._apply("flat_map", _function(function, "flat_map"), schema)
        lists = self.map(function)
        fields = lists.schema.fields
        if len(fields) != 1 or fields[0].type.name != "List":
            found = fields[0].type if len(fields) == 1 else "several columns"
            raise Unsupported(
                f"a traced flat_map needs a function that returns a list column, not {found}",
                hint="in Elytra.local(), flat_map(f, opaque=True) takes any function",
            )
        return self._grow(Explode(lists.plan, fields[0].name), "value")

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
        initial: Any = NO_INITIAL,
        *,
        column: Formula | None = None,
        opaque: bool = False,
        schema: Declared = None,
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
            opaque: Call the function with one row after the other, as Python does: in
                `Elytra.local()`, or at a node that allows it.
            schema: The columns of an opaque fold's result, as of `map`.

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
            folded = self.map(self._column(column))
            return folded.reduce(fold, initial, opaque=opaque, schema=schema)
        if opaque:
            return self._apply("reduce", _function(fold, "reduce"), schema, initial=initial)
        found = recognise(fold, self.schema, self._shape)
        if initial is NO_INITIAL:
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
        with naming_step(self.plan, self._origin.schema):
            return split(self.plan, self._origin.schema).schema

    def explain(self, engine: str | None = None) -> str:
        """Return the plan as text: where each step runs, the split, and what is read.

        Args:
            engine: Ask the node which of its network's nodes would run what with this engine, or
                with the one that it would choose ("auto"), and how many bytes would move.
        """
        with naming_step(self.plan, self._origin.schema):
            return explain_pipeline(self.plan, self._origin, engine)

    def _repr_html_(self) -> str:
        """Return the plan for notebooks; nothing is run and no node is asked."""
        return f"<pre>{escape(explain(self.plan))}</pre>"

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


def _function(formula: Any, verb: str) -> Callable[..., Any]:
    if not callable(formula) or isinstance(formula, Expr):
        raise UsageError(
            f"{verb}(..., opaque=True) needs a function, not {formula!r:.80}",
            hint="expressions run in the engine: leave out opaque",
        )
    function: Callable[..., Any] = formula
    return function
