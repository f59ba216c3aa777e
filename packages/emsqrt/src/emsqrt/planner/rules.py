"""The optimizer's rules: plain functions from plan to plan, applied in this order."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

from emsqrt.plan import Plan
from emsqrt.planner.columns import prune_columns
from emsqrt.planner.filters import push_down_filters
from emsqrt.planner.folding import fold_constants
from emsqrt.planner.fusing import fuse
from emsqrt.planner.join_order import order_joins
from emsqrt.planner.narrowing import narrow
from emsqrt.planner.ordering import drop_sorts
from emsqrt.planner.schemas import find_schema

Rule: TypeAlias = Callable[[Plan, Path], Plan]
"""Accepts a plan and the base folder of its relative paths."""

# The order matters:
#
# - most rules do nothing before the types of all columns are known;
# - `order_joins` compares inputs with their filters already pushed down;
# - it reorders joins below a sort only once `drop_sorts` has removed the sort;
# - columns are pruned and neighbours fused in the final shape.
RULES: tuple[Rule, ...] = (
    find_schema,
    fold_constants,
    push_down_filters,
    drop_sorts,
    order_joins,
    prune_columns,
    fuse,
)


TEXT_RULES: tuple[Rule, ...] = (
    find_schema,
    fold_constants,
    push_down_filters,
    drop_sorts,
    order_joins,
    narrow,
    fuse,
)
"""For plans that become text programs, where passed-on records keep their original bytes."""


def optimize(plan: Plan, folder: Path | None = None, rules: tuple[Rule, ...] = RULES) -> Plan:
    """Return a plan that produces the same rows with less work.

    Args:
        plan: any plan that `check` accepts once its schemas are known.
        folder: base of relative paths; the current folder when None.
        rules: `TEXT_RULES` for the text tier.
    """
    for rule in rules:
        plan = rule(plan, folder or Path())
    return plan
