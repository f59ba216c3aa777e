"""Split a plan over datasets into one plan for each shard and one that merges, where possible.

Everything up to the first operator that needs all rows runs at the shards (`shard_parts`). That operator
is split in two: an Aggregate becomes partial states and a final phase; a Limit, a TopK (or a Sort and a
Limit above it) and a Distinct are applied at each shard and again at the merge; a Sort sorts each shard,
and the merge merges them. All later operators run in the merge, with all shards of the datasets that they
join or add. Partials are read in shard order and merging their states yields the same bits for any split,
so a split never changes a result.

A plan that cannot be split is one task that reads all shards: one whose first operator that needs all
rows is a join of a large right side, a window, a sample of a number of rows, an expectation of all rows
together, or an aggregate whose states would hold all values.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeAlias, TypeVar

from elytra.functions.step import is_function
from elytra.shard_parts import (
    DatasetSize,
    Over,
    Part,
    Rules,
    bind_others,
    bind_scans,
    datasets_of,
    others_of,
    spine_of,
    stack,
    verb,
    with_step,
)
from emsqrt.plan import (
    Aggregate,
    Custom,
    DatasetRef,
    Distinct,
    Expect,
    Files,
    Limit,
    Plan,
    Scan,
    Sink,
    Sort,
    TopK,
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
    from lake.catalog.file_schemas import FileColumns

__all__ = [
    "Cut",
    "DatasetSize",
    "Part",
    "Rules",
    "SchemaOf",
    "Split",
    "Whole",
    "datasets_of",
    "rebase",
    "split",
]

SchemaOf: TypeAlias = Callable[[DatasetRef], Schema]
"""Returns the schema of a dataset's shards."""
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Split:
    """A plan in two halves, not yet bound to files.

    Args:
        parts: What runs at each shard of which dataset, in the order of the rows.
        merge_steps: Operators above the scan of all partials; None when the partials, in the order of
            the tasks, are the result.
        partial_schema: Schema of a partial.
        schema: Schema of the result.
    """

    parts: tuple[Part, ...]
    merge_steps: tuple[Plan, ...] | None
    partial_schema: Schema
    schema: Schema

    @property
    def merged_datasets(self) -> tuple[DatasetRef, ...]:
        """The datasets of which the merge reads all shards."""
        return others_of(self.merge_steps or ())

    def whole_scans(self) -> Iterator[Scan]:
        """Yield the scans of datasets of which a task or the merge reads all shards."""
        steps = (*(step for part in self.parts for step in part.steps), *(self.merge_steps or ()))
        return (scan for step in steps for each in inputs_of(step)[1:] for scan in scans_of(each))

    def tasks(self, shards: Mapping[DatasetRef, Sequence[T]]) -> Iterator[tuple[Part, T]]:
        """Yield the tasks in the order of their rows.

        Args:
            shards: Those of each dataset, in order.
        """
        return ((part, shard) for part in self.parts for shard in shards[part.source])

    def shard_plan(
        self,
        part: Part,
        shard: Files,
        columns: FileColumns | None = None,
        over: Over = lambda scan, _: scan,
        first_row: int = 0,
    ) -> Plan:
        """Return the plan of one task.

        Args:
            part: What runs there.
            shard: Its file.
            columns: Those of the file; None if they are the dataset's.
            over: Returns the rows of the datasets that every task reads.
            first_row: How many rows the shards of the tasks before have.
        """
        if columns is None:
            return part.plan(Scan(shard, part.schema, part.columns), over, first_row)
        # Only a node comes here: its client, which explains plans, needs no lake.
        from lake.catalog.file_schemas import rows_of_files

        rows = rows_of_files(shard, part.schema, columns, part.columns)
        return part.plan(rows, over, first_row)

    def merge_plan(self, partials: Files, over: Over = lambda scan, _: scan) -> Plan:
        """Return the plan that computes the result from all partials.

        Args:
            partials: Their files, in the order of the tasks.
            over: Returns the rows of the datasets that the merge reads.
        """
        steps = (bind_others(step, over) for step in self.merge_steps or ())
        return stack(Scan(partials, self.partial_schema), steps)


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

    def whole_scans(self) -> Iterator[Scan]:
        """Yield the scans of datasets of which a task reads all shards: all of them."""
        return iter(scans_of(self.plan))

    def over(self, rows: Over) -> Plan:
        """Return the plan of the task, with the rows of each dataset in place of its scan."""
        return bind_scans(self.plan, rows)


Cut: TypeAlias = Split | Whole


