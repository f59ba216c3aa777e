"""Which operators share W at the same time; `memory.grant_plan` computes their grants."""

from __future__ import annotations

from emsqrt.memory.grant_plan import GrantPlan, share
from emsqrt.planner.physical import PhysicalPlan
from emsqrt.planner.work import Work
from emsqrt.te.blocks import wanted_bytes
from emsqrt.te.frontier import live_sets_of

__all__ = ["grant_plan_of", "share"]


def grant_plan_of(plan: PhysicalPlan, work: Work) -> GrantPlan:
    """Return which operators of a plan hold memory at the same time; the cap does not matter.

    Args:
        plan: the operators.
        work: the estimated work of each operator.
    """
    # Both phases of an operator count as one: it has one grant, which does not shrink.
    live_sets = {frozenset(place for place, _ in each.held) for each in live_sets_of(plan)}
    live_sets.discard(frozenset())
    places = sorted(frozenset[int]().union(*live_sets))
    wants = {place: wanted_bytes(plan.nodes[place], work.nodes[place]) for place in places}
    return GrantPlan(tuple(sorted(live_sets, key=sorted)), wants)
