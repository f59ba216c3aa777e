"""How joins are carried out: merged where both sides are sorted, else hashed, in order if it shows."""

from __future__ import annotations

from dataclasses import dataclass

from emsqrt.choices import JoinChoice
from emsqrt.plan import Join
from emsqrt.planner.ordering import Order, merge_keys
from emsqrt.planner.work import NodeWork
from sennit_core.schema import Schema

BUILD_SLACK = 1.5
"""An estimate may be too low; partitions that come out too large are cut again."""
_KEY_SHARE = 0.25
"""Of a row's bytes; a key that is copied in front of the row."""


@dataclass(frozen=True, slots=True)
class Sides:
    """What is known of a join's two inputs, left before right.

    Args:
        schemas: their columns.
        orders: by what their rows are sorted.
    """

    schemas: tuple[Schema, Schema]
    orders: tuple[Order, Order]


def choose_join(node: Join, sides: Sides, work: NodeWork | None, *, seen: bool) -> JoinChoice:
    """Choose how a join is carried out.

    Args:
        node: the join.
        sides: of its inputs.
        work: an estimate, if there is one; it never changes what comes out.
        seen: whether the order of the join's rows can be seen in the result.
    """
    build_bytes = None
    if work is not None:
        build_bytes = int(work.bytes_in[1] * (1 + _KEY_SHARE) * BUILD_SLACK)
    return JoinChoice(seen, merge_keys(node, sides.orders, sides.schemas), build_bytes)


def describe_join(node: Join, choice: JoinChoice) -> str:
    """Return a choice in words."""
    if choice.merge:
        return f"merge, both sides sorted by {', '.join(choice.merge)}"
    way = "nested loop, right side held" if node.how == "cross" else "hash, build right"
    return way if choice.ordered else f"{way}, in any order"
