"""Split a plan over datasets into one plan for each shard and one that merges, where possible.

Everything up to the first operator that needs all rows runs at the shard. That operator is split in
two: an Aggregate becomes partial states and a final phase; a Limit, a TopK (or a Sort and a Limit above
it) and a Distinct are applied at each shard and again at the merge. All later operators run in the merge. Partials are read in
shard order and merging their states yields the same bits for any split, so a split never changes a
result.

A plan that cannot be split is one task that reads all shards: a join, a union, and a chain whose
first operator that needs all rows is a sort, a window, a sample, an expectation, or an aggregate
whose states would hold all values.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeAlias, cast

from emsqrt.expr import Expr, columns_of
from emsqrt.plan import (
    Aggregate,
    Custom,
    DatasetRef,
    Distinct,
    Explode,
    Files,
    Filter,
    Limit,
    Plan,
    Project,
    Rename,
    Scan,
    Sink,
    Sort,
    TopK,
    WithColumn,
    chain,
    check,
    inputs_of,
    partial_schema,
    rewrite,
    scans_of,
    walk,
)
from sennit_core.errors import Unsupported, UsageError
from sennit_core.schema import Schema

if TYPE_CHECKING:
    from lake.file_schemas import FileColumns

SchemaOf: TypeAlias = Callable[[DatasetRef], Schema]
"""Returns the schema of a dataset's shards."""

# Their result for a row does not depend on other rows, so it is the same at any shard.
_EACH_ROW = (Filter, Project, Rename, WithColumn, Explode)
"""Operators that process one row at a time."""
_WIDE_TYPES = ("Utf8", "Binary", "List", "Struct", "Decimal")


@dataclass(frozen=True, slots=True)
class Split:
    """A plan in two halves, not yet bound to files.

    Args:
        shard_schema: Schema of the dataset's shards.
        columns: Columns to read from the shards, in schema order.
        shard_steps: Operators above each shard's scan.
        merge_steps: Operators above the scan of all partials; None when the partials, in shard
            order, are the result.
        partial_schema: Schema of a partial.
        schema: Schema of the result.
    """

    shard_schema: Schema
    columns: tuple[str, ...]
    shard_steps: tuple[Plan, ...]
    merge_steps: tuple[Plan, ...] | None
    partial_schema: Schema
    schema: Schema

    def shard_plan(self, shard: Files, columns: FileColumns | None = None) -> Plan:
        """Return the plan of one task.

        Args:
            shard: Its file.
            columns: Those of the file; None if they are the dataset's.
        """
        if columns is None:
            return _stack(Scan(shard, self.shard_schema, self.columns), self.shard_steps)
        # Only a node comes here: its client, which explains plans, needs no lake.
        from lake.file_schemas import rows_of_files

        rows = rows_of_files(shard, self.shard_schema, columns, self.columns)
        return _stack(rows, self.shard_steps)

    def merge_plan(self, partials: Files) -> Plan:
        """Return the plan that computes the result from all partials, which are in shard order."""
        return _stack(Scan(partials, self.partial_schema), self.merge_steps or ())


@dataclass(frozen=True, slots=True)
class Whole:
    """A plan that one task runs over all shards of all its datasets.

    Args:
        plan: The plan; its scans name datasets and hold their schemas.
        schema: Schema of the answer.
        because: Why it is not split.
    """

    plan: Plan
    schema: Schema
    because: str = ""

    @property
    def datasets(self) -> tuple[DatasetRef, ...]:
        """The datasets that it reads, without duplicates."""
        return datasets_of(self.plan)

    def over(self, rows: Callable[[Scan, DatasetRef], Plan]) -> Plan:
        """Return the plan of the task, with the rows of each dataset in place of its scan."""

        def bound(node: Plan) -> Plan:
            if isinstance(node, Scan) and isinstance(node.source, DatasetRef):
                return rows(node, node.source)
            return node

        return rewrite(self.plan, bound)


