"""Predicate pushdown: move each term of a filter as far down as its meaning stays the same.

The invariant is that no expression is evaluated on a row that it was not evaluated on in the
submitted plan. So a filter may shield an expression that would fail on some rows, but never the
reverse: a term that may fail stays after the terms to its left, and does not move below a join.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from emsqrt.expr import Call, Column, Expr, Literal, columns_of
from emsqrt.expr.check import bind
from emsqrt.expr.walk import children
from emsqrt.plan import (
    Aggregate,
    Distinct,
    Explode,
    Files,
    Filter,
    Join,
    Plan,
    Project,
    Rename,
    Scan,
    Sort,
    Union,
    WithColumn,
    inputs_of,
    with_inputs,
)
from emsqrt.plan.joining import right_names, shared_keys
from emsqrt.planner.columns import Schemas
from emsqrt.planner.outer import without_nulls
from emsqrt.planner.schemas import schemas_known, schemas_of
from emsqrt.planner.substitution import (
    CHEAP_NODES,
    conjunction,
    conjuncts,
    size_of,
    substitute,
    uses_of,
)
from sennit_core.schema import Schema

# Functions with different results for -0.0 and 0.0. A group or a distinct row keeps one of both, so
# a filter that separates them must stay above.
_OF_SIGNED_ZEROS = ("div", "atan2", "power")
_HINT_FUNCTIONS = ("eq", "ne", "lt", "le", "gt", "ge", "between", "is_in", "is_null")


@dataclass(frozen=True, slots=True)
class Term:
    """One term of a filter on its way down, over the columns of the node it has reached."""

    expr: Expr
    fallible: bool


Moved = list["Term | None"]
"""The term over the columns of each input, or None for an input that it cannot move to."""


def push_down_filters(plan: Plan, folder: Path) -> Plan:
    """Filter as early as possible: below projections, unions and joins, and into Parquet blocks."""
    del folder
    return _push(plan, [], schemas_of(plan)) if schemas_known(plan) else plan


def _push(plan: Plan, terms: list[Term], schemas: Schemas) -> Plan:
    """Return `plan` filtered by `terms`, which are over its output."""
    # A filter is dissolved into its terms, which go down one by one.
    if isinstance(plan, Filter):
        own = [
            Term(expr, bind(expr, schemas[id(plan.input)]).fallible)
            for expr in conjuncts(plan.predicate)
        ]
        return _push(plan.input, [*own, *terms], schemas)
    if isinstance(plan, Scan):
        return _above_scan(plan, terms)
    if isinstance(plan, Join):
        left, right = (schemas[id(below)] for below in inputs_of(plan))
        before = plan
        # The filter may make an outer join an inner one, below which more terms can move.
        plan = without_nulls(plan, (term.expr for term in terms), left, right)
        # The schema is the same, and later look-ups are by the node's id.
        schemas[id(plan)] = schemas[id(before)]
    inputs = inputs_of(plan)
    below: list[list[Term]] = [[] for _ in inputs]
    kept: list[Term] = []
    for term in terms:
        # A term that may fail must not move past a term that stays and shields it.
        shielded = term.fallible and bool(kept)
        moved = [None] if shielded else _moved(plan, term, schemas)
        if all(each is None for each in moved):
            kept.append(term)
            continue
        for place, each in zip(below, moved, strict=True):
            if each is not None:
                place.append(each)
    made = [_push(node, place, schemas) for node, place in zip(inputs, below, strict=True)]
    return _filtered(with_inputs(plan, made), kept)


def _filtered(plan: Plan, terms: list[Term]) -> Plan:
    """Add a filter above; a term that may fail gets a filter of its own, above those to its left.

    In one conjunction it would also be evaluated on rows for which these are NULL.
    """
    group: list[Expr] = []
    for term in terms:
        if term.fallible and group:
            plan, group = Filter(plan, conjunction(group)), []
        group.append(term.expr)
    return Filter(plan, conjunction(group)) if group else plan


def _above_scan(scan: Scan, terms: list[Term]) -> Plan:
    hints = [term.expr for term in terms if not term.fallible and _is_hint(term.expr)]
    parquet = isinstance(scan.source, Files) and scan.source.format == "parquet"
    # The scan may skip row groups by these terms, but need not: the filter above it stays.
    if hints and parquet and scan.predicate is None:
        scan = replace(scan, predicate=conjunction(hints))
    return _filtered(scan, terms)


def _is_hint(expr: Expr) -> bool:
    """Return whether a block's minimum and maximum can prove that `expr` is never true."""
    match expr:
        case Call("not", (inner,)):
            return isinstance(inner, Call) and inner.fn == "is_null" and _is_hint(inner)
        case Call(fn, args) if fn in _HINT_FUNCTIONS:
            # One column against constants, as a row group's statistics are of one column.
            columns = sum(isinstance(arg, Column) for arg in args)
            return columns == 1 and all(isinstance(arg, Column | Literal) for arg in args)
    return False


def _moved(plan: Plan, term: Term, schemas: Schemas) -> Moved:
    inputs = [schemas[id(node)] for node in inputs_of(plan)]
    mover = _MOVERS.get(type(plan))
    if mover is None:
        return [None] * len(inputs)
    return mover(plan, term, inputs, schemas[id(plan)])


def _in_words_of(columns: Mapping[str, Expr], term: Term) -> Term | None:
    """Return the term with columns replaced, unless that repeats much work for each row."""
    for name, count in uses_of(term.expr).items():
        # The column was computed once per row; the term would compute it once per use.
        if name in columns and count > 1 and size_of(columns[name]) > CHEAP_NODES:
            return None
    return Term(substitute(term.expr, columns), term.fallible)


