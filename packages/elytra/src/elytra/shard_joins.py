"""Joins of shards with a small side, of which every task reads all rows.

A row of the result belongs to one row of the side with the shards, except for the rows of the small side
that match no row of any shard. Whether there are such is known of all shards together: each task's state is
the set of keys of the small side that match in its shard, and the merge compares the small side with these.

    small right side     rows of a task                  after them, by the merge
    inner left semi …    the join
    right                the inner join                  rows of the right side without a match
    full                 the left join                   the same

    small left side
    semi, anti           –                               the left side's rows with, without a match
    inner, cross         the join                        –
    right                the right join                  –
    left, full           the inner, the right join       rows of the left side without a match

Rows are in the order of the left side. If that is the small one, its rows are numbered, and the tasks'
rows are merged by the numbers, unless nothing above depends on the order.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

from elytra.shard_parts import ROWS, STATE, MergedState, ShardRows, datasets_of
from emsqrt.expr import Cast, Column, Expr, lit
from emsqrt.plan import (
    DatasetRef,
    Distinct,
    Join,
    JoinKind,
    Plan,
    Project,
    Sort,
    SortKey,
    Window,
    WindowCall,
    check,
)
from emsqrt.plan.joining import right_names, shared_keys
from sennit_core.units import format_bytes

__all__ = [
    "BROADCAST_BYTES_MAX",
    "DatasetSize",
    "KeyRanges",
    "Rules",
    "is_small",
    "joined_by_all",
    "joined_with_all",
    "ordered_by_left",
    "why_not_read_by_all",
]

BROADCAST_BYTES_MAX = 16 << 20
"""Stored bytes of the side of a join that every task reads: a quarter of a large shard."""
_REPEATED_BYTES = 64 << 20
"""All tasks together may read so much more by it, or as much as the other side has, if that is more."""
_REPEATED_FILES = 10_000
"""All tasks together may open so many files by it."""
_LEFT = "$left"
"""The number of a row of a small left side."""
_AT_SHARD_OF_LEFT: dict[JoinKind, JoinKind] = {"right": "inner", "full": "left"}
_AT_SHARD_OF_RIGHT: dict[JoinKind, JoinKind] = {"left": "inner", "full": "right"}
"""The join of a shard, where it is another one than that of the plan."""


KeyRanges: TypeAlias = Literal["ascending", "disjoint"]
"""Each value of a column is in one shard: shards are in the order of their values, or in another one."""


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
        ranges_of: Returns how the values of a dataset's column are spread over its shards; None if two
            shards may share one.
        shuffles: Whether the backend sorts and joins the shards of one task on all of its workers: a
            sort, or a join of large sides, is then left to it.
    """

    size_of: Callable[[DatasetRef], DatasetSize | None] = lambda _: None
    ranges_of: Callable[[DatasetRef, str], KeyRanges | None] = lambda _, __: None
    shuffles: bool = False


def why_not_read_by_all(small: Plan, side: str, rows: ShardRows, rules: Rules) -> str | None:
    """Return why not every task can read all rows of one side of a join; None if each can.

    Args:
        small: That side.
        side: Which one it is.
        rows: The other side.
        rules: The sizes.
    """
    repeated = [rules.size_of(ref) for ref in datasets_of(small)]
    shards = [rules.size_of(part.source) for part in rows.parts]
    if None in repeated or None in shards:
        return "a join reads several inputs, and the size of one is not known"
    small_bytes = sum(size.bytes for size in repeated if size is not None)
    tasks = sum(size.shards for size in shards if size is not None)
    other_bytes = sum(size.bytes for size in shards if size is not None)
    if small_bytes > BROADCAST_BYTES_MAX or small_bytes * tasks > max(other_bytes, _REPEATED_BYTES):
        return (
            f"the {side} side of a join has {format_bytes(small_bytes)}, too many for each of"
            f" {tasks} tasks to read"
        )
    files = sum(size.shards for size in repeated if size is not None)
    if files * tasks > _REPEATED_FILES:
        return (
            f"the {side} side of a join has {files} shards, too many for each of {tasks} tasks"
            " to open"
        )
    return None


def is_small(plan: Plan, rules: Rules) -> bool:
    """Return whether few enough bytes are read for a plan that each of some tasks may read them."""
    sizes = [rules.size_of(ref) for ref in datasets_of(plan)]
    return None not in sizes and sum(each.bytes for each in sizes if each) <= BROADCAST_BYTES_MAX


def joined_with_all(rows: ShardRows, join: Join, rules: Rules) -> ShardRows | str:
    """Return the rows of a join of shards with a right side that every task reads; or why not.

    Args:
        rows: The left side.
        join: The join.
        rules: What is allowed.
    """
    at_shard = _AT_SHARD_OF_LEFT.get(join.how)
    if at_shard is None:
        return rows.adding(join)
    if (reason := _why_no_state(rows, join, rules)) is not None:
        return reason
    keys = [other for _, other in join.on]
    state = _matched_keys(join.right, keys, [one for one, _ in join.on])
    parts = tuple(replace(part, states=((*(part.steps or ()), *state),)) for part in rows.parts)
    joined = ShardRows(parts).adding(*_with_columns(replace(join, how=at_shard), join))
    return replace(joined, merged=(_unmatched(join, join.right, keys, _right_columns(join)),))