Cut: TypeAlias = Split | Whole


def split(plan: Plan, schema: Schema | SchemaOf, *, whole: bool = False) -> Cut:
    """Split a plan, or decide that one task must run it.

    Args:
        plan: A plan without a Sink.
        schema: Schema of the dataset that it reads, or a function that returns each dataset's
            schema.
        whole: Whether one task should run it.

    Raises:
        UnknownColumn: The plan names a column that does not exist.
        UsageError: The plan has a Sink, or sets an aggregate's phase.
        Unsupported: An operator of the plan cannot be distributed.
    """
    # First, so that a plan that cannot run is refused with that reason, not with a missing column.
    for node in walk(plan):
        _refuse_foreign(node)
    schema_of: SchemaOf = schema if callable(schema) else lambda _: schema
    # Typed as a whole before it is split: errors name the plan that the user wrote, and the
    # result's schema does not depend on the split.
    typed = rewrite(plan, lambda node: _with_schema(node, schema_of))
    answer = check(typed)
    if whole:
        return Whole(typed, answer, "the node found that one task is faster, or needed")
    if (joint := _first_joint(typed)) is not None:
        return Whole(typed, answer, f"{_verb(joint)} reads several inputs")
    scan, *steps = chain(typed)
    assert isinstance(scan, Scan)
    assert scan.schema is not None, "it was put there"
    cut = _cut(_first_rows_of_sorts(steps), scan)
    if isinstance(cut, str):
        return Whole(typed, answer, cut)
    shard_steps, merge_steps = cut
    shard_scan = Scan(scan.source, scan.schema, scan.columns)
    # Only the steps at the shard count: all columns of a partial are read by the merge.
    columns = _prune(shard_steps, scan.columns or tuple(scan.schema.names), scan.schema)
    partial = check(_stack(replace(shard_scan, columns=columns), shard_steps))
    return Split(scan.schema, columns, shard_steps, merge_steps, partial, answer)


def datasets_of(plan: Plan) -> tuple[DatasetRef, ...]:
    """Return the datasets that a plan reads, without duplicates, from left to right."""
    found = (scan.source for scan in scans_of(plan))
    return tuple(dict.fromkeys(source for source in found if isinstance(source, DatasetRef)))


def rebase(plan: Plan, sources: Callable[[DatasetRef], DatasetRef]) -> Plan:
    """Return the same plan over other datasets."""

    def bound(node: Plan) -> Plan:
        if isinstance(node, Scan) and isinstance(node.source, DatasetRef):
            return replace(node, source=sources(node.source))
        return node

    return rewrite(plan, bound)


def _with_schema(node: Plan, schema_of: SchemaOf) -> Plan:
    if isinstance(node, Scan) and isinstance(node.source, DatasetRef):
        return replace(node, schema=schema_of(node.source))
    return node


def _first_joint(plan: Plan) -> Plan | None:
    """Return an operator of a plan with several inputs, if there is one."""
    return next((node for node in walk(plan) if len(inputs_of(node)) > 1), None)


def _verb(step: Plan) -> str:
    return f"a {type(step).__name__.lower()}"


def _first_rows_of_sorts(steps: Sequence[Plan]) -> list[Plan]:
    """Replace each sort whose first rows alone are kept by a TopK, which has a split."""
    found: list[Plan] = []
    for step in steps:
        if isinstance(step, Limit) and found and isinstance(found[-1], Sort):
            found[-1] = TopK(found[-1].input, found[-1].keys, step.count, step.offset)
        else:
            found.append(step)
    return found


