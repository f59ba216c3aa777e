"""emsqrt.planner: from the submitted plan to the physical plan.

Layering: `emsqrt.plan` <- schemas, substitution <- columns, filters, folding, fusing, ordering;
distinct, sampling <- statistics <- selectivity <- work <- regions, join_order,
narrowing <- rules, physical.
Standard library only; modules that look at Parquet files import their reader when they do.
"""

from emsqrt.planner.columns import prune_columns
from emsqrt.planner.filters import push_down_filters
from emsqrt.planner.folding import fold_constants
from emsqrt.planner.fusing import fuse
from emsqrt.planner.join_order import order_joins
from emsqrt.planner.narrowing import narrow
from emsqrt.planner.ordering import drop_sorts, order_seen, orders_of
from emsqrt.planner.physical import (
    PhysicalNode,
    PhysicalPlan,
    PhysicalProgram,
    lower_to_physical,
)
from emsqrt.planner.rules import RULES, TEXT_RULES, Rule, optimize
from emsqrt.planner.schemas import find_schema, scan_of, schemas_of
from emsqrt.planner.statistics import ColumnStats, SourceStats, measure_source
from emsqrt.planner.work import NodeWork, Work, estimate_work

__all__ = [
    "RULES",
    "TEXT_RULES",
    "ColumnStats",
    "NodeWork",
    "PhysicalNode",
    "PhysicalPlan",
    "PhysicalProgram",
    "Rule",
    "SourceStats",
    "Work",
    "drop_sorts",
    "estimate_work",
    "find_schema",
    "fold_constants",
    "fuse",
    "lower_to_physical",
    "measure_source",
    "narrow",
    "optimize",
    "order_joins",
    "order_seen",
    "orders_of",
    "prune_columns",
    "push_down_filters",
    "scan_of",
    "schemas_of",
]
