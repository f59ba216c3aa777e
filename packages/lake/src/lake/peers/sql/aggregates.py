"""Split aggregate functions into one that runs on each unit and one that merges the units' results.

| of all rows              | of each unit              | of the units' results            |
|--------------------------|---------------------------|----------------------------------|
| sum, min, max, bool_and, bool_or, bit_and, bit_or, bit_xor | itself | itself            |
| count                    | itself                    | sum; 0 without units             |
| count_if                 | itself                    | sum; of no row, DuckDB has NULL  |
| avg(x)                   | its state, as below       | as below                         |
| … without states         | sum(x), count(x)          | sum / sum, whose last digit may differ |
| f(DISTINCT x)            | x as one more group       | f(DISTINCT x)                    |
| stddev, var, corr, …     | the state of the function | combined states, finalized       |

States (`EXPORT_STATE`) are bound to one version of DuckDB, so the caller says whether all nodes have it.
A state of `median` or `mad` has all values, and those of `list` or `first` depend on the order of rows. A
`product` whose parts overflow is another number than one whose rows meet a zero first.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field

from sqlglot import exp
from sqlglot.dialects.duckdb import DuckDB
from sqlglot.generators.duckdb import DuckDBGenerator

from lake.peers.sql.errors import NotDistributed
from lake.peers.sql.fidelity import DIALECT
from lake.peers.sql.trees import free_aliases

__all__ = ["ExportState", "Partials", "aggregates_of", "call_name", "depends_on_order", "to_sql"]

_SELF = frozenset(("sum", "min", "max", "bool_and", "bool_or", "bit_and", "bit_or", "bit_xor"))
_COUNTS = frozenset(("count", "count_if"))
_DUPLICATES_IGNORED = frozenset(
    ("min", "max", "bool_and", "bool_or", "bit_and", "bit_or")
)  # DISTINCT changes nothing
_STATE_BYTES: dict[str, int] = {
    **dict.fromkeys(("stddev", "stddev_samp", "stddev_pop", "variance", "var_samp", "var_pop"), 24),
    **dict.fromkeys(("avg", "sem", "favg"), 24),
    **dict.fromkeys(("fsum", "sumkahan", "kahan_sum", "regr_avgx", "regr_avgy"), 16),
    **dict.fromkeys(("covar_samp", "covar_pop", "skewness", "regr_sxx", "regr_syy"), 32),
    **dict.fromkeys(("kurtosis", "kurtosis_pop", "regr_sxy"), 40),
    "regr_count": 8,
    "regr_slope": 56,
    "regr_intercept": 88,
    "corr": 88,
    "regr_r2": 144,
    "approx_count_distinct": 1160,
}
"""The aggregates whose states are sent, with the size of a state as Arrow data."""
_CALL = re.compile(r'"?(\w+)"?\s*\(')


class ExportState(exp.Expression):
    """An aggregate whose result is its state."""

    @property
    def size_bytes(self) -> int:
        """Its size as Arrow data, for estimates."""
        call = self.this.this if isinstance(self.this, exp.Filter) else self.this
        return _STATE_BYTES[call_name(call)]


class _Generator(DuckDBGenerator):
    TRANSFORMS = {  # noqa: RUF012 - as in sqlglot's class
        **DuckDBGenerator.TRANSFORMS,
        ExportState: lambda self, node: f"{self.sql(node, 'this')} EXPORT_STATE",
    }


class _Dialect(DuckDB):
    """DuckDB's dialect with `EXPORT_STATE`."""

    Generator = _Generator


def to_sql(node: exp.Expr, *, copy: bool = True) -> str:
    """Return a tree as DuckDB's SQL.

    Args:
        node: The tree.
        copy: Whether it is used again: sqlglot changes the tree that it writes.
    """
    return node.sql(dialect=_Dialect, comments=False, copy=copy)


def call_name(node: exp.Expr) -> str:
    """Return the name of a function as DuckDB's SQL has it, in lower case; empty if it is no call."""
    if not isinstance(node, exp.Func) or isinstance(node, exp.Connector | exp.Exists):
        return ""
    if isinstance(node, exp.Anonymous):
        return str(node.this).lower()
    found = _CALL.match(node.sql(dialect=DIALECT))
    return found[1].lower() if found else ""


