"""Parts of a text program apart from its steps: the plan, its schedule, its memory holders.

The calling process computes them; the small child only divides the memory that it measures.
"""

from __future__ import annotations

import mmap
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from emsqrt.external.aggregate_state import StateOp
from emsqrt.io.locations import folder_of_work
from emsqrt.plan import Plan, Scan, Sink, plan_hash, plan_to_json, walk, with_inputs
from emsqrt.plan.nodes import Aggregate, Distinct, Join
from emsqrt.plan.tree import fold
from emsqrt.planner import Work, estimate_work, lower_to_physical
from emsqrt.planner.sampling import SAMPLE_BYTES, SMALL_SAMPLE_BYTES
from emsqrt.te import TeOptions, plan_te
from emsqrt.te.grants import grant_plan_of
from sennit_core.errors import CapTooSmall
from sennit_core.schema import DataType, Field, Schema

# Aggregates with more states or columns may need more than the common minimum.
_FEW = 32


class TextProgram(dict[str, Any]):
    """A text program; the small child receives its JSON, and its schedule is derived from the rest.

    Args:
        steps: the result of `emsqrt.text_engine.compile.compile_text`.
        plan: as it was submitted.
        carried_out: the plan that the steps run, with the schemas of its scans.
        folder: base of relative paths.
    """

    def __init__(
        self, steps: Mapping[str, Any], plan: Plan, carried_out: Plan, folder: Path
    ) -> None:
        self.work = _estimated(carried_out, folder)
        self.physical = lower_to_physical(carried_out, self.work, "text").plan
        nodes = self.physical.nodes
        super().__init__(
            steps,
            plan=plan_to_json(plan),
            planHash=plan_hash(plan),
            folder=str(folder_of_work(folder)),
            operators=[[node.operator, list(node.inputs)] for node in nodes],
            choices=[[n.id, n.choice.to_json()] for n in nodes if n.choice is not None],
            grantPlan=grant_plan_of(self.physical, self.work).to_json(),
        )

    def scheduled(self, cap_bytes: int) -> dict[str, Any]:
        """Return the program with its schedule for a cap, or with None when no schedule fits.

        The memory of the process itself is an estimate here; the child measures it.
        """
        options = TeOptions(minimums=minimums_of(self["steps"]))
        try:
            schedule = plan_te(self.physical, self.work, cap_bytes, options).to_json()
        except CapTooSmall:  # the child measures its memory and decides
            schedule = None
        return {**self, "schedule": schedule}


def minimums_of(steps: Sequence[Mapping[str, Any]]) -> dict[int, int]:
    """Return the minimum memory of operators that need more than the common minimum, by node."""
    minimums: dict[int, int] = {}
    for step in steps:
        if step["op"] == "aggregate" and _is_large(step):
            from emsqrt.text_engine.aggregate import bytes_min

            minimums[step["node"]] = -(-bytes_min(step) // mmap.PAGESIZE) * mmap.PAGESIZE
    return minimums


def _is_large(step: Mapping[str, Any]) -> bool:
    """Return whether an aggregate sorts values, or has many states or sketches."""
    sketches = sum(op in (StateOp.SKETCH, StateOp.SKETCH_MERGE) for op, *_ in step["parts"])
    many = len(step["parts"]) + len(step["reads"]) > _FEW
    return bool(step["values"]) or many or sketches > _FEW // 8


def _estimated(plan: Plan, folder: Path) -> Work:
    """Estimate a plan's work; sample only few values when no estimate depends on them."""
    counts_values = any(isinstance(node, (Aggregate, Distinct, Join)) for node in walk(plan))
    size = SAMPLE_BYTES if counts_values else SMALL_SAMPLE_BYTES
    return estimate_work(plan, None, folder, sample_bytes=size)


def with_schemas(plan: Plan, program: Mapping[str, Any]) -> Plan:
    """Set the schemas of scans to the columns that the program found in their files."""
    fields = {
        step["node"]: Schema(tuple(Field(name, DataType.parse(of)) for name, of in step["fields"]))
        for step in program["steps"]
        if step["op"] == "scan"
    }
    assert isinstance(plan, Sink), "a program has a sink"
    # `fold` visits nodes in the order of `walk`, which is how the steps number them.
    places = iter(range(len(list(walk(plan)))))

    def visit(node: Plan, inputs: tuple[Plan, ...]) -> Plan:
        place = next(places)
        if isinstance(node, Scan):
            return replace(node, schema=fields[place])
        return with_inputs(node, inputs)

    return fold(plan, visit)
