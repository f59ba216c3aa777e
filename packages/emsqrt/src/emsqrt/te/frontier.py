"""Who holds memory when: the live frontier of a depth-first evaluation, known before the run.

An operator takes its memory when its first row comes in, which is after everything below it that
gathers has gathered; so only what feeds it, and what has begun to be fed further up, is live.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeAlias

from emsqrt.planner.physical import PhysicalNode, PhysicalPlan
from emsqrt.te.schedule import Phase

Held: TypeAlias = tuple[int, Phase]


@dataclass(frozen=True, slots=True)
class Moment:
    """A stretch of a run in which rows flow out of `feeds` into `node`.

    Args:
        node: what gathers, or the sink.
        feeds: what the rows come out of and through, as far as it holds memory or reads a source.
        held: who holds memory, and in which phase.
        ends: whether `node` has all its rows after it.
    """

    node: int
    feeds: tuple[int, ...]
    held: tuple[Held, ...]
    ends: bool = True


def moments_of(plan: PhysicalPlan, *, eager: bool = False) -> tuple[Moment, ...]:
    """Return the moments of a run in their order.

    Args:
        plan: the operators.
        eager: whether operators take their memory before their first row comes in.
    """
    return tuple(_Walk(plan, eager).moments())


@dataclass(frozen=True, slots=True)
class _Flow:
    """Rows on their way up: what they come from, and what is held while they flow."""

    feeds: tuple[int, ...]
    held: tuple[Held, ...]


class _Walk:
    """Depth first through a plan; `_flows` yields a flow each time rows begin to come."""

    def __init__(self, plan: PhysicalPlan, eager: bool) -> None:
        self._plan = plan
        self._eager = eager
        self._done: list[Moment] = []

    def moments(self) -> list[Moment]:
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
        """Let `node` take in all rows of `inputs`; `own` is what it holds once they come."""
        for place, each in enumerate(inputs):
            outer = _union(held, own) if place or self._eager else held
            self._collect(node, each, outer, own)
        self._done[-1] = _last(self._done[-1])

    def _collect(
        self, node: PhysicalNode, source: int, held: tuple[Held, ...], own: tuple[Held, ...]
    ) -> None:
        for flow in self._flows(self._plan.nodes[source], held, own):
            live = _union(held, flow.held, own)
            self._done.append(Moment(node.id, flow.feeds, live, ends=False))

    def _flows(
        self, node: PhysicalNode, held: tuple[Held, ...], started: tuple[Held, ...]
    ) -> Iterator[_Flow]:
        """Yield the flows out of `node`, one after the other.

        Args:
            node: where the rows come out.
            held: what is held already, further up.
            started: what will be held further up once the first row has come.
        """
        if not node.inputs:
            yield _Flow((node.id,), ())
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
        for one in self._flows(left, held, (*started, own)):
            outer = _union(held, one.held)
            for other in self._flows(right, outer, (*started, own)):
                yield _Flow((*one.feeds, *other.feeds, node.id), (*one.held, *other.held, own))


def _last(moment: Moment) -> Moment:
    return Moment(moment.node, moment.feeds, moment.held, ends=True)


def _union(*groups: tuple[Held, ...]) -> tuple[Held, ...]:
    return tuple(dict.fromkeys(held for group in groups for held in group))