def aggregates_of(node: exp.Expr, aggregates: frozenset[str]) -> list[exp.Expr]:
    """Return the aggregates of a SELECT itself, each with its FILTER; none of its windows' functions.

    Args:
        node: The SELECT, or a part of it.
        aggregates: The names of all aggregate functions.
    """
    if isinstance(node, exp.Select):
        parts: list[exp.Expr] = list(node.expressions)
        parts += [found for key in ("having", "qualify", "order") if (found := node.args.get(key))]
        return [found for part in parts for found in aggregates_of(part, aggregates)]
    if isinstance(node, exp.Query):
        return []
    if isinstance(node, exp.Window):
        inner = node.this
        while isinstance(inner, exp.Filter | exp.IgnoreNulls):
            inner = inner.this
        children = [*inner.iter_expressions(), *(node.args.get("partition_by") or ())]
        if node.args.get("order") is not None:
            children.append(node.args["order"])
        return [found for child in children for found in aggregates_of(child, aggregates)]
    if isinstance(node, exp.Filter | exp.WithinGroup | exp.IgnoreNulls) or _is_aggregate(
        node, aggregates
    ):
        return [node]
    return [
        found for child in node.iter_expressions() for found in aggregates_of(child, aggregates)
    ]


def depends_on_order(aggregate: exp.Expr) -> bool:
    """Return whether the value of an aggregate may depend on the order of its rows."""
    function = aggregate.this if isinstance(aggregate, exp.Filter) else aggregate
    return call_name(function) not in _SELF | _COUNTS | _STATE_BYTES.keys() | {"avg", "median"}


def _is_aggregate(node: exp.Expr, aggregates: frozenset[str]) -> bool:
    return isinstance(node, exp.AggFunc) or (
        isinstance(node, exp.Func) and call_name(node) in aggregates
    )


