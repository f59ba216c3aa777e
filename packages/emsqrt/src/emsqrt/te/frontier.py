"""Which operators hold memory at the same time: the live frontier of a depth-first evaluation.

An operator allocates its memory when its first row comes in, after all blocking operators below it
have read their input. So the live operators are those that feed it, and those further up that have
received a row already.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeAlias

from emsqrt.planner.physical import PhysicalNode, PhysicalPlan
from emsqrt.te.schedule import Phase

# Example: C joins two sorted inputs and builds the right one, B:
#
#         C            gathers B's rows, then drains with A's
#        / \
#       A   B          both gather, then drain
#
#     B gathers        {B}
#     B → C            {B drains, C gathers}
#     A gathers        {C drains, A}            C's table is held while A sorts
#     A → C → sink     {C drains, A drains}
Held: TypeAlias = tuple[int, Phase]


@dataclass(frozen=True, slots=True)
class LiveSet:
    """The operators that are live during a part of a run in which rows flow from `feeds` to `node`.

    Args:
        node: the blocking operator that receives the rows, or the sink.
        feeds: the operators that rows come out of or pass through, and that hold memory or read a
            source.
        held: the operators that hold memory, each with its phase.
        ends: whether `node` has received all its rows at the end of this part.
    """

    node: int
    feeds: tuple[int, ...]
    held: tuple[Held, ...]
    ends: bool = True


def live_sets_of(plan: PhysicalPlan, *, eager: bool = False) -> tuple[LiveSet, ...]:
    """Return the live sets of a run in order.

    Args:
        plan: the operators.
        eager: whether operators allocate their memory before their first row comes in.
    """
    return tuple(_Walk(plan, eager).live_sets())


@dataclass(frozen=True, slots=True)
class _Flow:
    """Rows on their way up: the operators that feed them, and the memory held meanwhile."""

    feeds: tuple[int, ...]
    held: tuple[Held, ...]


class _Walk:
    """Walk depth first through a plan; `_flows` yields a flow each time rows begin to arrive."""

    def __init__(self, plan: PhysicalPlan, eager: bool) -> None:
        self._plan = plan
        self._eager = eager
        self._done: list[LiveSet] = []

    def live_sets(self) -> list[LiveSet]:
        root = self._plan.root
        self._gather(root, root.inputs, (), ())
        return self._done

    def _gather(
        self,
        node: PhysicalNode,
        inputs: tuple[int, ...],
        held: tuple[Held, ...],
        own: tuple[Held, ...],
    ) -> None:
        """Let `node` read all rows of `inputs`; it holds `own` once the first row has come."""
        for place, each in enumerate(inputs):
            # The first input's rows come before `node` has any memory of its own; later inputs find
            # it there.
            outer = _union(held, own) if place or self._eager else held
            self._collect(node, each, outer, own)
        # The last flow of the last input: `node` has all its rows after it.
        self._done[-1] = _last(self._done[-1])

    def _collect(
        self, node: PhysicalNode, source: int, held: tuple[Held, ...], own: tuple[Held, ...]
    ) -> None:
        # Everything below that gathers rows has put its own live sets on the list before this
        # yields.
        for flow in self._flows(self._plan.nodes[source], held, own):
            live = _union(held, flow.held, own)
            self._done.append(LiveSet(node.id, flow.feeds, live, ends=False))

    def _flows(
        self, node: PhysicalNode, held: tuple[Held, ...], started: tuple[Held, ...]
    ) -> Iterator[_Flow]:
        """Yield the flows out of `node`, one after the other.

        Args:
            node: where the rows come out.
            held: memory that operators further up hold already.
            started: memory that operators further up will hold once the first row has come.
        """
        if not node.inputs:
            yield _Flow((node.id,), ())
        # Its input is complete when its rows begin to come out, so nothing below it is live any
        # more.
        elif node.holding == "gathers":
            self._gather(node, node.inputs, held, ((node.id, "gather"),))
            yield _Flow((node.id,), ((node.id, "drain"),))
        elif node.holding == "builds":
            yield from self._join_flows(node, held, started)
        elif len(node.inputs) == 1:
            yield from self._through(node, node.inputs[0], held, started)
        elif node.operator == "join":
            yield from self._merge_flows(node, held, started)
        else:
            for place, each in enumerate(node.inputs):
                outer = _union(held, started) if place else held
                yield from self._flows(self._plan.nodes[each], outer, started)

    def _through(
        self, node: PhysicalNode, below: int, held: tuple[Held, ...], started: tuple[Held, ...]
    ) -> Iterator[_Flow]:
        own: tuple[Held, ...] = ((node.id, "drain"),) if node.holds else ()
        # The operator allocates when its first row comes, so it holds nothing yet while operators
        # below it gather.
        outer = held + own if self._eager else held
        for flow in self._flows(self._plan.nodes[below], outer, (*started, *own)):
            feeds = (*flow.feeds, node.id) if node.holds else flow.feeds
            yield _Flow(feeds, flow.held + own)

    def _join_flows(
        self, node: PhysicalNode, held: tuple[Held, ...], started: tuple[Held, ...]
    ) -> Iterator[_Flow]:
        build, probe = node.inputs[node.build], node.inputs[1 - node.build]
        self._gather(node, (build,), held, ((node.id, "gather"),))
        table: Held = (node.id, "drain")
        for flow in self._flows(self._plan.nodes[probe], (*held, table), started):
            yield _Flow((*flow.feeds, node.id), (*flow.held, table))

    def _merge_flows(
        self, node: PhysicalNode, held: tuple[Held, ...], started: tuple[Held, ...]
    ) -> Iterator[_Flow]:
        own: Held = (node.id, "drain")
        left, right = (self._plan.nodes[each] for each in node.inputs)
        # Both sides flow at the same time: while the right one is made ready, the left one's memory
        # is held.
        for one in self._flows(left, held, (*started, own)):
            outer = _union(held, one.held)
            for other in self._flows(right, outer, (*started, own)):
                yield _Flow((*one.feeds, *other.feeds, node.id), (*one.held, *other.held, own))


def _last(live_set: LiveSet) -> LiveSet:
    return LiveSet(live_set.node, live_set.feeds, live_set.held, ends=True)


def _union(*groups: tuple[Held, ...]) -> tuple[Held, ...]:
    return tuple(dict.fromkeys(held for group in groups for held in group))
