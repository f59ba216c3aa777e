"""What of a plan runs at each shard of the datasets that it reads: the part of `splitter` below the cut.

Rows of an operator of one row come from one shard each, so it runs at the shards. So do:

    a union                 the shards of its inputs, one input after the other
    a join, if its right    each shard of the left side with the whole right side: a row of the result
    side is small           belongs to one row of the left side, and comes in its order
    a sample by fraction    it depends on the number of a row alone, which the manifests tell
    an expectation          that no column has a NULL
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias, cast

from elytra.functions.step import FunctionStep, is_function
from emsqrt.expr import Cast, Column, Expr, columns_of, lit
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
    WithColumn,
    check,
    inputs_of,
    rewrite,
    scans_of,
)
from emsqrt.plan.joining import union_schema
from sennit_core.schema import Field, Schema
from sennit_core.units import format_bytes

__all__ = [
    "BROADCAST_BYTES_MAX",
    "DatasetSize",
    "Part",
    "Rules",
    "bind_scans",
    "datasets_of",
    "parts_of",
    "stack",
    "verb",
    "with_step",
]

BROADCAST_BYTES_MAX = 16 << 20
"""Stored bytes of the right side of a join that every task reads: a quarter of a large shard."""
_REPEATED_BYTES = 64 << 20
"""All tasks together may read so much more by it, or as much as the left side has, if that is more."""
_REPEATED_FILES = 10_000
"""All tasks together may open so many files by it."""

# Their result for a row does not depend on other rows, so it is the same at any shard.
_EACH_ROW = (Filter, Project, Rename, WithColumn, Explode)
"""Operators that process one row at a time."""
_ONE_TO_ONE = (Project, Rename, WithColumn, Expect)
"""Operators with a row for each row of the input, so that its number is known."""
_LEFT_JOINS = ("inner", "left", "semi", "anti", "cross")
"""Joins whose rows each belong to one row of the left side."""
_WIDE_TYPES = ("Utf8", "Binary", "List", "Struct", "Decimal")

Over: TypeAlias = Callable[[Scan, DatasetRef], Plan]
"""Returns the rows of a dataset, in place of its scan."""


@dataclass(frozen=True, slots=True)
class DatasetSize:
    """How large a dataset is.

    Args:
        shards: How many.
        bytes: Of all, as they are stored.
    """

    shards: int
    bytes: int


@dataclass(frozen=True, slots=True)
class Rules:
    """What a split may do.

    Args:
        size_of: Returns the size of a dataset; None if it is not known, as of a view.
        shuffles: Whether the backend sorts and joins the shards of one task on all of its workers: a
            sort, or a join of large sides, is then left to it.
    """

    size_of: Callable[[DatasetRef], DatasetSize | None] = lambda _: None
    shuffles: bool = False


@dataclass(frozen=True, slots=True)
class Part:
    """What runs at each shard of one dataset.

    Args:
        scan: Reads the shard; its source is the dataset.
        steps: The operators above it, from the first to the last. Of joins and unions all inputs but the
            first are plans over whole datasets.
    """

    scan: Scan
    steps: tuple[Plan, ...] = field(default=())

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
    def others(self) -> tuple[DatasetRef, ...]:
        """The datasets of which every task reads all shards."""
        return others_of(self.steps)

    def plan(self, rows: Plan, over: Over, first_row: int = 0) -> Plan:
        """Return the plan of one task.

        Args:
            rows: Those of the shard.
            over: Returns the rows of the other datasets.
            first_row: How many rows the tasks before this one read from their shards.
        """
        steps = (bind_others(step, over) for step in self.steps)
        return stack(rows, (_sampled_from(step, first_row) for step in steps))

    def pruned(self) -> Part:
        """Return the part without the columns that no step reads."""
        columns = _prune(self.steps, self.columns, self.schema)
        return replace(self, scan=replace(self.scan, columns=columns))


def parts_of(plan: Plan, rules: Rules) -> tuple[Part, ...] | str:
    """Return what runs at which shards, so that the rows of the tasks, in order, are those of the plan.

    Args:
        plan: A typed plan.
        rules: What is allowed.

    Returns:
        The parts; or why there are none.
    """
    spine = spine_of(plan)
    parts: tuple[Part, ...] | str = (Part(cast("Scan", spine[0])),)
    for step in spine[1:]:
        if isinstance(parts, str):
            break
        parts = with_step(parts, step, rules)
    return parts


def spine_of(plan: Plan) -> list[Plan]:
    """Return the nodes from the first scan of a plan up to its last operator."""
    nodes = [plan]
    while below := inputs_of(nodes[-1]):
        nodes.append(below[0])
    return nodes[::-1]


def with_step(parts: tuple[Part, ...], step: Plan, rules: Rules) -> tuple[Part, ...] | str:
    """Return the parts with one more operator; or why it cannot run at the shards."""
    match step:
        case Union():
            return _united(parts, step, rules)
        case Join() if (reason := _why_not_joined(parts, step, rules)) is not None:
            return reason
        case Sample(fraction=None):
            return "a sample of a number of rows needs all rows in one place"
        case Sample() if not all(_is_numbered(part) for part in parts):
            return "a sample needs the numbers of the rows, which the operators below it change"
        case Expect() if step.unique or step.rows is not None:
            return "an expectation of all rows together needs them in one place"
        case Join() | Sample() | Expect():
            pass
        case _ if not _is_of_each_row(step):
            return f"{verb(step)} needs all rows in one place"
    return tuple(replace(part, steps=(*part.steps, step)) for part in parts)


def _is_of_each_row(step: Plan) -> bool:
    if is_function(step):
        return FunctionStep.from_json(step.options).is_of_each_row
    return isinstance(step, _EACH_ROW)


def verb(step: Plan) -> str:
    """Return an operator in words."""
    if is_function(step):
        return f"the function of {step.options.get('label')}"
    name = type(step).__name__.lower()
    return f"{'an' if name[0] in 'aeio' else 'a'} {name}"


def stack(bottom: Plan, steps: Iterable[Plan]) -> Plan:
    """Return the operators stacked on `bottom`, in place of their previous first inputs."""
    top = bottom
    for step in steps:
        match step:
            case Join():
                top = replace(step, left=top)
            case Union():
                top = replace(step, inputs=(top, *step.inputs[1:]))
            case Custom():
                top = replace(step, inputs=(top,))
            case _:
                top = cast("Plan", replace(cast("Any", step), input=top))
    return top


def bind_others(step: Plan, over: Over) -> Plan:
    """Return an operator with the rows of datasets in all of its inputs but the first."""
    match step:
        case Join():
            return replace(step, right=bind_scans(step.right, over))
        case Union():
            rest = (bind_scans(each, over) for each in step.inputs[1:])
            return replace(step, inputs=(step.inputs[0], *rest))
        case _:
            return step


def others_of(steps: Iterable[Plan]) -> tuple[DatasetRef, ...]:
    """Return the datasets in all inputs of operators but the first, without duplicates."""
    inputs = (each for step in steps for each in inputs_of(step)[1:])
    return tuple(dict.fromkeys(ref for each in inputs for ref in datasets_of(each)))


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


# Unions


def _united(parts: tuple[Part, ...], union: Union, rules: Rules) -> tuple[Part, ...] | str:
    schemas = [check(each) for each in union.inputs]
    schema = union_schema(union, schemas)
    found: list[Part] = []
    for place, (each, own) in enumerate(zip(union.inputs, schemas, strict=True)):
        rows = parts_of(each, rules) if place else parts
        if isinstance(rows, str):
            return f"an input of a union cannot be split ({rows})"
        # As `emsqrt.operators.streams.UnionRows`: names of the union, and one type.
        step = Project(each, tuple(_column(union, own, at, to) for at, to in enumerate(schema)))
        same = own == schema
        found += [part if same else replace(part, steps=(*part.steps, step)) for part in rows]
    return tuple(found)


def _column(union: Union, own: Schema, at: int, to: Field) -> tuple[str, Expr]:
    if union.by_name and to.name not in own:
        return to.name, Cast(lit(None), to.type)
    source = own.field(to.name) if union.by_name else own.fields[at]
    column = Column(source.name)
    return to.name, column if source.type == to.type else Cast(column, to.type)


# Joins


def _why_not_joined(parts: tuple[Part, ...], join: Join, rules: Rules) -> str | None:
    """Return why not every task can join its shard with the whole right side; None if it can."""
    if join.how not in _LEFT_JOINS:
        return f"a {join.how} join returns rows of its right side that match no row of any shard"
    rights = [rules.size_of(ref) for ref in datasets_of(join.right)]
    lefts = [rules.size_of(part.source) for part in parts]
    if None in rights or None in lefts:
        return "a join reads several inputs, and the size of one is not known"
    right = sum(size.bytes for size in rights if size is not None)
    tasks = sum(size.shards for size in lefts if size is not None)
    left = sum(size.bytes for size in lefts if size is not None)
    if right > BROADCAST_BYTES_MAX or right * tasks > max(left, _REPEATED_BYTES):
        return (
            f"the right side of a join has {format_bytes(right)}, too many for each of {tasks} tasks"
            " to read"
        )
    files = sum(size.shards for size in rights if size is not None)
    if files * tasks > _REPEATED_FILES:
        return f"the right side of a join has {files} shards, too many for each of {tasks} tasks to open"
    return None


# Samples


def _is_numbered(part: Part) -> bool:
    return all(isinstance(step, _ONE_TO_ONE) for step in part.steps)


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


def _needed_below(step: Plan, needed: set[str] | None) -> set[str] | None:
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


def _columns(exprs: Iterable[Expr]) -> set[str]:
    return {name for expr in exprs for name in columns_of(expr)}


def _narrowest(names: tuple[str, ...], schema: Schema) -> str:
    """Return the narrowest column, to be read when only rows are counted."""
    # A scan without any column would have no rows to count.
    narrow = [n for n in names if not str(schema.field(n).type).startswith(_WIDE_TYPES)]
    return (narrow or list(names))[0]
