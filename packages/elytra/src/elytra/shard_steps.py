"""Which operators of a plan run at the shards of the datasets that it reads: what is below the cut.

Rows of an operator of one row come from one shard each, so it runs at the shards. So do:

    a union                 the shards of its inputs, one input after the other
    a join, if one side     each shard of the other side with all of the small side (`shard_joins`)
    is small
    a sample by fraction    it depends on the number of a row alone, which the manifests tell
    an expectation          that no column has a NULL, or that rows differ (`shard_checks`)
    a window                if no two shards share a partition, and shards are in their order
"""

from __future__ import annotations

from typing import cast

from elytra.functions.javascript import is_javascript
from elytra.functions.step import FunctionStep, is_function
from elytra.shard_checks import checked_again
from elytra.shard_joins import KeyRanges, Rules, joined_with_all, why_not_read_by_all
from elytra.shard_parts import ROWS, Part, ShardRows
from emsqrt.expr import Cast, Column, Expr, lit
from emsqrt.plan import (
    Aggregate,
    Expect,
    Explode,
    Filter,
    Join,
    Plan,
    Project,
    Rename,
    Sample,
    Scan,
    Union,
    Window,
    WithColumn,
    check,
    inputs_of,
)
from emsqrt.plan.joining import union_schema
from sennit_core.schema import Field, Schema

__all__ = [
    "is_numbered",
    "is_order_free",
    "rows_of",
    "spine_of",
    "verb",
    "window_ranges",
    "with_step",
]

# Their result for a row does not depend on other rows, so it is the same at any shard.
_EACH_ROW = (Filter, Project, Rename, WithColumn, Explode)
"""Operators that process one row at a time."""
_ONE_TO_ONE = (Project, Rename, WithColumn, Expect)
"""Operators with a row for each row of the input, so that its number is known."""
_BY_ORDER = ("first", "last")
"""Aggregates whose value depends on the order of the rows."""


def rows_of(plan: Plan, rules: Rules) -> ShardRows | str:
    """Return what runs at which shards, so that the rows of the tasks, in order, are those of the plan.

    Args:
        plan: A typed plan.
        rules: What is allowed.

    Returns:
        The tasks; or why there are none.
    """
    spine = spine_of(plan)
    rows: ShardRows | str = ShardRows((Part(cast("Scan", spine[0])),))
    for step in spine[1:]:
        if isinstance(rows, str):
            break
        rows = with_step(rows, step, rules)
    return rows


def spine_of(plan: Plan) -> list[Plan]:
    """Return the nodes from the first scan of a plan up to its last operator."""
    nodes = [plan]
    while below := inputs_of(nodes[-1]):
        nodes.append(below[0])
    return nodes[::-1]


def with_step(  # noqa: C901 - a case for each operator
    rows: ShardRows, step: Plan, rules: Rules
) -> ShardRows | str:
    """Return the rows with one more operator; or why it cannot run at the shards."""
    match step:
        case Union():
            return _united(rows, step, rules)
        case Join():
            reason = why_not_read_by_all(step.right, "right", rows, rules)
            return joined_with_all(rows, step, rules) if reason is None else reason
        case Sample(fraction=None) if is_numbered(rows):
            return "a sample of a number of rows needs all rows in one place"
        case Sample() if not is_numbered(rows):
            return "a sample needs the numbers of the rows, which the operators below it change"
        case Expect() if rules.shuffles and (step.unique or step.rows is not None):
            return "an expectation of all rows together needs them in one place"
        case Expect() if step.unique or step.rows is not None:
            return checked_again(rows, step)
        case Window() if not rules.shuffles and window_ranges(rows, step, rules) == "ascending":
            pass
        case Window(partition_by=keys) if keys:
            return "a window needs all rows of a partition in one place, and shards may share them"
        case Sample() | Expect():
            pass
        case _ if not _is_of_each_row(step):
            return f"{verb(step)} needs all rows in one place"
    return rows.adding(step)


