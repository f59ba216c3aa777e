"""`explain`: the operators with their estimates, and the schedule's figures, as text and as JSON.

After a run, the manifest's measured figures are shown next to the planned ones.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from emsqrt.manifest import BlockInfo, Manifest
from emsqrt.plan import Plan, plan_hash
from emsqrt.planner import (
    RULES,
    TEXT_RULES,
    PhysicalNode,
    PhysicalProgram,
    Work,
    estimate_work,
    lower_to_physical,
    optimize,
)
from emsqrt.planner.physical import Tier
from emsqrt.te.planning import TeOptions, plan_te
from emsqrt.te.schedule import TeSchedule
from sennit_core.units import format_bytes


@dataclass(frozen=True, slots=True)
class Explanation:
    """A plan with its estimates, its schedule and, after a run, its measurements.

    Args:
        submitted: the plan as it was written.
        program: the operators.
        work: the estimates.
        schedule: the schedule for a cap; None without a cap.
        manifest: the manifest of a run of this plan, if any.
    """

    submitted: Plan
    program: PhysicalProgram
    work: Work
    schedule: TeSchedule | None = None
    manifest: Manifest | None = None

    def __str__(self) -> str:
        lines = [self._line(node, depth) for node, depth in self._nodes()]
        if self.schedule is not None:
            lines += ["", *_schedule_lines(self.schedule)]
        if self.manifest is not None:
            lines += ["", *_measured_lines(self.manifest, self.work)]
        return "\n".join([*lines, f"plan {plan_hash(self.submitted)}"])

    def to_json(self) -> dict[str, Any]:
        """Return the same as JSON: `operators` in the order of `emsqrt.plan.walk`."""
        document: dict[str, Any] = {
            "planHash": plan_hash(self.submitted),
            "optimizedHash": self.program.plan_hash,
            "tier": self.program.plan.tier,
            "seconds": self.work.seconds,
            "operators": [self._operator(node) for node in self.program.plan.nodes],
        }
        if self.schedule is not None:
            document["te"] = self.schedule.to_json()
        if self.manifest is not None:
            document["measured"] = [
                {**block.to_json(), "estimated": _estimated(block, self.work)}
                for block in self.manifest.blocks
            ]
        return document

    def _nodes(self) -> list[tuple[PhysicalNode, int]]:
        nodes = self.program.plan.nodes
        found: list[tuple[PhysicalNode, int]] = []
        pending = [(self.program.plan.root, 0)]
        while pending:
            node, depth = pending.pop()
            found.append((node, depth))
            # Reversed, as the list is a stack: the left input is printed first.
            pending += [(nodes[each], depth + 1) for each in reversed(node.inputs)]
        return found

    def _line(self, node: PhysicalNode, depth: int) -> str:
        estimate = ""
        if node.id < len(self.work.nodes):
            work = self.work.nodes[node.id]
            estimate = f"  ~{_count(work.rows_out)} rows, {format_bytes(int(work.bytes_out))}"
        return f"{'  ' * depth}{node!s}  [{node.strategy}]{estimate}"

    def _operator(self, node: PhysicalNode) -> dict[str, Any]:
        operator: dict[str, Any] = {
            "node": node.id,
            "operator": node.operator,
            "text": str(node),
            "inputs": list(node.inputs),
            "strategy": node.strategy,
            "breaker": node.is_breaker,
            "schema": node.schema.to_json()["fields"],
        }
        if node.id < len(self.work.nodes):
            work = self.work.nodes[node.id]
            operator |= {"rows": round(work.rows_out), "bytes": round(work.bytes_out)}
        return operator


def explain_plan(
    plan: Plan,
    cap_bytes: int | None = None,
    *,
    folder: Path | None = None,
    tier: Tier = "arrow",
    options: TeOptions | None = None,
) -> Explanation:
    """Optimize and schedule a plan as a run would, and explain it; reads only heads and footers.

    Args:
        plan: the plan as it is submitted.
        cap_bytes: the cap to schedule for; no schedule when None.
        folder: the folder of relative paths.
        tier: the tier whose operators would run it.
        options: assumptions and measurements of the schedule.

    Raises:
        CapTooSmall: the plan cannot run with this cap.
    """
    optimised = optimize(plan, folder, TEXT_RULES if tier == "text" else RULES)
    work = estimate_work(optimised, None, folder)
    program = lower_to_physical(optimised, work, tier)
    schedule = (
        None
        if cap_bytes is None
        else plan_te(program.plan, work, cap_bytes, options or TeOptions())
    )
    return Explanation(plan, program, work, schedule)


def _schedule_lines(schedule: TeSchedule) -> list[str]:
    cap = format_bytes(schedule.cap_bytes)
    reserved, working = format_bytes(schedule.reserved_bytes), format_bytes(schedule.working_bytes)
    peak, spill = format_bytes(schedule.peak_bytes), format_bytes(int(schedule.spill_bytes))
    return [
        f"cap {cap} = {reserved} for process, readers and sinks + W {working}",
        f"C_min {format_bytes(schedule.c_min_bytes)}; expected spill {spill}",
        f"frontier: {schedule.frontier} operators, {peak} at most",
        *(
            f"  {_block_line(schedule, node)}"
            for node in schedule.plan.nodes
            if node.id in schedule.grants
        ),
    ]


def _block_line(schedule: TeSchedule, node: PhysicalNode) -> str:
    blocks, grants = schedule.blocks[node.id], schedule.grants[node.id]
    merge = blocks.merge
    parts = [f"{node.operator} #{node.id}: W {format_bytes(grants.gather_bytes)}"]
    if blocks.partitions > 1:
        parts.append(f"F {blocks.partitions}")
    if merge.runs:
        parts += [f"R {merge.runs}, K {merge.fan_in}, P {merge.passes}"]
        parts += [f"b {format_bytes(merge.block_bytes)}"]
    else:
        parts.append("in memory")
    if blocks.spill_bytes:
        parts.append(f"spills {format_bytes(int(blocks.spill_bytes))}")
    levels = (
        f"level {level.level}: {level.fan_in} * b + overhead = {format_bytes(level.peak_bytes)}"
        for level in blocks.levels
    )
    return "; ".join([", ".join(parts), *levels])


def _measured_lines(manifest: Manifest, work: Work) -> list[str]:
    peak, cap = format_bytes(manifest.peak_bytes), format_bytes(manifest.cap_bytes)
    spilled = format_bytes(manifest.spilled_bytes)
    return [
        f"measured: peak {peak} of {cap}, spilled {spilled}, {manifest.seconds:.2f} s",
        *(f"  {_measured_line(block, work)}" for block in manifest.blocks),
    ]


def _estimated(block: BlockInfo, work: Work) -> dict[str, int]:
    """Return an operator's estimated input and output rows; empty if it was not in the plan."""
    if block.node >= len(work.nodes):
        return {}
    node = work.nodes[block.node]
    return {"rowsIn": round(sum(node.rows_in)), "rowsOut": round(node.rows_out)}


def _measured_line(block: BlockInfo, work: Work) -> str:
    pairs = (
        ("R", block.runs, "runs"),
        ("K", block.fan_in, "fanIn"),
        ("P", block.passes, "passes"),
        ("F", block.partitions, "partitions"),
    )
    figures = ", ".join(
        f"{symbol} {value} (planned {block.planned[name]})"
        for symbol, value, name in pairs
        if name in block.planned and (value or block.planned[name])
    )
    spilled = format_bytes(block.spilled_bytes)
    estimated = _estimated(block, work)
    guess = f" (~{_count(estimated['rowsOut'])} estimated)" if estimated else ""
    rows = f"{_count(block.rows_in)} rows in, {_count(block.rows_out)} out{guess}"
    return f"{block.operator} #{block.node}: {rows}, {block.seconds:.2f} s, spilled {spilled}" + (
        f"; {figures}" if figures else ""
    )


def _count(rows: float) -> str:
    return f"{round(rows):,}"
