"""What a text program carries beside its steps: the plan, its schedule, who holds memory when.

Worked out by the process that asks; the lean child only shares out what memory it measures.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from emsqrt.io.places import folder_of_work
from emsqrt.plan import Plan, Scan, Sink, plan_hash, plan_to_json, walk, with_inputs
from emsqrt.plan.tree import fold
from emsqrt.planner import estimate_work, lower_to_physical
from emsqrt.te import plan_te
from emsqrt.te.grants import sharing_of
from sennit_core.errors import CapTooSmall
from sennit_core.schema import DataType, Field, Schema


def facts_of(plan: Plan, program: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Return what is added to a program: plan, hash, operators, choices, sharing.

    Args:
        plan: as it was submitted.
        program: its steps; each says its node.
        folder: where relative paths start.
    """
    typed = _with_schemas(plan, program)
    work = estimate_work(typed, None, folder)
    physical = lower_to_physical(typed, work, "thin").plan
    return {
        "plan": plan_to_json(plan),
        "planHash": plan_hash(plan),
        "folder": str(folder_of_work(folder)),
        "operators": [[node.operator, list(node.inputs)] for node in physical.nodes],
        "choices": [[n.id, n.choice.to_json()] for n in physical.nodes if n.choice is not None],
        "sharing": sharing_of(physical, work).to_json(),
    }


def scheduled(plan: Plan, program: Mapping[str, Any], cap_bytes: int, folder: Path) -> Any:
    """Return a program with its schedule for a cap, as JSON; None in its place when none fits.

    What the process takes by itself is an estimate here; the child measures it.
    """
    typed = _with_schemas(plan, program)
    work = estimate_work(typed, None, folder)
    physical = lower_to_physical(typed, work, "thin").plan
    try:
        schedule = plan_te(physical, work, cap_bytes).to_json()
    except CapTooSmall:  # the child measures, and knows better
        schedule = None
    return {**program, "schedule": schedule}


def _with_schemas(plan: Plan, program: Mapping[str, Any]) -> Plan:
    """Give scans the columns that the program found in their files."""
    fields = {
        step["node"]: Schema(tuple(Field(name, DataType.parse(of)) for name, of in step["fields"]))
        for step in program["steps"]
        if step["op"] == "scan"
    }
    assert isinstance(plan, Sink), "a program has a sink"
    places = iter(range(len(list(walk(plan)))))

    def visit(node: Plan, inputs: tuple[Plan, ...]) -> Plan:
        place = next(places)
        if isinstance(node, Scan):
            return replace(node, schema=fields[place])
        return with_inputs(node, inputs)

    return fold(plan, visit)
