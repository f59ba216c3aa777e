"""Split a plan over datasets into one plan for each shard and one that merges, where possible.

Everything up to the first operator that needs all rows runs at the shards (`shard_steps`). That operator
is split in two: an Aggregate becomes partial states and a final phase; a Limit, a TopK (or a Sort and a
Limit above it), a Distinct and a Sample of a number of rows are applied at each shard and again at the merge; a Sort sorts each shard,
and the merge merges them. All later operators run in the merge, with all shards of the datasets that they
join or add. Partials are read in shard order and merging their states yields the same bits for any split,
so a split never changes a result.

A plan that cannot be split is one task that reads all shards: one whose first operator that needs all
rows is a join of two large sides, a window whose partitions shards may share, a sample whose rows have no known numbers, an expectation of
the number of rows alone, or an aggregate whose states would hold all values.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeAlias, TypeVar

from elytra.functions.javascript import is_javascript
from elytra.functions.step import is_function
from elytra.shard_joins import (
    DatasetSize,
    Rules,
    is_small,
    joined_by_all,
    ordered_by_left,
    why_not_read_by_all,
)
from elytra.shard_parts import (
    MergedState,
    Over,
    Part,
    ShardRows,
    bind_others,
    bind_scans,
    datasets_of,
    main_rows,
    other_scans,
    stack,
    state_rows,
)
from elytra.shard_steps import (
    is_numbered,
    is_order_free,
    rows_of,
    spine_of,
    verb,
    window_ranges,
    with_step,
)
from emsqrt.plan import (
    Aggregate,
    Custom,
    DatasetRef,
    Distinct,
    Expect,
    Files,
    Join,
    Limit,
    Plan,
    Sample,
    Scan,
    Sink,
    Sort,
    SortKey,
    TopK,
    Union,
    Window,
    check,
    inputs_of,
    partial_schema,
    rewrite,
    scans_of,
    walk,
)
from emsqrt.plan.nodes import NODES_MAX, ROW_NUMBER
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
    "bind_schemas",
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
        merged: Rows that the merge makes of states in the partials, after the other rows.
    """

    parts: tuple[Part, ...]
    merge_steps: tuple[Plan, ...] | None
    partial_schema: Schema
    schema: Schema
    merged: tuple[MergedState, ...] = ()

    def whole_scans(self) -> Iterator[Scan]:
        """Yield the scans of datasets of which a task or the merge reads all shards."""
        steps = [step for part in self.parts for step in part.all_steps]
        steps += [step for each in self.merged for step in (each.source, *each.steps)]
        return other_scans([*steps, *(self.merge_steps or ())])

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
        rows: Plan = Scan(partials, self.partial_schema)
        if self.merged:
            rows = self._rows_and_states(rows, over)
        steps = (bind_others(step, over) for step in self.merge_steps or ())
        return stack(rows, steps)

    def _rows_and_states(self, partials: Plan, over: Over) -> Plan:
        inputs = [each.plan(state_rows(partials, each.number), over) for each in self.merged]
        if self.parts[0].steps is not None:
            inputs.insert(0, main_rows(partials, check(self.parts[0].rows()).names))
        return inputs[0] if len(inputs) == 1 else Union(tuple(inputs))


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
    typed = bind_schemas(plan, schema_of)
    answer = check(typed)
    if whole:
        return Whole(typed, answer, "the node found that one task is faster, or needed")
    found = _cut(_first_rows_of_sorts(spine_of(typed)), rules or Rules())
    if isinstance(found, str):
        return Whole(typed, answer, found)
    rows, merge_steps = found
    # Only the steps at the shard count: all columns of a partial are read by the merge.
    parts = tuple(part.pruned() for part in rows.parts)
    partial = check(parts[0].plan(parts[0].scan, _same))
    cut = Split(parts, merge_steps, partial, answer, rows.merged)
    if (nodes := _nodes_max(cut)) > NODES_MAX:
        return Whole(typed, answer, f"split, it has {nodes} operators, and {NODES_MAX} may be sent")
    return cut


def _same(scan: Scan, _: DatasetRef) -> Plan:
    return scan


def _nodes_max(cut: Split) -> int:
    """Return how many operators the largest plan of a split has; the steps of a state are in it twice."""
    plans = [part.plan(part.scan, _same) for part in cut.parts]
    merge = cut.merge_plan(Files(("partials",), "arrow"))
    return max(sum(1 for _ in walk(plan)) for plan in (*plans, merge))


def rebase(plan: Plan, sources: Callable[[DatasetRef], DatasetRef]) -> Plan:
    """Return the same plan over other datasets."""
    return bind_scans(plan, lambda scan, source: replace(scan, source=sources(source)))


def bind_schemas(plan: Plan, schema_of: SchemaOf) -> Plan:
    """Return the same plan with the schema of each dataset in its scan."""

    def bound(node: Plan) -> Plan:
        if isinstance(node, Scan) and isinstance(node.source, DatasetRef):
            return replace(node, schema=schema_of(node.source))
        return node

    return rewrite(plan, bound)