def split(
    plan: Plan, schema: Schema | SchemaOf, *, rules: Rules | None = None, whole: bool = False
) -> Cut:
    """Split a plan, or decide that one task must run it.

    Args:
        plan: A plan without a Sink.
        schema: Schema of the dataset that it reads, or a function that returns each dataset's
            schema.
        rules: What a split may do; None for nothing that depends on the sizes of datasets.
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
    found = _cut(_first_rows_of_sorts(spine_of(typed)), rules or Rules())
    if isinstance(found, str):
        return Whole(typed, answer, found)
    parts, merge_steps = found
    # Only the steps at the shard count: all columns of a partial are read by the merge.
    parts = tuple(part.pruned() for part in parts)
    partial = check(parts[0].plan(parts[0].scan, lambda scan, _: scan))
    return Split(parts, merge_steps, partial, answer)


def rebase(plan: Plan, sources: Callable[[DatasetRef], DatasetRef]) -> Plan:
    """Return the same plan over other datasets."""
    return bind_scans(plan, lambda scan, source: replace(scan, source=sources(source)))


def _with_schema(node: Plan, schema_of: SchemaOf) -> Plan:
    if isinstance(node, Scan) and isinstance(node.source, DatasetRef):
        return replace(node, schema=schema_of(node.source))
    return node


def _first_rows_of_sorts(steps: Sequence[Plan]) -> list[Plan]:
    """Replace each sort whose first rows alone are kept by a TopK, which has a smaller split."""
    found: list[Plan] = []
    for step in steps:
        if isinstance(step, Limit) and found and isinstance(found[-1], Sort):
            found[-1] = TopK(found[-1].input, found[-1].keys, step.count, step.offset)
        else:
            found.append(step)
    return found


def _cut(
    spine: Sequence[Plan], rules: Rules
) -> tuple[tuple[Part, ...], tuple[Plan, ...] | None] | str:
    """Return the parts, and the steps of the merge; or why there is no split."""
    scan, *steps = spine
    assert isinstance(scan, Scan), "every plan begins with one"
    parts: tuple[Part, ...] = (Part(scan),)
    for index, step in enumerate(steps):
        more = with_step(parts, step, rules)
        if not isinstance(more, str):
            parts = more
            continue
        halves = _halves(step, parts, rules)
        if isinstance(halves, str):
            return halves or more
        after = tuple(steps[index + 1 :])
        joint = next((each for each in after if len(inputs_of(each)) > 1), None)
        if joint is not None and rules.shuffles:
            return f"{verb(joint)} reads several inputs"
        at_shard, merged = halves
        at_shards = tuple(replace(part, steps=(*part.steps, at_shard)) for part in parts)
        return at_shards, (merged, *after)
    # Operators of the shards alone: the partials, in order, are the rows.
    return parts, None


def _halves(step: Plan, parts: Sequence[Part], rules: Rules) -> tuple[Plan, Plan] | str:
    """Return an operator at a shard and in the merge; or why it has no halves, if that is known."""
    match step:
        case Aggregate():
            # Such as a median: its state is one cell of a partial, with all values of a group.
            below = parts[0].plan(parts[0].scan, lambda scan, _: scan)
            if kept := _kept_values(step, check(below)):
                return f"{kept} needs all values of a group in one place"
            return replace(step, phase="partial"), replace(step, phase="final")
        # In one task a limit ends the reading, so that later rows are not looked at.
        case Limit() if any(isinstance(each, Expect) for part in parts for each in part.steps):
            return "a limit decides how many rows an expectation sees"
        case Limit() if any(is_function(each) for part in parts for each in part.steps):
            return "a limit decides how many rows a function sees"
        case Limit(count=count, offset=offset) | TopK(count=count, offset=offset):
            # The rows that the offset skips may all be in one shard, or in none, so each keeps
            # that many more. The merge then applies the step as it was written:
            #     result ⊆ first (offset + count) of all rows ⊆ ∪ first (offset + count) of a shard
            return replace(step, count=count + offset, offset=0), step
        # Again in the merge, where duplicates of different shards meet.
        case Distinct():
            return step, step
        # The shards, and so the rows of equal keys, are merged in order: as stable as one sort.
        case Sort() if not rules.shuffles:
            return replace(step, merge=False), replace(step, merge=True)
    return ""


def _kept_values(step: Aggregate, schema: Schema) -> str | None:
    """Return an aggregate whose state is a list of values: one cell of a partial, of any size."""
    states = partial_schema(step, schema)
    # Only the states, which follow the keys: a key may well be a list.
    kept = [field.name for field in states.fields[len(step.keys) :] if field.type.name == "List"]
    if not kept:
        return None
    named = [agg for name, agg in step.aggs if kept[0].startswith(name)]
    return str(named[0]) if named else kept[0]


def _refuse_foreign(step: Plan) -> None:
    if isinstance(step, Sink):
        raise UsageError(
            "a distributed plan must not have a sink: its result is fetched from the job"
        )
    if isinstance(step, Aggregate) and step.phase != "full":
        raise UsageError(f'the phase "{step.phase}" is set by the node; leave it out')
    if isinstance(step, Sort) and step.merge:
        raise UsageError("whether files are merged is set by the node; leave it out")
    if is_function(step) and len(step.inputs) == 1:
        return
    if isinstance(step, Custom):
        raise Unsupported(f"the operator {step.name!r} of another package cannot be distributed")
