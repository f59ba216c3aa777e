"""The tasks of a split plan: what runs at each shard, and what the merge makes of their states.

A task's partial has the rows of its shard. Where a row of the result depends on all shards, such as one of
a join's small side that matches no row, the partial has a state as well: rows of other columns, marked by
their number in the column `$state`, which is NULL in the rows of the plan.

    task      union by name ┬─ rows ◀── steps ◀─────┬── the shard
                            └─ state ◀── its steps ◀─┘
    merge     union ┬─ rows of all partials, in order
                    └─ rows of the small side, by the states of all partials
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias, cast

from emsqrt.expr import Column, Expr, columns_of, lit
from emsqrt.plan import (
    Aggregate,
    Custom,
    DatasetRef,
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
    inputs_of,
    rewrite,
    scans_of,
)
from sennit_core.schema import Schema

__all__ = [
    "ROWS",
    "STATE",
    "MergedState",
    "Over",
    "Part",
    "ShardRows",
    "bind_scans",
    "datasets_of",
    "main_rows",
    "others_of",
    "stack",
    "state_rows",
]

ROWS = Scan(DatasetRef("<rows>"))
"""In an operator: the place of the rows that it is stacked on, compared by identity.

Needed where they are not the first input: in a join whose right side has the shards.
"""
STATE = "$state"
"""The column of a partial that has the number of a row's state; NULL in the rows of the plan."""
_WIDE_TYPES = ("Utf8", "Binary", "List", "Struct", "Decimal")

Over: TypeAlias = Callable[[Scan, DatasetRef], Plan]
"""Returns the rows of a dataset, in place of its scan."""