def _through_columns(
    node: Project | WithColumn, term: Term, inputs: list[Schema], _: Schema
) -> Moved:
    columns = dict(node.columns)
    read = [columns[name] for name in columns_of(term.expr) if name in columns]
    moved = _in_words_of(columns, term)
    if moved is None or not all(isinstance(expr, Column | Literal) for expr in read):
        # Expressions computed here would be computed twice; a filter right above costs no more.
        return [None]
    return [Term(moved.expr, term.fallible or bind(moved.expr, inputs[0]).fallible)]


def _through_rename(node: Rename, term: Term, _: list[Schema], __: Schema) -> Moved:
    return [_in_words_of({new: Column(old) for old, new in node.names}, term)]


def _through_sort(_: Sort, term: Term, __: list[Schema], ___: Schema) -> Moved:
    return [term]


def _through_distinct(node: Distinct, term: Term, _: list[Schema], output: Schema) -> Moved:
    # Distinct keeps the first row of each key: a term on other columns might drop that row, and
    # another one would be kept in its place.
    whole = node.columns is None or columns_of(term.expr) <= set(node.columns)
    return [term if whole and not _distinguishes_zeros(term.expr, output) else None]


def _distinguishes_zeros(expr: Expr, schema: Schema) -> bool:
    """Return whether `expr` may distinguish -0.0 and 0.0, which are equal as keys."""
    if isinstance(expr, Call) and expr.fn in _OF_SIGNED_ZEROS:
        return any(schema.field(name).type.is_float for name in columns_of(expr))
    return any(_distinguishes_zeros(part, schema) for part in children(expr))


def _through_explode(node: Explode, term: Term, _: list[Schema], __: Schema) -> Moved:
    # An input row may have no output row; below, a term that may fail would be evaluated on it.
    made = {node.as_name or node.column, node.column, node.position}
    return [None if term.fallible or columns_of(term.expr) & made else term]


def _through_aggregate(node: Aggregate, term: Term, inputs: list[Schema], output: Schema) -> Moved:
    keys = dict(node.keys)
    # Without keys there is one output row, also if the filter keeps no input row.
    if node.phase != "full" or not keys or not columns_of(term.expr) <= keys.keys():
        return [None]
    if _distinguishes_zeros(term.expr, output):
        return [None]
    if any(bind(keys[name], inputs[0]).fallible for name in columns_of(term.expr)):
        return [None]
    # A constant term has no column to move by.
    return [None if not columns_of(term.expr) else _in_words_of(keys, term)]


def _through_union(node: Union, term: Term, inputs: list[Schema], output: Schema) -> Moved:
    moved: Moved = []
    for schema in inputs:
        own_names = output.names if node.by_name else schema.names
        names = dict(zip(output.names, own_names, strict=True))
        columns: dict[str, Expr] = {}
        for name in columns_of(term.expr):
            own = names[name]
            if own not in schema or schema.field(own).type != output.field(name).type:
                return [None] * len(inputs)  # it would have another meaning, or none, there
            columns[name] = Column(own)
        moved.append(Term(substitute(term.expr, columns), term.fallible))
    return moved


def _through_join(node: Join, term: Term, inputs: list[Schema], output: Schema) -> Moved:
    read = columns_of(term.expr)
    if term.fallible or not read:
        return [None, None]
    left, right = inputs
    renamed = {new: old for old, new in right_names(node, left, right).items()}
    # A key of both sides is one column of the output; a term on keys alone filters both sides.
    shared = shared_keys(node)
    if read & frozenset(shared) and _distinguishes_zeros(term.expr, output):
        return [None, None]
    both = all(name in shared for name in read)
    own = {name: Column(name) for name in read}
    other: dict[str, Expr] = {n: Column(n if n in shared else renamed.get(n, n)) for n in read}
    # Dropping rows of one side must not make rows of the other side unmatched if the join writes
    # unmatched rows of that side.
    keep_left = node.how in ("inner", "left", "semi", "anti", "cross")
    keep_right = node.how in ("inner", "right", "cross")
    to_left = keep_left and _has(left, own, output) and not read & renamed.keys()
    to_right = keep_right and (both or read <= {*renamed, *shared}) and _has(right, other, output)
    one = Term(term.expr, fallible=False) if to_left else None
    two = Term(substitute(term.expr, other), fallible=False) if to_right else None
    # The names occur on both sides, but the output's columns are those of the left one.
    if not both and one is not None and two is not None:
        two = None
    return [one, two]


def _has(side: Schema, columns: Mapping[str, Expr], output: Schema) -> bool:
    """Return whether a side has all these columns, with the types that the output has."""
    for name, column in columns.items():
        assert isinstance(column, Column)
        if column.name not in side or side.field(column.name).type != output.field(name).type:
            return False
    return True


Mover = Callable[[Any, Term, list[Schema], Schema], Moved]

_MOVERS: dict[type[Plan], Mover] = {
    Project: _through_columns,
    WithColumn: _through_columns,
    Rename: _through_rename,
    Sort: _through_sort,
    Distinct: _through_distinct,
    Explode: _through_explode,
    Aggregate: _through_aggregate,
    Union: _through_union,
    Join: _through_join,
}
"""Filters stop above nodes that are not listed: limit, top_k, window, sample, expect, custom
nodes."""