def _first_rows_of_sorts(steps: Sequence[Plan]) -> list[Plan]:
    """Replace each sort whose first rows alone are kept by a TopK, which has a smaller split."""
    found: list[Plan] = []
    for step in steps:
        if isinstance(step, Limit) and found and isinstance(found[-1], Sort):
            found[-1] = TopK(found[-1].input, found[-1].keys, step.count, step.offset)
        else:
            found.append(step)
    return found


Merged: TypeAlias = tuple[ShardRows, "tuple[Plan, ...] | None"]
"""The rows of the tasks, and the steps of the merge; None if there is nothing to merge."""


def _cut(spine: Sequence[Plan], rules: Rules) -> Merged | str:
    """Return what is split; or why there is no split."""
    scan, *steps = spine
    assert isinstance(scan, Scan), "every plan begins with one"
    rows = ShardRows((Part(scan),))
    if (found := _small_left_side(steps, rules)) is not None:
        rows, join, steps = found
        if not is_order_free(steps) and join.how not in ("semi", "anti"):
            return rows, (*ordered_by_left(join, rows.merged), *steps)
    for index, step in enumerate(steps):
        if rows.is_merged_alone or (rows.merged and isinstance(step, Sort)):
            return rows, tuple(steps[index:])
        more = with_step(rows, step, rules)
        if not isinstance(more, str):
            rows = more
            continue
        halves = _halves(step, rows, rules)
        if isinstance(halves, str):
            return halves or more
        after = tuple(steps[index + 1 :])
        joint = next((each for each in after if len(inputs_of(each)) > 1), None)
        if joint is not None and rules.shuffles:
            return f"{verb(joint)} reads several inputs"
        at_shard, merged = halves
        return rows.adding(at_shard), (merged, *after)
    # Operators of the shards alone: the partials, in order, are the rows, if the merge adds none.
    return rows, () if rows.merged else None


def _small_left_side(
    steps: Sequence[Plan], rules: Rules
) -> tuple[ShardRows, Join, list[Plan]] | None:
    """Return the rows of the uppermost join whose left side every task can read, and the steps above.

    Only if its right side is too large for that: with a small right side no row is numbered and merged.
    """
    for index in reversed(range(len(steps))):
        join, above = steps[index], list(steps[index + 1 :])
        if not isinstance(join, Join):
            continue
        rights = rows_of(join.right, rules)
        if isinstance(rights, str) or why_not_read_by_all(join.left, "left", rights, rules):
            continue
        if is_small(join.right, rules):
            continue
        rows = joined_by_all(rights, join, rules, is_ordered=not is_order_free(above))
        if not isinstance(rows, str):
            return rows, join, above
    return None


def _halves(  # noqa: C901 - a case for each operator
    step: Plan, rows: ShardRows, rules: Rules
) -> tuple[Plan, Plan] | str:
    """Return an operator at a shard and in the merge; or why it has no halves, if that is known."""
    below = [each for part in rows.parts for each in part.all_steps]
    match step:
        case Aggregate():
            # Such as a median: its state is one cell of a partial, with all values of a group.
            if kept := _kept_values(step, check(rows.parts[0].rows())):
                return f"{kept} needs all values of a group in one place"
            return replace(step, phase="partial"), replace(step, phase="final")
        # In one task a limit ends the reading, so that later rows are not looked at.
        case Limit() if any(isinstance(each, Expect) for each in below):
            return "a limit decides how many rows an expectation sees"
        case Limit() if any(is_function(each) or is_javascript(each) for each in below):
            return "a limit decides how many rows a function sees"
        case Limit(count=count, offset=offset) | TopK(count=count, offset=offset):
            # The rows that the offset skips may all be in one shard, or in none, so each keeps
            # that many more. The merge then applies the step as it was written:
            #     result ⊆ first (offset + count) of all rows ⊆ ∪ first (offset + count) of a shard
            return replace(step, count=count + offset, offset=0), step
        # Again in the merge, where duplicates of different shards meet.
        case Distinct():
            return step, step
        # The rows of the lowest hashes of all are among those of each shard. A row has its number with it.
        case Sample(fraction=None) if not rules.shuffles and is_numbered(rows):
            if ROW_NUMBER in check(rows.parts[0].rows()):
                return (
                    f"a column is called {ROW_NUMBER}, as the number of a row in parts of a sample"
                )
            return replace(step, phase="partial"), replace(step, phase="final")
        # No two shards share a partition, but their order is not that of the partitions.
        case Window(partition_by=keys, order_by=order) if not rules.shuffles and window_ranges(
            rows, step, rules
        ):
            return step, Sort(step, (*map(SortKey, keys), *order), merge=True)
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
    if isinstance(step, Aggregate | Sample) and step.phase != "full":
        raise UsageError(f'the phase "{step.phase}" is set by the node; leave it out')
    if isinstance(step, Sort) and step.merge:
        raise UsageError("whether files are merged is set by the node; leave it out")
    if (is_function(step) or is_javascript(step)) and len(step.inputs) == 1:
        return
    if isinstance(step, Custom):
        raise Unsupported(f"the operator {step.name!r} of another package cannot be distributed")
