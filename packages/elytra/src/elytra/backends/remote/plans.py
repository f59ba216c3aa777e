"""Which plans run on remote workers, and the form in which they are sent."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from elytra.functions.javascript import is_javascript
from emsqrt.plan import (
    Aggregate,
    Distinct,
    Explode,
    Files,
    Filter,
    Join,
    JoinKind,
    Limit,
    Plan,
    Project,
    Rename,
    Scan,
    Sort,
    TopK,
    Union,
    WithColumn,
    check,
    inputs_of,
    walk,
)
from sennit_core.errors import Unsupported
from sennit_core.schema import Schema

if TYPE_CHECKING:
    from elytra.splitter import Cut

__all__ = ["RemotePlan", "remote_plan", "side_name", "why_not_remote"]

REMOTE_OPERATORS: tuple[type[Plan], ...] = (
    Filter,
    Project,
    Rename,
    WithColumn,
    Explode,
    Aggregate,
    Limit,
    TopK,
    Distinct,
)
"""What a worker's engine has to have: operators of one row, and those that are split in two."""
REMOTE_JOINS: tuple[JoinKind, ...] = ("inner", "left", "semi", "anti")
"""Joins whose rows belong to one row of the shard each."""
_SIDE_OPERATORS: tuple[type[Plan], ...] = (
    *(each for each in REMOTE_OPERATORS if each is not Explode), Scan, Sort, Union,
)  # fmt: skip
"""What the node computes of a small side before it sends it: nothing that makes more rows than it reads."""


def why_not_remote(cut: Cut) -> str | None:
    """Return why a plan cannot run on remote workers; None if it can.

    The one place that decides it: such a plan runs on the node, and `explain` says so.
    """
    from elytra.splitter import Whole

    if isinstance(cut, Whole):
        return "it cannot be split by shards, and a worker gets one shard at a time"
    if any((part.steps is not None) + len(part.states) > 1 for part in cut.parts):
        return "rows of all shards are compared in the merge, for which each task has two results"
    for step in (step for part in cut.parts for step in part.all_steps):
        if isinstance(step, Join):
            if (reason := _why_no_join(step)) is not None:
                return reason
        elif not isinstance(step, REMOTE_OPERATORS) and not is_javascript(step):
            return f"remote workers have no operator {type(step).__name__}"
    return None


def _why_no_join(join: Join) -> str | None:
    from elytra.shard_parts import ROWS

    if join.how not in REMOTE_JOINS:
        return f"remote workers have no {join.how} join"
    if join.right is ROWS:
        return "the small side of a join is its left one, and workers read rows in its order"
    for node in walk(join.right):
        if not isinstance(node, _SIDE_OPERATORS):
            return f"the small side of a join has the operator {type(node).__name__}"
    return None


@dataclass(frozen=True, slots=True)
class RemotePlan:
    """A task's plan over Arrow IPC streams, instead of the files of the shards.

    Args:
        name: The name of the shard's stream.
        scan: The scan of the shard; the stream has its rows.
        sides: The small sides of joins, which the node computes; their streams are called `side_name`.
        plan: The plan over the streams.
        schema: The columns of the result.
    """

    name: str
    scan: Scan
    sides: tuple[Plan, ...]
    plan: Plan
    schema: Schema


def side_name(number: int) -> str:
    """Return the name of the stream of a small side."""
    return f"side-{number}"


def remote_plan(plan: Plan) -> RemotePlan:
    """Return the form of a task's plan that is sent.

    Only the columns that the plan reads are in the streams: a worker gets no others.

    Raises:
        Unsupported: The plan reads several shards row by row, or columns that are not known.
    """
    from elytra.shard_parts import stack
    from elytra.shard_steps import spine_of

    if any(isinstance(node, Join) for node in walk(plan)):
        # The splitter leaves a join all columns of both sides, as a name may get a suffix or not.
        from emsqrt.planner.columns import prune_columns

        plan = prune_columns(plan, Path())
    scan, *steps = spine_of(plan)
    if not isinstance(scan, Scan) or not isinstance(scan.source, Files) or scan.schema is None:
        raise Unsupported("a plan of a remote worker reads one input with known columns")
    if len(scan.source.paths) != 1:
        raise Unsupported("a plan of a remote worker reads one input")
    columns = scan.columns or tuple(scan.schema.names)
    schema = Schema(tuple(scan.schema.field(name) for name in columns))
    sides: list[Plan] = []
    above: list[Plan] = []
    for step in steps:
        if isinstance(step, Join):
            side = Files((side_name(len(sides)),), "arrow")
            above.append(replace(step, right=Scan(side, check(step.right))))
            sides.append(step.right)
        elif len(inputs_of(step)) == 1:
            above.append(step)
        else:
            raise Unsupported("a plan of a remote worker reads one shard")
    sent = stack(Scan(Files(scan.source.paths, "arrow"), schema), above)
    return RemotePlan(scan.source.paths[0], scan, tuple(sides), sent, check(sent))