@dataclass(frozen=True, slots=True)
class Part:
    """What runs at each shard of one dataset.

    Args:
        scan: Reads the shard; its source is the dataset.
        steps: The operators above it, from the first to the last. Of joins and unions all inputs but the
            rows below are plans over whole datasets. None: the partials have states alone.
        states: The operators of each state, above the scan too.
    """

    scan: Scan
    steps: tuple[Plan, ...] | None = ()
    states: tuple[tuple[Plan, ...], ...] = ()

    @property
    def source(self) -> DatasetRef:
        """The dataset."""
        assert isinstance(self.scan.source, DatasetRef), "a plan of the splitter reads datasets"
        return self.scan.source

    @property
    def schema(self) -> Schema:
        """The columns of the dataset."""
        assert self.scan.schema is not None, "the splitter has put it there"
        return self.scan.schema

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that are read."""
        return self.scan.columns or tuple(self.schema.names)

    @property
    def all_steps(self) -> tuple[Plan, ...]:
        """The operators of the rows and of the states."""
        return (*(self.steps or ()), *(step for steps in self.states for step in steps))

    @property
    def others(self) -> tuple[DatasetRef, ...]:
        """The datasets of which every task reads all shards."""
        return others_of(self.all_steps)

    def adding(self, *steps: Plan) -> Part:
        """Return the part with more operators above its rows, if it has some."""
        return self if self.steps is None else replace(self, steps=(*self.steps, *steps))

    def rows(self) -> Plan:
        """Return the plan of the rows, over the dataset."""
        return stack(self.scan, self.steps or ())

    def plan(self, rows: Plan, over: Over, first_row: int = 0) -> Plan:
        """Return the plan of one task.

        Args:
            rows: Those of the shard.
            over: Returns the rows of the other datasets.
            first_row: How many rows the tasks before this one read from their shards.
        """

        def above(steps: Iterable[Plan]) -> Plan:
            bound = (bind_others(step, over) for step in steps)
            return stack(rows, (_sampled_from(step, first_row) for step in bound))

        branches = [] if self.steps is None else [above(self.steps)]
        branches += [
            WithColumn(above(steps), ((STATE, lit(number)),))
            for number, steps in enumerate(self.states)
        ]
        return branches[0] if len(branches) == 1 else Union(tuple(branches), by_name=True)

    def pruned(self) -> Part:
        """Return the part without the columns that no step reads."""
        branches = [*([] if self.steps is None else [self.steps]), *self.states]
        read = {name for steps in branches for name in _prune(steps, self.columns, self.schema)}
        columns = tuple(name for name in self.columns if name in read)
        return replace(self, scan=replace(self.scan, columns=columns))


@dataclass(frozen=True, slots=True)
class MergedState:
    """Rows that the merge makes of a state of all partials; they come after those of the shards.

    Args:
        source: Its input `ROWS` is the state.
        number: The state's.
        steps: The operators above, which are those of the parts.
    """

    source: Plan
    number: int = 0
    steps: tuple[Plan, ...] = ()

    def plan(self, states: Plan, over: Over) -> Plan:
        """Return the plan of the rows.

        Args:
            states: The states of all partials.
            over: Returns the rows of the datasets that the merge reads.
        """
        steps = (self.source, *self.steps)
        return stack(states, (bind_others(step, over) for step in steps))


@dataclass(frozen=True, slots=True)
class ShardRows:
    """The rows of a plan, as those of tasks and of the merge.

    Args:
        parts: The tasks, in the order of the rows.
        merged: Rows that come after them.
    """

    parts: tuple[Part, ...]
    merged: tuple[MergedState, ...] = field(default=())

    def adding(self, *steps: Plan) -> ShardRows:
        """Return the rows with more operators above them."""
        parts = tuple(part.adding(*steps) for part in self.parts)
        merged = tuple(replace(each, steps=(*each.steps, *steps)) for each in self.merged)
        return ShardRows(parts, merged)

    @property
    def is_merged_alone(self) -> bool:
        """Whether the tasks compute states alone, so that all rows are those of the merge."""
        return all(part.steps is None for part in self.parts)


def main_rows(partials: Plan, names: Sequence[str]) -> Plan:
    """Return the rows of the plan in partials that have states too."""
    rows = Filter(partials, Column(STATE).is_null())
    return Project(rows, tuple((name, Column(name)) for name in names))


def state_rows(partials: Plan, number: int) -> Plan:
    """Return the rows of one state in partials."""
    return Filter(partials, Column(STATE) == lit(number))


# Operators without their inputs


def stack(bottom: Plan, steps: Iterable[Plan]) -> Plan:
    """Return the operators stacked on `bottom`, in place of `ROWS` or of their first inputs."""
    top = bottom
    for step in steps:
        match step:
            case Join() if step.right is ROWS:
                top = replace(step, right=top)
            case Join():
                top = replace(step, left=top)
            case Union():
                top = replace(step, inputs=(top, *step.inputs[1:]))
            case Custom():
                top = replace(step, inputs=(top,))
            case _:
                top = cast("Plan", replace(cast("Any", step), input=top))
    return top


def other_inputs(step: Plan) -> tuple[Plan, ...]:
    """Return the inputs of an operator but the rows that it is stacked on."""
    if isinstance(step, Join) and step.right is ROWS:
        return (step.left,)
    return tuple(inputs_of(step)[1:])


def bind_others(step: Plan, over: Over) -> Plan:
    """Return an operator with the rows of datasets in all inputs but the rows below it."""
    match step:
        case Join() if step.right is ROWS:
            return replace(step, left=bind_scans(step.left, over))
        case Join():
            return replace(step, right=bind_scans(step.right, over))
        case Union():
            rest = (bind_scans(each, over) for each in step.inputs[1:])
            return replace(step, inputs=(step.inputs[0], *rest))
        case _:
            return step


def others_of(steps: Iterable[Plan]) -> tuple[DatasetRef, ...]:
    """Return the datasets in the other inputs of operators, without duplicates."""
    found = (ref for each in _others(steps) for ref in datasets_of(each))
    return tuple(dict.fromkeys(found))


def other_scans(steps: Iterable[Plan]) -> Iterator[Scan]:
    """Yield the scans in the other inputs of operators."""
    return (scan for each in _others(steps) for scan in scans_of(each))


def _others(steps: Iterable[Plan]) -> Iterator[Plan]:
    return (each for step in steps for each in other_inputs(step))


def datasets_of(plan: Plan) -> tuple[DatasetRef, ...]:
    """Return the datasets that a plan reads, without duplicates, from left to right."""
    found = (scan.source for scan in scans_of(plan))
    return tuple(dict.fromkeys(source for source in found if isinstance(source, DatasetRef)))


def bind_scans(plan: Plan, over: Over) -> Plan:
    """Return a plan with the rows of each dataset in place of its scan."""

    def bound(node: Plan) -> Plan:
        if isinstance(node, Scan) and isinstance(node.source, DatasetRef):
            return over(node, node.source)
        return node

    return rewrite(plan, bound)


def _sampled_from(step: Plan, first_row: int) -> Plan:
    """Return a sample whose rows are numbered from `first_row` on; other operators unchanged."""
    if not isinstance(step, Sample) or not first_row:
        return step
    return replace(step, first_row=step.first_row + first_row)


# Columns


def _prune(steps: Sequence[Plan], available: tuple[str, ...], schema: Schema) -> tuple[str, ...]:
    """Find the columns that the steps read, from the last step down to the scan."""
    needed: set[str] | None = None  # None: all columns of the input
    for step in reversed(steps):
        needed = _needed_below(step, needed)
    if needed is None:
        return available
    kept = tuple(name for name in available if name in needed)
    return kept or (_narrowest(available, schema),)


def _needed_below(  # noqa: C901 - a case for each operator
    step: Plan, needed: set[str] | None
) -> set[str] | None:
    match step:
        case Aggregate(keys=keys, aggs=aggs):
            return _columns([*(expr for _, expr in keys), *(agg for _, agg in aggs)])
        case Project(columns=columns):
            return _columns(expr for _, expr in columns)
        # All: a column that nobody reads still decides what a column of the other side is called; and a
        # function receives whole rows.
        case Join() | Custom():
            return None
    if needed is None:
        return None
    match step:
        case WithColumn(columns=columns):
            # Inputs of unused columns as well, because their expressions are still evaluated.
            made = {name for name, _ in columns}
            return (needed - made) | _columns(expr for _, expr in columns)
        case Filter(predicate=predicate):
            return needed | _columns([predicate])
        case Window():
            return (needed - {name for name, _ in step.functions}) | _read_by_window(step)
        case Expect(not_null=names):
            return needed | set(names)
        case Explode(column=column, as_name=as_name, position=position):
            # The list itself always: its length decides how many rows there are.
            return (needed - {as_name, position}) | {column}
        case Rename(names=names):
            # Looked up all at once, so names may be swapped. All old names are read: a rename of a
            # column that is not there is an error.
            old_name = {new: old for old, new in names}
            return {old_name.get(name, name) for name in needed} | {old for old, _ in names}
        # A Limit, TopK, Sort or Distinct can only be the last step at a shard, where `needed` is still
        # None: so the keys of a sort cannot be missing.
        case _:
            return needed


def _read_by_window(window: Window) -> set[str]:
    args = [call.arg for _, call in window.functions if call.arg is not None]
    return _columns([*window.partition_by, *(key.expr for key in window.order_by), *args])


def _columns(exprs: Iterable[Expr]) -> set[str]:
    return {name for expr in exprs for name in columns_of(expr)}


def _narrowest(names: tuple[str, ...], schema: Schema) -> str:
    """Return the narrowest column, to be read when only rows are counted."""
    # A scan without any column would have no rows to count.
    narrow = [n for n in names if not str(schema.field(n).type).startswith(_WIDE_TYPES)]
    return (narrow or list(names))[0]
