"""`plan_te`: make a schedule that keeps a memory cap, from a physical plan and its estimates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Self

from emsqrt.memory.grant_plan import HOLDER_BYTES_MIN
from emsqrt.plan import Files, FileTarget, Scan, Sink
from emsqrt.planner.physical import PhysicalPlan
from emsqrt.planner.work import Work
from emsqrt.requirement import MemoryRequirement
from emsqrt.te.blocks import Blocks, Grants, plan_blocks, wanted_bytes
from emsqrt.te.formulas import least_merge
from emsqrt.te.frontier import Held, LiveSet, live_sets_of
from emsqrt.te.grants import share
from emsqrt.te.schedule import Hold, Kind, Step, TeSchedule
from sennit_core.errors import CapTooSmall

MIB = 1 << 20
BASE_BYTES = {"text": 10 * MIB, "arrow": 36 * MIB}
"""Memory of the process before it reads anything, by tier; a run measures the real value."""
SLACK_BYTES_MIN = {"text": 7 * MIB // 4, "arrow": 4 * MIB}
SLACK_SHARE = {"text": 0.03, "arrow": 0.06}
READER_BYTES = {"csv": MIB, "jsonl": MIB, "arrow": 4 * MIB, "parquet": 8 * MIB}
SINK_BYTES = {"csv": MIB // 2, "jsonl": MIB // 2, "arrow": 2 * MIB, "parquet": 8 * MIB}
TEXT_READER_BYTES = 256 << 10
LEAST_BYTES = HOLDER_BYTES_MIN
"""The least memory of an operator."""


@dataclass(frozen=True, slots=True)
class TeOptions:
    """Assumptions and measurements that a schedule is made from.

    Args:
        reserved_bytes: memory that is not for operators, if measured; estimated when None.
        minimums: the least memory of operators, by id, where that is more than what all need.
        row_bytes_max: the longest row.
        shrinking: whether an operator releases memory between gathering and draining.
        eager: whether operators allocate their memory before their first row comes in.
        c_min_bytes: the smallest cap, if measured; computed when None.
    """

    reserved_bytes: int | None = None
    minimums: Mapping[int, int] = field(default_factory=dict)
    row_bytes_max: int = 64 << 10
    shrinking: bool = False
    eager: bool = False
    c_min_bytes: int | None = None

    @classmethod
    def measured(cls, requirement: MemoryRequirement, cap_bytes: int) -> Self:
        """Return the options with the measurements of a process that opened the plan."""
        reserved_bytes = (
            cap_bytes - requirement.working_bytes if requirement.working_bytes else None
        )
        return cls(reserved_bytes, requirement.minimums, c_min_bytes=requirement.cap_bytes)


def plan_te(
    plan: PhysicalPlan, work: Work, cap_bytes: int, options: TeOptions = TeOptions()
) -> TeSchedule:
    """Cut a plan into blocks, order them depth first, and share out memory.

    Args:
        plan: the operators.
        work: the estimated work of each operator.
        cap_bytes: C, for the whole process tree.
        options: assumptions and measurements.

    Raises:
        CapTooSmall: the operators of a live set do not fit; the error names the smallest cap.
    """
    shrinking = options.shrinking
    least = max(LEAST_BYTES, least_merge(), 3 * options.row_bytes_max + (64 << 10))
    live_sets = live_sets_of(plan, eager=options.eager)
    minimums = {node.id: max(least, options.minimums.get(node.id, 0)) for node in plan.nodes}
    crowd = max(
        live_sets, key=lambda live_set: _least_together(live_set, minimums, shrinking=shrinking)
    )
    needed = _least_together(crowd, minimums, shrinking=shrinking)
    if options.reserved_bytes is None:
        reserved_bytes, c_min = _reserved(plan, cap_bytes), _smallest_cap(plan, needed)
    else:
        reserved_bytes = options.reserved_bytes
        c_min = reserved_bytes + needed
    if options.c_min_bytes is not None:
        # The process that measured admitted the plan with `c_min`, so its reserve leaves the
        # operators enough.
        c_min, reserved_bytes = options.c_min_bytes, min(reserved_bytes, cap_bytes - needed)
    working_bytes = cap_bytes - reserved_bytes
    if cap_bytes < c_min or working_bytes < needed:
        because = _because(plan, crowd, minimums, reserved_bytes)
        raise CapTooSmall(cap_bytes=cap_bytes, needed_bytes=c_min, because=because)
    shared = _share(plan, work, live_sets, (working_bytes, minimums), shrinking=shrinking)
    blocks = {
        place: plan_blocks(plan.nodes[place], work.nodes[place], grants)
        for place, grants in shared.items()
    }
    steps = _steps(plan, live_sets, shared, blocks)
    return TeSchedule(plan, steps, shared, blocks, cap_bytes, reserved_bytes, working_bytes, c_min)


def _least_together(live_set: LiveSet, minimums: Mapping[int, int], *, shrinking: bool) -> int:
    live = frozenset(_key(held, shrinking=shrinking) for held in live_set.held)
    return sum(minimums[place] for place, _ in live)


def _key(held: Held, *, shrinking: bool) -> Held:
    """Return the key of a grant: one for both phases if an operator's memory does not shrink."""
    return held if shrinking else (held[0], "gather")


