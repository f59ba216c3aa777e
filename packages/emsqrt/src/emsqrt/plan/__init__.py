"""emsqrt.plan: the plan tree, its JSON, its hash, its types.

Layering: `emsqrt.expr` <- nodes <- reading, wire (JSON) <- states (partial aggregates) <- check
(types). Standard library only: whoever submits or splits a plan never loads an engine.
"""

from emsqrt.expr.errors import BadPlan
from emsqrt.plan.check import check, partial_schema
from emsqrt.plan.explain import explain
from emsqrt.plan.nodes import (
    Aggregate,
    DatasetRef,
    Files,
    FileTarget,
    Filter,
    Limit,
    Plan,
    Project,
    Rename,
    Scan,
    Sink,
    StreamTarget,
    WithColumn,
    chain,
    input_of,
)
from emsqrt.plan.wire import canonical_plan, plan_from_json, plan_hash, plan_to_json

__all__ = [
    "Aggregate",
    "BadPlan",
    "DatasetRef",
    "FileTarget",
    "Files",
    "Filter",
    "Limit",
    "Plan",
    "Project",
    "Rename",
    "Scan",
    "Sink",
    "StreamTarget",
    "WithColumn",
    "canonical_plan",
    "chain",
    "check",
    "explain",
    "input_of",
    "partial_schema",
    "plan_from_json",
    "plan_hash",
    "plan_to_json",
]
