"""emsqrt.planner: from the plan as submitted to the plan as carried out.

Layering: `emsqrt.plan` <- schemas, substitution <- columns, filters, folding, fusing <- rules.
Standard library only; `find_schema` loads a file format's reader when a scan has no schema.
"""

from emsqrt.planner.columns import prune_columns
from emsqrt.planner.filters import push_down_filters
from emsqrt.planner.folding import fold_constants
from emsqrt.planner.fusing import fuse
from emsqrt.planner.rules import RULES, Rule, optimize
from emsqrt.planner.schemas import find_schema, scan_of, schemas_of

__all__ = [
    "RULES",
    "Rule",
    "find_schema",
    "fold_constants",
    "fuse",
    "optimize",
    "prune_columns",
    "push_down_filters",
    "scan_of",
    "schemas_of",
]
