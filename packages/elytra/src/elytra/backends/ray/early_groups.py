"""Group rows before a join with a small side, as pure functions of plans: "eager aggregation".

    Aggregate(Join(rows, small), by a column of small)
    = final(Project(Join(partial(rows, by the key of the join), small)), by a column of small)

A row of `rows` counts once for each row of the small side that it matches, and so does the state of all
rows with one key. So the states are exact where they merge in any order. A worker then joins as many rows as
there are keys. Yan, Larson: "Eager Aggregation and Lazy Aggregation", VLDB 1995.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from elytra.backends.ray.partitions import TYPES
from elytra.backends.ray.shuffle_plan import EACH_ROW
from emsqrt.expr import Agg, Expr, col
from emsqrt.expr.check import bind, infer
from emsqrt.expr.walk import columns_of
from emsqrt.plan import Aggregate, Filter, Join, Plan, Project, Scan, check, partial_schema, walk
from emsqrt.plan.joining import right_names
from emsqrt.planner.substitution import substitute
from sennit_core.schema import DataType, Schema

__all__ = ["EarlyGroups", "early_groups"]

_IN_ANY_ORDER = frozenset(
    ("count", "sum", "avg", "min", "max", "var", "stddev", "approx_count_distinct")
)
"""Functions whose states merge in any order; not `first` and `last`."""
_KEY_TYPES = TYPES - {"Float32", "Float64"}
"""Of join keys; a group of 0.0 also has -0.0, and a state of both would have one of them as its key."""
_DIGITS_MAX = 18
"""Sums of decimals of more digits could exceed 38, for rows that the join would leave out."""


@dataclass(frozen=True, slots=True)
class EarlyGroups:
    """A group-by over a join, as states that the join reads.

    Args:
        partial: The states of the left side's rows, by the keys of the join.
        join: The join, whose left side is `partial`.
        states: The keys and states of the group-by, in terms of the join's columns.
    """

    partial: Aggregate
    join: Join
    states: tuple[tuple[str, Expr], ...]

    def over(self, left: Plan, right: Plan) -> Plan:
        """Return the states of the group-by for some rows of the left side.

        Args:
            left: These rows.
            right: All rows of the right side.
        """
        joined = replace(self.join, left=replace(self.partial, input=left), right=right)
        return Project(joined, self.states)


def early_groups(plan: Aggregate) -> EarlyGroups | None:
    """Return how the left side of a join is grouped before the join; None if rows could differ.

    Args:
        plan: A group-by of phase full.
    """
    join = plan.input
    if not isinstance(join, Join) or join.how != "inner" or not _is_each_row(join.right):
        return None
    left, right = check(join.left), check(join.right)
    by_key = tuple((name, col(name)) for name in dict.fromkeys(name for name, _ in join.on))
    if not all(left.field(name).type.name in _KEY_TYPES for name, _ in by_key):
        return None
    if not all(_is_exact(agg, left) for _, agg in plan.aggs):
        return None
    partial = replace(plan, input=join.left, keys=by_key, phase="partial")
    states = partial_schema(partial, left)
    names = states.names[len(by_key) :]
    if any(name in right for name in names):
        return None
    joined = replace(join, left=partial)
    before, after = right_names(join, left, right), right_names(joined, states, right)
    readable = {name: col(name) for name, _ in by_key}
    readable |= {before[name]: col(after[name]) for name in before}
    if not all(columns_of(key) <= readable.keys() for _, key in plan.keys):
        return None
    keys = tuple((name, substitute(key, readable)) for name, key in plan.keys)
    return EarlyGroups(partial, joined, (*keys, *((name, col(name)) for name in names)))


def _is_each_row(plan: Plan) -> bool:
    """Whether a side has all rows of its files.

    Without a filter, most keys of the other side match: its states have about as many rows as this side.
    """
    return all(
        isinstance(node, (Scan, *EACH_ROW)) and not isinstance(node, Filter) for node in walk(plan)
    )


def _is_exact(agg: Expr, left: Schema) -> bool:
    """Whether an aggregate has the same result from states of rows that the join may leave out."""
    if not isinstance(agg, Agg) or agg.distinct or agg.fn not in _IN_ANY_ORDER:
        return False
    if agg.arg is None:
        return True
    if not all(name in left for name in columns_of(agg.arg)) or bind(agg.arg, left).fallible:
        return False
    kind: DataType = infer(agg.arg, left)
    return kind.name != "Decimal" or (kind.precision or 0) <= _DIGITS_MAX