def _cut(
    steps: Sequence[Plan], scan: Scan
) -> tuple[tuple[Plan, ...], tuple[Plan, ...] | None] | str:
    """Return the steps at a shard and the steps of the merge; or why there is no split."""
    for index, step in enumerate(steps):
        before, after = tuple(steps[:index]), tuple(steps[index + 1 :])
        match step:
            case Aggregate():
                # Such as a median: its state is one cell of a partial, with all values of a group.
                if kept := _kept_values(step, check(_stack(scan, before))):
                    return f"{kept} needs all values of a group in one place"
                partial, final = replace(step, phase="partial"), replace(step, phase="final")
                return (*before, partial), (final, *after)
            case Limit(count=count, offset=offset) | TopK(count=count, offset=offset):
                # The rows that the offset skips may all be in one shard, or in none, so each keeps
                # that many more. The merge then applies the step as it was written:
                #     result ⊆ first (offset + count) of all rows ⊆ ∪ first (offset + count) of a shard
                at_shard = replace(step, count=count + offset, offset=0)
                return (*before, at_shard), (step, *after)
            # Again in the merge, where duplicates of different shards meet.
            case Distinct():
                return (*before, step), (step, *after)
            # Sorting at the shards would write every row once more, to be merged by a single
            # executor (`design/0061`).
            case _ if not isinstance(step, _EACH_ROW):
                return f"{_verb(step)} needs all rows in one place"
    # Row operators alone: the partials, in shard order, are the rows.
    return tuple(steps), None


def _kept_values(step: Aggregate, schema: Schema) -> str | None:
    """Return an aggregate whose state is a list of values: one cell of a partial, of any size."""
    states = partial_schema(step, schema)
    # Only the states, which follow the keys: a key may well be a list.
    kept = [field.name for field in states.fields[len(step.keys) :] if field.type.name == "List"]
    if not kept:
        return None
    named = [agg for name, agg in step.aggs if kept[0].startswith(name)]
    return str(named[0]) if named else kept[0]


def _prune(steps: Sequence[Plan], available: tuple[str, ...], schema: Schema) -> tuple[str, ...]:
    """Find the columns that the steps read, from the last step down to the scan."""
    needed: set[str] | None = None  # None: all columns of the input
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
    if needed is None:
        return None
    match step:
        case WithColumn(columns=columns):
            # Inputs of unused columns as well, because their expressions are still evaluated.
            made = {name for name, _ in columns}
            return (needed - made) | _columns(expr for _, expr in columns)
        case Filter(predicate=predicate):
            return needed | _columns([predicate])
        case Explode(column=column, as_name=as_name, position=position):
            # The list itself always: its length decides how many rows there are.
            return (needed - {as_name, position}) | {column}
        case Rename(names=names):
            # Looked up all at once, so names may be swapped. All old names are read: a rename of a
            # column that is not there is an error.
            old_name = {new: old for old, new in names}
            return {old_name.get(name, name) for name in needed} | {old for old, _ in names}
        # A Limit, TopK or Distinct can only be the last step at a shard, where `needed` is still
        # None: so the keys of a TopK cannot be missing.
        case _:
            return needed


def _columns(exprs: Iterable[Expr]) -> set[str]:
    return {name for expr in exprs for name in columns_of(expr)}


def _narrowest(names: tuple[str, ...], schema: Schema) -> str:
    """Return the narrowest column, to be read when only rows are counted."""
    # A scan without any column would have no rows to count.
    narrow = [n for n in names if not str(schema.field(n).type).startswith(_WIDE_TYPES)]
    return (narrow or list(names))[0]


def _stack(bottom: Plan, steps: Iterable[Plan]) -> Plan:
    """Return the operators stacked on `bottom`, in place of their previous inputs."""
    top = bottom
    for step in steps:
        top = cast("Plan", replace(cast("Any", step), input=top))
    return top


def _refuse_foreign(step: Plan) -> None:
    if isinstance(step, Sink):
        raise UsageError(
            "a distributed plan must not have a sink: its result is fetched from the job"
        )
    if isinstance(step, Aggregate) and step.phase != "full":
        raise UsageError(f'the phase "{step.phase}" is set by the node; leave it out')
    if isinstance(step, Custom):
        raise Unsupported(f"the operator {step.name!r} of another package cannot be distributed")
