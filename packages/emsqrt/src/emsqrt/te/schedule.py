"""A schedule: the order of the steps of a run, and the memory that operators hold in each step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from emsqrt.plan import Plan
from emsqrt.planner.physical import PhysicalNode, PhysicalPlan
from emsqrt.te.blocks import Blocks, Grants
from sennit_core.errors import UsageError

Phase: TypeAlias = Literal["gather", "drain"]
Kind: TypeAlias = Literal["gather", "merge", "write"]


@dataclass(frozen=True, slots=True)
class Hold:
    """Memory that an operator holds during a step."""

    node: int
    phase: Phase
    bytes: int


@dataclass(frozen=True, slots=True)
class Step:
    """One step of a run; steps follow one another.

    Args:
        kind: "gather": `node` reads rows that flow out of `feeds`. "merge": `node` merges its runs
            on disk. "write": the sink writes the rows.
        node: the id of the operator that works.
        feeds: the operators that rows come out of, and those that they pass through and that hold
            memory.
        holds: the memory of each live operator: the live frontier.
        level: the level of a merge.
    """

    kind: Kind
    node: int
    feeds: tuple[int, ...]
    holds: tuple[Hold, ...]
    level: int = 0

    @property
    def held_bytes(self) -> int:
        """The memory that all live operators hold."""
        return sum(hold.bytes for hold in self.holds)


@dataclass(frozen=True, slots=True)
class TeSchedule:
    """A tree of blocks in the order in which it is evaluated, depth first.

    Args:
        plan: the operators.
        steps: the steps in order.
        grants: the memory of each operator that holds any, by its id.
        blocks: the runs and merges of each operator that holds memory, by its id.
        cap_bytes: C, for the whole process tree.
        reserved_bytes: memory not for operators: interpreter, libraries, readers, sinks, slack.
        working_bytes: W = C - reserved; all grants that are live at the same time fit it.
        c_min_bytes: the smallest cap with which this plan can run.
    """

    plan: PhysicalPlan
    steps: tuple[Step, ...]
    grants: Mapping[int, Grants]
    blocks: Mapping[int, Blocks]
    cap_bytes: int
    reserved_bytes: int
    working_bytes: int
    c_min_bytes: int

    def grant(self, node: int | PhysicalNode | Plan) -> Grants:
        """Return the memory of one operator.

        Args:
            node: its id, itself, or the plan node that it implements (for a node that is in the
                plan twice, the smaller of both grants).

        Raises:
            UsageError: the operator holds no memory, or is not part of this schedule.
        """
        if isinstance(node, Plan):
            # A node that is in the plan twice has two operators; the smaller grant is safe for
            # both.
            found = [
                self.grants[each.id]
                for each in self.plan.nodes
                if each.logical is node and each.id in self.grants
            ]
            if found:
                gather = min(grants.gather_bytes for grants in found)
                return Grants(gather, min(grants.drain_bytes for grants in found))
        else:
            place = node if isinstance(node, int) else node.id
            if place in self.grants:
                return self.grants[place]
        raise UsageError("this operator holds no memory in this schedule")

    @property
    def peak_bytes(self) -> int:
        """The most that operators hold at once."""
        return max((step.held_bytes for step in self.steps), default=0)

    @property
    def frontier(self) -> int:
        """The most operators that hold memory at once."""
        return max((len(step.holds) for step in self.steps), default=0)

    @property
    def spill_bytes(self) -> float:
        """Estimated bytes written to disk, before compression."""
        return sum(blocks.spill_bytes for blocks in self.blocks.values())

    def to_json(self) -> dict[str, Any]:
        """Return the figures of the schedule for explain and for the manifest."""
        return {
            "capBytes": self.cap_bytes,
            "reservedBytes": self.reserved_bytes,
            "workingBytes": self.working_bytes,
            "cMinBytes": self.c_min_bytes,
            "peakBytes": self.peak_bytes,
            "frontier": self.frontier,
            "spillBytes": round(self.spill_bytes),
            "operators": [
                block_figures(self, node) for node in self.plan.nodes if node.id in self.grants
            ],
        }


def block_figures(schedule: TeSchedule, node: PhysicalNode) -> dict[str, Any]:
    """Return one operator's R, K, P, b, F, its grants and its levels, as JSON."""
    blocks, grants = schedule.blocks[node.id], schedule.grants[node.id]
    merge = blocks.merge
    return {
        "node": node.id,
        "operator": node.operator,
        "gatherBytes": grants.gather_bytes,
        "drainBytes": grants.drain_bytes,
        "runs": merge.runs,
        "fanIn": merge.fan_in,
        "passes": merge.passes,
        "blockBytes": merge.block_bytes,
        "runBytes": merge.run_bytes,
        "partitions": blocks.partitions,
        "spillBytes": round(blocks.spill_bytes),
        "levels": [
            {
                "level": level.level,
                "fanIn": level.fan_in,
                "blockBytes": level.block_bytes,
                "merges": level.merges,
                "peakBytes": level.peak_bytes,
            }
            for level in blocks.levels
        ],
    }
