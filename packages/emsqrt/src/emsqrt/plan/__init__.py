"""emsqrt.plan: the plan tree, its JSON, its hash, its types.

Layering: `emsqrt.expr` <- nodes <- tree <- states (partial aggregates), window, joining <- reading,
writing <- wire (JSON) <- check (types). Standard library only: a client that submits or splits a
plan never imports an engine.
"""

from emsqrt.expr import SortKey
from emsqrt.expr.errors import BadPlan
from emsqrt.plan.check import check, node_schema, partial_schema
from emsqrt.plan.explain import explain
from emsqrt.plan.joining import join_key_types
from emsqrt.plan.nodes import (
    Aggregate,
    Custom,
    DatasetRef,
    Distinct,
    Expect,
    Explode,
    Files,
    FileTarget,
    Filter,
    Join,
    JoinKind,
    Limit,
    Plan,
    Project,
    Rename,
    Sample,
    Scan,
    Sink,
    Sort,
    StreamTarget,
    TopK,
    Union,
    WithColumn,
)
from emsqrt.plan.spelling import sort_key, window_call
from emsqrt.plan.tree import chain, input_of, inputs_of, rewrite, scans_of, walk, with_inputs
from emsqrt.plan.window import Frame, Window, WindowCall
from emsqrt.plan.wire import canonical_plan, plan_from_json, plan_hash, plan_to_json

__all__ = [
    "Aggregate",
    "BadPlan",
    "Custom",
    "DatasetRef",
    "Distinct",
    "Expect",
    "Explode",
    "FileTarget",
    "Files",
    "Filter",
    "Frame",
    "Join",
    "JoinKind",
    "Limit",
    "Plan",
    "Project",
    "Rename",
    "Sample",
    "Scan",
    "Sink",
    "Sort",
    "SortKey",
    "StreamTarget",
    "TopK",
    "Union",
    "Window",
    "WindowCall",
    "WithColumn",
    "canonical_plan",
    "chain",
    "check",
    "explain",
    "input_of",
    "inputs_of",
    "join_key_types",
    "node_schema",
    "partial_schema",
    "plan_from_json",
    "plan_hash",
    "plan_to_json",
    "rewrite",
    "scans_of",
    "sort_key",
    "walk",
    "window_call",
    "with_inputs",
]
