"""Which plans run on remote workers, and the form in which they are sent."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from emsqrt.plan import (
    Aggregate,
    Distinct,
    Explode,
    Files,
    Filter,
    Limit,
    Plan,
    Project,
    Rename,
    Scan,
    TopK,
    WithColumn,
    check,
    rewrite,
    walk,
)
from sennit_core.errors import Unsupported
from sennit_core.schema import Schema

if TYPE_CHECKING:
    from elytra.splitter import Cut

__all__ = ["RemotePlan", "remote_plan", "why_not_remote"]

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


def why_not_remote(cut: Cut) -> str | None:
    """Return why a plan cannot run on remote workers; None if it can.

    The one place that decides it: such a plan runs on the node, and `explain` says so.
    """
    from elytra.splitter import Whole

    if isinstance(cut, Whole):
        return "it cannot be split by shards, and a worker gets one shard at a time"
    for step in (step for part in cut.parts for step in part.all_steps):
        if not isinstance(step, REMOTE_OPERATORS):
            return f"remote workers have no operator {type(step).__name__}"
    return None


@dataclass(frozen=True, slots=True)
class RemotePlan:
    """A task's plan over an Arrow IPC stream of its input, instead of the shard's file.

    Args:
        name: The input's name.
        scan: The scan of the shard; the stream has its rows.
        plan: The plan over the stream.
        schema: The columns of the result.
    """

    name: str
    scan: Scan
    plan: Plan
    schema: Schema


def remote_plan(plan: Plan) -> RemotePlan:
    """Return the form of a task's plan that is sent.

    Only the columns that the scan reads are in the stream: a worker gets no others.

    Raises:
        Unsupported: The plan reads several inputs, or columns that are not known.
    """
    scans = [node for node in walk(plan) if isinstance(node, Scan)]
    if len(scans) != 1 or not isinstance(scans[0].source, Files) or scans[0].schema is None:
        raise Unsupported("a plan of a remote worker reads one input with known columns")
    (scan,) = scans
    assert isinstance(scan.source, Files)
    assert scan.schema is not None
    if len(scan.source.paths) != 1:
        raise Unsupported("a plan of a remote worker reads one input")
    columns = scan.columns or tuple(scan.schema.names)
    schema = Schema(tuple(scan.schema.field(name) for name in columns))
    stream = Scan(Files(scan.source.paths, "arrow"), schema)
    sent = rewrite(plan, lambda node: stream if isinstance(node, Scan) else node)
    return RemotePlan(scan.source.paths[0], scan, sent, check(sent))
