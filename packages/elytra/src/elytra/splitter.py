"""Cuts a plan over a dataset into one plan for each shard and one that merges them.

Everything up to the first operator that needs all rows runs at the shard. That operator is cut in
two: an Aggregate becomes partial states and a final phase, a Limit is applied at each shard and
again at the merge. All that follows runs in the merge. Partials are read in shard order and their
states add up to the same bits in any cut, so no cut changes an answer.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias, cast

from emsqrt.expr import Expr, columns_of
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
    Sink,
    WithColumn,
    chain,
    check,
)
from sennit_core.errors import Unsupported, UsageError
from sennit_core.schema import Schema

Source: TypeAlias = Files | DatasetRef

_WIDE_TYPES = ("Utf8", "Binary", "List", "Struct", "Decimal")


@dataclass(frozen=True, slots=True)
class Split:
    """A plan in two halves, not yet bound to files.

    Args:
        shard_schema: Schema of the dataset's shards.
        columns: Columns that the shards are read for, in schema order.
        shard_steps: Operators above each shard's scan.
        merge_steps: Operators above the scan of all partials; None when the partials themselves,
            in shard order, are the answer.
        partial_schema: Schema of a partial.
        schema: Schema of the answer.
    """

    shard_schema: Schema
    columns: tuple[str, ...]
    shard_steps: tuple[Plan, ...]
    merge_steps: tuple[Plan, ...] | None
    partial_schema: Schema
    schema: Schema

    def shard_plan(self, shard: Files) -> Plan:
        """Return the plan of one task."""
        return _stack(Scan(shard, self.shard_schema, self.columns), self.shard_steps)

    def merge_plan(self, partials: Files) -> Plan:
        """Return the plan that makes the answer of all partials, given in shard order."""
        return _stack(Scan(partials, self.partial_schema), self.merge_steps or ())


def split(plan: Plan, schema: Schema) -> Split:
    """Cut a plan.

    Args:
        plan: A chain from one Scan, without a Sink.
        schema: Schema of the dataset that the Scan reads.

    Raises:
        UnknownColumn: The plan names a column that is not there.
        Unsupported: An operator of the plan cannot be cut yet.
    """
    scan, *steps = chain(plan)
    if not isinstance(scan, Scan):
        raise Unsupported(f"a plan that begins with {_name(scan)} cannot be distributed")
    for step in steps:
        _refuse_foreign(step)
    whole = _stack(replace(scan, schema=schema), steps)
    answer = check(whole)
    shard_steps, merge_steps = _cut(steps)
    shard_scan = Scan(scan.source, schema, scan.columns)
    columns = _prune(shard_steps, scan.columns or tuple(schema.names), schema)
    partial = check(_stack(replace(shard_scan, columns=columns), shard_steps))
    return Split(schema, columns, shard_steps, merge_steps, partial, answer)


def rebase(plan: Plan, source: Source) -> Plan:
    """Return the same plan over another source."""
    scan, *steps = chain(plan)
    assert isinstance(scan, Scan)
    return _stack(replace(scan, source=source), steps)


def _cut(steps: Sequence[Plan]) -> tuple[tuple[Plan, ...], tuple[Plan, ...] | None]:
    for index, step in enumerate(steps):
        before, after = tuple(steps[:index]), tuple(steps[index + 1 :])
        match step:
            case Aggregate():
                partial, final = replace(step, phase="partial"), replace(step, phase="final")
                return (*before, partial), (final, *after)
            case Limit(count=count, offset=offset):
                at_shard = replace(step, count=count + offset, offset=0)
                return (*before, at_shard), (step, *after)
            case _:
                pass
    return tuple(steps), None


def _prune(steps: Sequence[Plan], available: tuple[str, ...], schema: Schema) -> tuple[str, ...]:
    """Find the columns that the steps read, walking from the last one down to the scan."""
    needed: set[str] | None = None  # None: every column that arrives
    for step in reversed(steps):
        needed = _needed_below(step, needed)
    if needed is None:
        return available
    kept = tuple(name for name in available if name in needed)
    return kept or (_narrowest(available, schema),)


def _needed_below(step: Plan, needed: set[str] | None) -> set[str] | None:
    match step:
        case Aggregate(keys=keys, aggs=aggs):
            return _columns([*(expr for _, expr in keys), *(agg for _, agg in aggs)])
        case Project(columns=columns):
            return _columns(expr for _, expr in columns)
        case WithColumn(columns=columns):
            if needed is None:
                return None
            made = {name for name, _ in columns}
            return (needed - made) | _columns(expr for _, expr in columns)
        case Filter(predicate=predicate):
            return None if needed is None else needed | _columns([predicate])
        case Rename(names=names):
            if needed is None:
                return None
            old_name = {new: old for old, new in names}
            return {old_name.get(name, name) for name in needed}
        case _:
            return needed


def _columns(exprs: Iterable[Expr]) -> set[str]:
    return {name for expr in exprs for name in columns_of(expr)}


def _narrowest(names: tuple[str, ...], schema: Schema) -> str:
    """The column to read when only rows are counted."""
    narrow = [n for n in names if not str(schema.field(n).type).startswith(_WIDE_TYPES)]
    return (narrow or list(names))[0]


def _stack(bottom: Plan, steps: Iterable[Plan]) -> Plan:
    """Put the operators on top of `bottom`, whatever they stood on before."""
    top = bottom
    for step in steps:
        top = cast("Plan", replace(cast("Any", step), input=top))
    return top


def _refuse_foreign(step: Plan) -> None:
    if isinstance(step, Sink):
        raise UsageError("a distributed plan has no sink: its answer is fetched from the job")
    if isinstance(step, Aggregate) and step.phase != "full":
        raise UsageError(f'the phase "{step.phase}" is for the control plane; leave it out')
    if not isinstance(step, Aggregate | Filter | Limit | Project | Rename | WithColumn):
        raise Unsupported(f"{_name(step)} cannot be distributed yet")


def _name(step: Plan) -> str:
    return type(step).__name__
