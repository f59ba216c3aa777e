"""Grants of a schedule: who shares W with whom, from the frontier; the sharing itself is memory's."""

from __future__ import annotations

from emsqrt.memory.sharing import Sharing, share
from emsqrt.planner.physical import PhysicalPlan
from emsqrt.planner.work import Work
from emsqrt.te.blocks import wanted_bytes
from emsqrt.te.frontier import moments_of

__all__ = ["share", "sharing_of"]


def sharing_of(plan: PhysicalPlan, work: Work) -> Sharing:
    """Return who holds memory together in a run of a plan, whatever the cap.

    Args:
        plan: the operators.
        work: what each has to do.
    """
    moments = {frozenset(place for place, _ in each.held) for each in moments_of(plan)}
    moments.discard(frozenset())
    places = sorted(frozenset[int]().union(*moments))
    wants = {place: wanted_bytes(plan.nodes[place], work.nodes[place]) for place in places}
    return Sharing(tuple(sorted(moments, key=sorted)), wants)