def _share(
    plan: PhysicalPlan,
    work: Work,
    live_sets: Sequence[LiveSet],
    bounds: tuple[int, Mapping[int, int]],
    *,
    shrinking: bool,
) -> dict[int, Grants]:
    """Share W, which is `bounds[0]`; each operator gets at least its bytes in `bounds[1]`."""
    groups = [frozenset(_key(held, shrinking=shrinking) for held in m.held) for m in live_sets]
    keys = frozenset[Held]().union(*groups)
    wants = {key: wanted_bytes(plan.nodes[key[0]], work.nodes[key[0]]) for key in keys}
    minimums = {key: bounds[1][key[0]] for key in keys}
    shared = share([group for group in groups if group], bounds[0], wants, minimums)
    found: dict[int, Grants] = {}
    for place in sorted({place for place, _ in keys}):
        # An operator whose memory does not shrink has one key for both phases, and `drain` is None.
        drain = shared.get((place, "drain"))
        gather = shared.get((place, "gather"), drain)
        assert gather is not None, "a key has one phase or the other"
        found[place] = Grants(gather, gather if drain is None else min(gather, drain))
    return found


def _steps(
    plan: PhysicalPlan,
    live_sets: Sequence[LiveSet],
    grants: dict[int, Grants],
    blocks: dict[int, Blocks],
) -> tuple[Step, ...]:
    steps: list[Step] = []
    for live_set in live_sets:
        holds = tuple(_hold(held, grants) for held in live_set.held)
        kind: Kind = "gather" if live_set.node in grants else "write"
        steps.append(Step(kind, live_set.node, live_set.feeds, holds))
        if live_set.ends and plan.nodes[live_set.node].holding == "gathers":
            # No rows flow while runs are merged, so the operators that fed this one have ended.
            kept = tuple(hold for hold in holds if hold.node not in live_set.feeds)
            steps += [
                Step("merge", live_set.node, (), kept, level.level)
                for level in blocks[live_set.node].levels[:-1]
            ]
    return tuple(steps)


def _hold(held: Held, grants: dict[int, Grants]) -> Hold:
    place, phase = held
    granted = grants[place]
    size = granted.gather_bytes if phase == "gather" else granted.drain_bytes
    return Hold(place, phase, size)


def _reserved(plan: PhysicalPlan, cap_bytes: int) -> int:
    slack = max(SLACK_BYTES_MIN[plan.tier], int(cap_bytes * SLACK_SHARE[plan.tier]))
    return BASE_BYTES[plan.tier] + slack + _edges(plan)


def _smallest_cap(plan: PhysicalPlan, working_bytes: int) -> int:
    fixed = BASE_BYTES[plan.tier] + _edges(plan) + working_bytes
    # Slack is a part of the cap that is asked for: cap - share * cap ≥ fixed.
    share = SLACK_SHARE[plan.tier]
    return max(fixed + SLACK_BYTES_MIN[plan.tier], -int(-fixed // (1 - share)))


def _edges(plan: PhysicalPlan) -> int:
    """Estimate the memory of readers and sinks, before their files are opened."""
    if plan.tier == "text":
        return TEXT_READER_BYTES * sum(isinstance(node.logical, Scan) for node in plan.nodes)
    total = 0
    for node in plan.nodes:
        match node.logical:
            case Scan(source=Files(format=kind)):
                total += READER_BYTES[kind]
            case Sink(target=FileTarget(format=kind)):
                total += SINK_BYTES[kind]
            case Sink():
                total += SINK_BYTES["arrow"]
    return total


def _because(
    plan: PhysicalPlan, crowd: LiveSet, minimums: Mapping[int, int], reserved_bytes: int
) -> str:
    places = list(dict.fromkeys(place for place, _ in crowd.held))
    names = [str(plan.nodes[place]) for place in places]
    base = f"{reserved_bytes >> 20} MiB go to the process, readers and sinks"
    if not names:
        return base
    sizes = sorted({minimums[place] >> 10 for place in places})
    if len(names) == 1:
        return f"{base}, and {names[0]} needs {sizes[0]} KiB at least"
    need = f"{sizes[0]} KiB each" if len(sizes) == 1 else f"{sizes[0]} to {sizes[-1]} KiB"
    return f"{base}, and {', '.join(names)} hold rows at one time and need {need} at least"
