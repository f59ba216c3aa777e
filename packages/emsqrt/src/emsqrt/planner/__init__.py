"""emsqrt.planner: from the plan as submitted to the plan as carried out.

Layering: `emsqrt.plan` <- schemas, substitution <- columns, filters, folding, fusing, ordering;
distinct, sampling <- statistics <- selectivity <- work <- regions, join_order,
narrowing <- rules, physical.
Standard library only; what looks at Parquet files loads their reader when it does.
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
