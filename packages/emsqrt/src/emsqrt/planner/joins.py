"""Choose how joins are carried out: merge if both sides are sorted, else hash."""

from __future__ import annotations

from dataclasses import dataclass

from emsqrt.choices import JoinChoice
from emsqrt.plan import Join
from emsqrt.planner.ordering import Order, merge_keys
from emsqrt.planner.work import NodeWork
from sennit_core.schema import Schema

BUILD_SLACK = 1.5
"""Estimates may be too low; partitions that prove too large are partitioned again."""
SMALLER = 2
"""The left side is built when its estimate is this many times smaller."""
SMALLER_IN_ORDER = 4
"""The same if the output must be sorted then."""
_KEY_SHARE = 0.25
"""Of a row's bytes; the size of a key that is copied in front of the row."""


@dataclass(frozen=True, slots=True)
class Sides:
    """The properties of a join's two inputs, left before right.

    Args:
        schemas: their columns.
        orders: the columns by which their rows are sorted.
    """

    schemas: tuple[Schema, Schema]
    orders: tuple[Order, Order]


def choose_join(node: Join, sides: Sides, work: NodeWork | None, *, seen: bool) -> JoinChoice:
    """Choose how a join is carried out.

    Args:
        node: the join.
        sides: of its inputs.
        work: an estimate, if there is one; it never changes the resulting rows.
        seen: whether the order of the join's rows is observable in the result.
    """
    merge = merge_keys(node, sides.orders, sides.schemas)
    if work is None:
        return JoinChoice(seen, merge)
    left, right = work.bytes_in
    smaller = SMALLER_IN_ORDER if seen else SMALLER
    # A cross join holds the right side in any case: its output is in the order of the left one.
    build_left = not merge and node.how != "cross" and left * smaller < right
    build_bytes = left if build_left else right
    return JoinChoice(seen, merge, int(build_bytes * (1 + _KEY_SHARE) * BUILD_SLACK), build_left)


def describe_join(node: Join, choice: JoinChoice) -> str:
    """Describe a choice in words."""
    if choice.merge:
        return f"merge, both sides sorted by {', '.join(choice.merge)}"
    side = "left" if choice.build_left else "right"
    way = f"nested loop, {side} side held" if node.how == "cross" else f"hash, build {side}"
    if not choice.ordered:
        return f"{way}, in any order"
    return f"{way}, sorted after" if choice.build_left else way