def joined_by_all(
    rows: ShardRows, join: Join, rules: Rules, *, is_ordered: bool
) -> ShardRows | str:
    """Return the rows of a join of a left side that every task reads with shards; or why not.

    Args:
        rows: The right side.
        join: The join.
        rules: What is allowed.
        is_ordered: Whether the rows must be in order: they then have the number of the left side's
            row, for `ordered_by_left`.
    """
    if (reason := _why_no_state(rows, join, rules)) is not None:
        return reason
    keys = [one for one, _ in join.on]
    state = _matched_keys(join.left, keys, [other for _, other in join.on])
    stated = tuple(replace(part, states=((*(part.steps or ()), *state),)) for part in rows.parts)
    if join.how in ("semi", "anti"):
        matched = Join(
            join.left, ROWS, tuple((key, _key(at)) for at, key in enumerate(keys)), join.how
        )
        return ShardRows(
            tuple(replace(part, steps=None) for part in stated), (MergedState(matched),)
        )
    if is_ordered:
        number = WindowCall("row_number")
        join = replace(join, left=Window(join.left, (), (), ((_LEFT, number),)))
    keeps_left = join.how in _AT_SHARD_OF_RIGHT
    at_shard = replace(join, how=_AT_SHARD_OF_RIGHT.get(join.how, join.how))
    joined = ShardRows(stated if keeps_left else rows.parts)
    steps = _with_columns(at_shard, join)
    joined = joined.adding(replace(at_shard, right=ROWS), *steps[1:])
    if not keeps_left:
        return joined
    return replace(joined, merged=(_unmatched(join, join.left, keys, _left_columns(join)),))


def ordered_by_left(join: Join, merged: tuple[MergedState, ...]) -> tuple[Plan, ...]:
    """Return the first steps of the merge, which put numbered rows in order and drop the numbers."""
    # Rows without a left row have no number, and come last; they are in the order of the shards.
    by_number = SortKey(Column(_LEFT), nulls_first=False)
    order = Sort(ROWS, (by_number,), merge=not merged)
    return order, Project(ROWS, tuple((name, Column(name)) for name in check(join).names))


def _why_no_state(rows: ShardRows, join: Join, rules: Rules) -> str | None:
    names = [name for each in (join, join.left, join.right) for name in check(each).names]
    if rules.shuffles:
        return f"the workers exchange the rows of a {join.how} join"
    if rows.merged:
        return "two joins add rows that match no row of any shard"
    if any(name in (_LEFT, STATE) or name.startswith(_key("")) for name in names):
        return f"a column is called as one of those that a split {join.how} join adds"
    return None


def _matched_keys(small: Plan, keys: Sequence[str], others: Sequence[str]) -> tuple[Plan, ...]:
    """Return the steps above a shard's rows that find the keys of the small side which match.

    They come in the small side's types: equal ones of these are equal in the type of the comparison too.

    Args:
        small: The small side.
        keys: Its keys.
        others: Those of the shard's rows.
    """
    own = [f"$other{at}" for at in range(len(others))]
    names = [_key(at) for at in range(len(keys))]
    known = Distinct(Project(small, _renamed(names, keys)))
    return (
        Project(ROWS, _renamed(own, others)),
        Join(ROWS, known, tuple(zip(own, names, strict=True)), "inner"),
        Project(ROWS, _renamed(names, names)),
        Distinct(ROWS),
    )


def _unmatched(
    join: Join, small: Plan, keys: Sequence[str], columns: dict[str, str]
) -> MergedState:
    """Return the rows of the small side that match no row, with the columns of the join.

    Args:
        join: The join.
        small: Its small side.
        keys: The keys of that side.
        columns: For columns of the result those of the small side.
    """
    pairs = tuple((key, _key(at)) for at, key in enumerate(keys))
    own = check(small)
    made: list[tuple[str, Expr]] = []
    for to in check(join):
        name = columns.get(to.name)
        column: Expr = lit(None) if name is None else Column(name)
        same = name is not None and own.field(name).type == to.type
        made.append((to.name, column if same else Cast(column, to.type)))
    return MergedState(Join(small, ROWS, pairs, "anti"), steps=(Project(ROWS, tuple(made)),))


def _with_columns(at_shard: Join, join: Join) -> tuple[Plan, ...]:
    """Return a join of a shard, with the types of the whole join."""
    found, wanted = check(at_shard), check(join)
    made = [
        (to.name, Column(to.name) if of.type == to.type else Cast(Column(to.name), to.type))
        for of, to in zip(found, wanted, strict=True)
    ]
    same = all(of.type == to.type for of, to in zip(found, wanted, strict=True))
    return (at_shard,) if same else (at_shard, Project(ROWS, tuple(made)))


def _right_columns(join: Join) -> dict[str, str]:
    names = right_names(join, check(join.left), check(join.right))
    return {new: old for old, new in names.items()} | {key: key for key in shared_keys(join)}


def _left_columns(join: Join) -> dict[str, str]:
    return {name: name for name in check(join.left).names}


def _renamed(names: Sequence[str], columns: Sequence[str]) -> tuple[tuple[str, Expr], ...]:
    return tuple((name, Column(column)) for name, column in zip(names, columns, strict=True))


def _key(at: object) -> str:
    return f"$key{at}"