@dataclass(slots=True)
class Partials:
    """The columns of a fragment that aggregates, and what merges them.

    Args:
        uses_states: Whether states may be sent.
    """

    uses_states: bool
    groups: list[exp.Expr] = field(default_factory=list)
    columns: list[exp.Expr] = field(default_factory=list)
    _merged: dict[str, exp.Expr] = field(default_factory=dict)
    _distinct: exp.Expr | None = None

    def group(self, node: exp.Expr) -> exp.Column:
        """Add an expression of GROUP BY; return the column that has its values."""
        for number, known in enumerate(self.groups):
            if _is_same(known, node):
                return _column(f"g{number}")
        self.groups.append(node.copy())
        return _column(f"g{len(self.groups) - 1}")

    def merge(self, aggregate: exp.Expr) -> exp.Expr:
        """Add what an aggregate needs of each unit; return the expression that merges it.

        Raises:
            NotDistributed: Its value does not follow from values of parts.
        """
        text = aggregate.sql(dialect=DIALECT)
        if text not in self._merged:
            self._merged[text] = self._split(aggregate)
        return self._merged[text].copy()

    def _split(self, aggregate: exp.Expr) -> exp.Expr:
        condition = None
        function = aggregate
        if isinstance(function, exp.Filter):
            condition, function = function.expression.this, function.this
        name = call_name(function)
        arguments = [child for child in function.iter_expressions() if child is not None]
        if any(isinstance(child, exp.Order) for child in arguments):
            raise NotDistributed(f"{name} depends on the order of rows")
        if isinstance(function.this, exp.Distinct):
            return self._split_distinct(name, function, condition)

        def partial(call: exp.Expr) -> exp.Column:
            return self._add(_filtered(call, condition))

        if name in _COUNTS and len(arguments) <= 1:
            counted = exp.Sum(this=partial(function.copy()))
            if name == "count_if":
                return _cast(counted, "HUGEINT")
            return _cast(_coalesced(counted), "BIGINT")
        if name in _SELF and len(arguments) == 1:
            return _called(function, partial(function.copy()))
        if name == "avg" and len(arguments) == 1 and not self.uses_states:
            total = partial(exp.Sum(this=function.this.copy()))
            count = partial(exp.Count(this=function.this.copy()))
            return exp.Paren(this=_quotient(exp.Sum(this=total), exp.Sum(this=count)))
        if name in _STATE_BYTES and self.uses_states:
            state = self._add(ExportState(this=_filtered(function.copy(), condition)))
            return exp.func("finalize", exp.func("combine_aggr", state))
        raise NotDistributed(f"{name or 'an aggregate'} of all rows does not follow from parts")

    def _split_distinct(
        self, name: str, function: exp.Expr, condition: exp.Expr | None
    ) -> exp.Expr:
        values = function.this.expressions
        if name not in (_SELF | _COUNTS | {"avg"}) or len(values) != 1:
            raise NotDistributed(f"{name}(DISTINCT …) is not distributed")
        value = values[0]
        if name in _DUPLICATES_IGNORED:
            plain = _called(function, value.copy())
            return self.merge(_filtered(plain, condition))
        if condition is not None:
            # These functions ignore NULL.
            value = exp.Case(ifs=[exp.If(this=condition.copy(), true=value.copy())])
        if value.find(exp.Column) is None:
            raise NotDistributed(f"{name}(DISTINCT …) of a constant")  # GROUP BY 2 means a result
        if self._distinct is not None and not _is_same(self._distinct, value):
            raise NotDistributed("aggregates are DISTINCT over two expressions")
        self._distinct = value.copy()
        return _called(function, exp.Distinct(expressions=[self.group(value)]))

    def _add(self, node: exp.Expr) -> exp.Column:
        for number, known in enumerate(self.columns):
            if _is_same(known, node):
                return _column(f"a{number}")
        self.columns.append(node)
        return _column(f"a{len(self.columns) - 1}")

    def replaced(self, node: exp.Expr, is_aggregate: Callable[[exp.Expr], bool]) -> exp.Expr:
        """Return an expression over the units' results: groups and aggregates become columns.

        Raises:
            NotDistributed: It has something that is neither.
        """
        for number, group in enumerate(self.groups):
            if _is_same(group, node):
                return _column(f"g{number}")
        if is_aggregate(node):
            return self.merge(node)
        if isinstance(node, exp.Column):
            raise NotDistributed(f"{node.name} is not grouped")
        if isinstance(node, exp.Query):
            return self._subquery(node)
        result = node.copy()
        for key, value in node.args.items():
            if isinstance(value, exp.Expr):
                result.set(key, self._inside(key, node, value, is_aggregate))
            elif isinstance(value, list):
                result.set(
                    key,
                    [
                        self.replaced(each, is_aggregate) if isinstance(each, exp.Expr) else each
                        for each in value
                    ],
                )
        return result

    def _inside(
        self,
        key: str,
        node: exp.Expr,
        value: exp.Expr,
        is_aggregate: Callable[[exp.Expr], bool],
    ) -> exp.Expr:
        """As `replaced`, but the function of a window is no aggregate, and its arguments may be."""
        if not (isinstance(node, exp.Window) and key == "this"):
            return self.replaced(value, is_aggregate)
        result = value.copy()
        for name, child in value.args.items():
            if isinstance(child, exp.Expr):
                result.set(
                    name,
                    self._inside("this", node, child, is_aggregate)
                    if isinstance(value, exp.Filter | exp.IgnoreNulls) and name == "this"
                    else self.replaced(child, is_aggregate),
                )
            elif isinstance(child, list):
                result.set(name, [self.replaced(each, is_aggregate) for each in child])
        return result

    def _subquery(self, node: exp.Query) -> exp.Query:
        if free_aliases(node):
            raise NotDistributed("a correlated subquery is next to an aggregate")
        return node.copy()


def _is_same(one: exp.Expr, other: exp.Expr) -> bool:
    # By text: sqlglot's own comparison ignores the case of letters in some nodes.
    return type(one) is type(other) and to_sql(one) == to_sql(other)


def _column(name: str) -> exp.Column:
    return exp.column(name, table="p", quoted=True)


def _filtered(call: exp.Expr, condition: exp.Expr | None) -> exp.Expr:
    if condition is None:
        return call
    return exp.Filter(this=call, expression=exp.Where(this=condition.copy()))


def _called(function: exp.Expr, value: exp.Expr) -> exp.Expr:
    """Return a call of the same function of another value."""
    result = function.copy()
    if isinstance(result, exp.Anonymous):
        result.set("expressions", [value])
    else:
        result.set("this", value)
    return result


def _coalesced(node: exp.Expr) -> exp.Expr:
    return exp.Coalesce(this=node, expressions=[exp.Literal.number(0)])


def _cast(node: exp.Expr, kind: str) -> exp.Expr:
    return exp.cast(node, exp.DataType.build(kind, dialect=DIALECT), dialect=DIALECT)


def _quotient(total: exp.Expr, count: exp.Expr) -> exp.Expr:
    """Return total / count as DOUBLE; NULL if nothing was counted, as DuckDB divides by 0."""
    return exp.Div(this=_cast(total, "DOUBLE"), expression=_cast(count, "DOUBLE"))
