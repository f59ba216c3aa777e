"""Verification by replay: go through a schedule step by step and check every bound again.

It shares no code with the planner. Which operators must be live is computed from the steps (an
operator is live from its first input row to its last output row), and which operators must feed
which from the plan alone.
"""

from __future__ import annotations

from emsqrt.planner.physical import PhysicalNode
from emsqrt.te.formulas import FAN_IN_MAX, MERGE_OVERHEAD_BYTES
from emsqrt.te.schedule import TeSchedule


def verify(schedule: TeSchedule) -> tuple[str, ...]:
    """Replay a schedule; return its errors, an empty tuple if it is correct.

    The checks are: the live grants of each step fit W, and W plus the reserved memory fits the cap;
    no live operator is missing in a step; every blocking operator has all its input before it
    produces rows; at each merge level K * b + overhead fits the grant, and one run is left at the
    end.
    """
    return (
        *_check_cap(schedule),
        *_check_steps(schedule),
        *_check_feeds(schedule),
        *_check_order(schedule),
        *_check_live(schedule),
        *_check_levels(schedule),
    )


def _check_cap(schedule: TeSchedule) -> list[str]:
    # W and what is not for operators, within the cap.
    total = schedule.working_bytes + schedule.reserved_bytes
    wrong = [] if total <= schedule.cap_bytes else [f"{total} bytes are over the cap"]
    if schedule.c_min_bytes > schedule.cap_bytes:
        wrong.append("the cap is below the smallest")
    for place, grants in schedule.grants.items():
        if not 0 < grants.drain_bytes <= grants.gather_bytes <= schedule.working_bytes:
            wrong.append(f"operator {place}: grants {grants.gather_bytes}, {grants.drain_bytes}")
    return wrong


def _check_steps(schedule: TeSchedule) -> list[str]:
    wrong = []
    for index, step in enumerate(schedule.steps):
        total, seen = 0, set()
        for hold in step.holds:
            total += hold.bytes
            grants = schedule.grants.get(hold.node)
            if grants is None or hold.node in seen:
                wrong.append(f"step {index}: operator {hold.node} holds without a grant, or twice")
                continue
            seen.add(hold.node)
            granted = grants.gather_bytes if hold.phase == "gather" else grants.drain_bytes
            if hold.bytes != granted:
                wrong.append(f"step {index}: operator {hold.node} holds {hold.bytes}")
        if total > schedule.working_bytes:
            wrong.append(f"step {index}: {total} bytes are live, W is {schedule.working_bytes}")
    return wrong


def _sources(schedule: TeSchedule, node: PhysicalNode) -> set[int]:
    """Return the operators that the rows of `node` come from, and those on the way with memory."""
    # Rows come out of what has read all of its input, or a source; below that nothing flows any
    # more.
    if not node.inputs or node.holding == "gathers":
        return {node.id}
    probed = node.inputs
    if node.holding == "builds":
        # The build side has ended when rows of the probe side come through.
        probed = tuple(each for side, each in enumerate(node.inputs) if side != node.build)
    own = {node.id} if node.holds else set()
    return own.union(*(_sources(schedule, schedule.plan.nodes[each]) for each in probed))


def _gathered(schedule: TeSchedule, node: PhysicalNode) -> set[int]:
    inputs = node.inputs if node.holding != "builds" else (node.inputs[node.build],)
    nodes = schedule.plan.nodes
    return (
        set().union(*(_sources(schedule, nodes[each]) for each in inputs)) if inputs else {node.id}
    )


def _check_feeds(schedule: TeSchedule) -> list[str]:
    wrong = []
    root = schedule.plan.root
    for node in schedule.plan.nodes:
        if node.holding not in ("gathers", "builds") and node.id != root.id:
            continue
        steps = [s for s in schedule.steps if s.node == node.id and s.kind != "merge"]
        fed = set().union(*(set(step.feeds) for step in steps)) if steps else set()
        if fed != _gathered(schedule, node):
            wrong.append(f"operator {node.id} is fed by {sorted(fed)}")
    return wrong


def _check_order(schedule: TeSchedule) -> list[str]:
    """Check that operators produce rows only once they have all input and one merge is left."""
    wrong = []
    # The last step in which each operator still receives rows or merges.
    filled: dict[int, int] = {}
    for index, step in enumerate(schedule.steps):
        if step.kind != "write":
            filled[step.node] = index
    for index, step in enumerate(schedule.steps):
        for place in step.feeds:
            node = schedule.plan.nodes[place]
            if node.holding in ("gathers", "builds") and filled.get(place, index) >= index:
                wrong.append(f"step {index}: operator {place} produces rows before its input ended")
    for place, blocks in schedule.blocks.items():
        if schedule.plan.nodes[place].holding != "gathers":
            continue  # it merges within the steps in which it produces rows
        levels = [
            step.level for step in schedule.steps if step.kind == "merge" and step.node == place
        ]
        if levels != [level.level for level in blocks.levels[:-1]]:
            wrong.append(f"operator {place}: merges at levels {levels}")
    return wrong


def _check_live(schedule: TeSchedule) -> list[str]:
    wrong = []
    for place in schedule.grants:
        # Live from the first step in which the operator receives a row to the last one in which it
        # has some to return: it must hold memory in all steps between, also where it is not
        # mentioned.
        touched = [
            index
            for index, step in enumerate(schedule.steps)
            if place in step.feeds or step.node == place
        ]
        gathering = [i for i, step in enumerate(schedule.steps) if step.node == place]
        if not touched:
            wrong.append(f"operator {place} never works")
            continue
        for index in range(touched[0], touched[-1] + 1):
            phase = "gather" if gathering and index <= gathering[-1] else "drain"
            holds = {hold.node: hold.phase for hold in schedule.steps[index].holds}
            if holds.get(place) != phase:
                wrong.append(f"step {index}: operator {place} is live ({phase}) and holds nothing")
    return wrong


def _check_levels(schedule: TeSchedule) -> list[str]:
    wrong = []
    for place, blocks in schedule.blocks.items():
        runs, grants = blocks.merge.runs, schedule.grants[place]
        for index, level in enumerate(blocks.levels):
            early = schedule.plan.nodes[place].holding == "gathers"
            early = early and index < len(blocks.levels) - 1
            room = grants.gather_bytes if early else grants.drain_bytes
            peak = (level.fan_in + 1) * level.block_bytes + MERGE_OVERHEAD_BYTES
            where = f"operator {place}, level {level.level}"
            if level.peak_bytes < peak or peak > room:
                wrong.append(f"{where}: K * b + overhead is {peak}, {room} are granted")
            if not 2 <= level.fan_in <= FAN_IN_MAX:
                wrong.append(f"{where}: fan-in {level.fan_in}")
            if level.runs_before != runs:
                wrong.append(f"{where}: begins with {level.runs_before} runs of {runs}")
            # Not fewer than full merges can reach.
            fewest = level.runs_before - level.merges * (level.fan_in - 1)
            if not max(1, fewest) <= level.runs_after < level.runs_before:
                wrong.append(f"{where}: {level.merges} merges leave {level.runs_after} runs")
            runs = level.runs_after
        if runs > 1:
            wrong.append(f"operator {place}: {runs} runs are left over")
    return wrong