def _is_of_each_row(step: Plan) -> bool:
    if is_function(step):
        return FunctionStep.from_json(step.options).is_of_each_row
    return isinstance(step, _EACH_ROW) or is_javascript(step)


def is_order_free(above: list[Plan]) -> bool:
    """Return whether the operators above some rows compute the same of them in any order.

    So do aggregates: their states are the same in any order, and the groups are sorted.
    """
    for step in above:
        if isinstance(step, Aggregate):
            return not any(agg.fn in _BY_ORDER for _, agg in step.aggs)
        if not _is_of_each_row(step):
            return False
    return False


def verb(step: Plan) -> str:
    """Return an operator in words."""
    if is_function(step) or is_javascript(step):
        return f"the function of {step.options.get('label')}"
    name = type(step).__name__.lower()
    return f"{'an' if name[0] in 'aeio' else 'a'} {name}"


# Unions


def _united(rows: ShardRows, union: Union, rules: Rules) -> ShardRows | str:
    schemas = [check(each) for each in union.inputs]
    schema = union_schema(union, schemas)
    found: list[Part] = []
    for place, (each, own) in enumerate(zip(union.inputs, schemas, strict=True)):
        input_rows = rows_of(each, rules) if place else rows
        if isinstance(input_rows, str):
            return f"an input of a union cannot be split ({input_rows})"
        if input_rows.merged:
            return "an input of a union cannot be split (the merge adds rows to it)"
        # As `emsqrt.operators.streams.UnionRows`: names of the union, and one type.
        step = Project(each, tuple(_column(union, own, at, to) for at, to in enumerate(schema)))
        found += (input_rows if own == schema else input_rows.adding(step)).parts
    return ShardRows(tuple(found))


def _column(union: Union, own: Schema, at: int, to: Field) -> tuple[str, Expr]:
    if union.by_name and to.name not in own:
        return to.name, Cast(lit(None), to.type)
    source = own.field(to.name) if union.by_name else own.fields[at]
    column = Column(source.name)
    return to.name, column if source.type == to.type else Cast(column, to.type)


# Windows


def window_ranges(rows: ShardRows, window: Window, rules: Rules) -> KeyRanges | None:
    """Return how partitions of a window are spread over shards; None if two may share one.

    By any key that is a column of the dataset: rows of equal keys are then rows of one shard. The rows of
    a window are in the order of the keys, so only the first one can have the order of the shards.
    """
    if len(rows.parts) != 1 or rows.merged:
        return None
    (part,) = rows.parts
    for place, key in enumerate(window.partition_by):
        column = _source_column(part, key)
        found = None if column is None else rules.ranges_of(part.source, column)
        if found is not None:
            return found if place == 0 else "disjoint"
    return None


def _source_column(part: Part, key: Expr) -> str | None:
    """Return the column of the dataset that a column has the values of; None if there is none."""
    if not isinstance(key, Column):
        return None
    name = key.name
    for step in reversed(part.steps or ()):
        match step:
            case Filter() | Sample() | Expect():
                pass
            case Rename(names=names):
                name = {new: old for old, new in names}.get(name, name)
            case Project(columns=columns):
                made = dict(columns)[name]
                if not isinstance(made, Column):
                    return None
                name = made.name
            case WithColumn(columns=columns) if all(name != new for new, _ in columns):
                pass
            case Join(how="inner" | "left" | "semi" | "anti" | "cross") if (
                step.right is not ROWS and name in check(step.left)
            ):
                pass
            case _:
                return None
    return name


# Samples


def is_numbered(rows: ShardRows) -> bool:
    """Return whether the number of a row in the plan is that in its dataset, or in those that a union adds."""
    steps = (step for part in rows.parts for step in part.steps or ())
    return not rows.merged and all(isinstance(step, _ONE_TO_ONE) for step in steps)
