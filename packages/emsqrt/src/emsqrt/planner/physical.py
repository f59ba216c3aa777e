"""The physical plan: how each operator is carried out, and what it holds in memory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias

from emsqrt.choices import JoinChoice
from emsqrt.plan import (
    Aggregate,
    Custom,
    Distinct,
    Expect,
    FileTarget,
    Join,
    Plan,
    Sample,
    Scan,
    Sink,
    Sort,
    StreamTarget,
    TopK,
    Union,
    Window,
    inputs_of,
    plan_hash,
    walk,
)
from emsqrt.plan.explain import line_of
from emsqrt.planner.joins import Sides, choose_join, describe_join
from emsqrt.planner.ordering import Order, order_of, order_seen
from emsqrt.planner.schemas import schemas_of
from emsqrt.planner.work import Work
from sennit_core.schema import Schema

HEAP_BYTES_MAX = 4 << 20
"""A larger top_k is a sort with a limit."""

Holding: TypeAlias = Literal["nothing", "gathers", "builds", "passes"]
"""An operator's use of memory: it gathers its input before its first output row, builds a table of
one input while the other streams, or passes rows on and remembers some state."""
Tier: TypeAlias = Literal["text", "arrow"]


@dataclass(frozen=True, slots=True)
class PhysicalNode:
    """One physical operator.

    Args:
        id: its index in the order of `emsqrt.plan.walk`, and in `Work`.
        operator: such as "sort".
        logical: the plan node.
        inputs: the ids of the operators that it reads from.
        schema: the columns of its output.
        strategy: the algorithm in words: "external merge sort", "hash, build right".
        holding: its use of memory.
        build: of a join, the input that is built: 1 for the right side, 0 for the left one.
        order: the columns by which its output is sorted, ascending and NULL last.
        choice: of a join, the parameters of its operator.
    """

    id: int
    operator: str
    logical: Plan
    inputs: tuple[int, ...]
    schema: Schema
    strategy: str = "streams"
    holding: Holding = "nothing"
    build: int = 1
    order: Order = ()
    choice: JoinChoice | None = None

    @property
    def is_breaker(self) -> bool:
        """Whether it reads all input before its first output row."""
        return self.holding == "gathers"

    @property
    def holds(self) -> bool:
        """Whether it uses working memory of its own."""
        return self.holding != "nothing"

    def __str__(self) -> str:
        return line_of(self.logical)


@dataclass(frozen=True, slots=True)
class PhysicalPlan:
    """The operators in the order of `emsqrt.plan.walk`, and the tier that runs them."""

    nodes: tuple[PhysicalNode, ...]
    tier: Tier = "arrow"

    @property
    def root(self) -> PhysicalNode:
        """The last operator, a sink in a plan that runs."""
        return self.nodes[-1]


@dataclass(frozen=True, slots=True)
class PhysicalProgram:
    """A plan ready to run: `plan` for scheduling, `logical` for the operators.

    Args:
        plan: the operators.
        logical: the optimised plan that they carry out.
    """

    plan: PhysicalPlan
    logical: Plan

    @property
    def plan_hash(self) -> str:
        """The hash of `logical`; a run's manifest has the submitted plan's."""
        return plan_hash(self.logical)

    def writing_to(self, target: FileTarget | StreamTarget) -> PhysicalProgram:
        """Return the same program with another target."""
        *nodes, last = self.plan.nodes
        assert isinstance(last.logical, Sink), "a program ends in its sink"
        sink = replace(last.logical, target=target)
        return PhysicalProgram(
            replace(self.plan, nodes=(*nodes, replace(last, logical=sink))), sink
        )


def lower_to_physical(
    plan: Plan, work: Work | None = None, tier: Tier = "arrow"
) -> PhysicalProgram:
    """Choose how each operator is carried out; a plan without a sink gets a stream.

    Args:
        plan: optimised, with the schemas of its scans.
        work: estimates; they choose the side of a join that is held, never the resulting rows.
        tier: the tier that runs it.
    """
    if not isinstance(plan, Sink):
        plan = Sink(plan, StreamTarget("arrow"))
    schemas, seen, nodes = schemas_of(plan), order_seen(plan), list[PhysicalNode]()
    # Nodes in postfix order: the inputs of a node are the last ones on this stack.
    open_inputs: list[int] = []
    for place, node in enumerate(walk(plan)):
        first = len(open_inputs) - len(inputs_of(node))
        inputs = tuple(open_inputs[first:])
        below = tuple(nodes[each] for each in inputs)
        schema = schemas[id(node)]
        order = order_of(node, tuple(each.order for each in below), schema.names)
        if isinstance(node, Join):
            own = None if work is None else work.nodes[place]
            sides = Sides((below[0].schema, below[1].schema), (below[0].order, below[1].order))
            choice = choose_join(node, sides, own, seen=seen[place])
            # A hash join that may lose its order promises none.
            kept = order if choice.ordered or choice.merge else ()
            made = _join_node(place, node, inputs, schema, choice)
            made = replace(made, order=kept)
        else:
            logical = tuple(each.logical for each in below)
            strategy, holding, build = _choose(node, place, logical, work)
            word = _word(node)
            made = PhysicalNode(
                place, word, node, inputs, schema, strategy, holding, build, order=order
            )
        nodes.append(made)
        open_inputs[first:] = [place]
    return PhysicalProgram(PhysicalPlan(tuple(nodes), tier), plan)


def _join_node(
    place: int, node: Join, inputs: tuple[int, ...], schema: Schema, choice: JoinChoice
) -> PhysicalNode:
    return PhysicalNode(
        place,
        _word(node),
        node,
        inputs,
        schema,
        describe_join(node, choice),
        "passes" if choice.merge else "builds",
        0 if choice.build_left else 1,
        choice=choice,
    )


Choice: TypeAlias = tuple[str, Holding, int]


def _word(node: Plan) -> str:
    return {"TopK": "top_k", "WithColumn": "with_column"}.get(
        type(node).__name__, type(node).__name__.lower()
    )


def _choose(node: Plan, place: int, inputs: tuple[Plan, ...], work: Work | None) -> Choice:
    chooser = _CHOOSERS.get(type(node))
    return ("streams", "nothing", 1) if chooser is None else chooser(node, place, inputs, work)


def _top_k(node: TopK, place: int, _: tuple[Plan, ...], work: Work | None) -> Choice:
    row_bytes = 256.0 if work is None else work.nodes[place].row_bytes
    # Few rows stay in memory for an input of any size; more are sorted, and runs stop at the limit.
    if (node.count + node.offset) * row_bytes <= HEAP_BYTES_MAX:
        return "heap", "gathers", 1
    return "external merge sort, cut short", "gathers", 1


def _sort(node: Sort, _: int, inputs: tuple[Plan, ...], __: Work | None) -> Choice:
    below = inputs[0]
    # As `emsqrt.operators.merge.make_sort` decides it.
    if node.merge and isinstance(below, Scan) and getattr(below.source, "format", "") == "arrow":
        return "merge of sorted files", "passes", 1
    return "external merge sort", "gathers", 1


def _aggregate(node: Aggregate, _: int, __: tuple[Plan, ...], ___: Work | None) -> Choice:
    if not node.keys:
        return "one group", "gathers", 1
    return "hash, partial runs merged by key", "gathers", 1


def _distinct(node: Distinct, _: int, __: tuple[Plan, ...], ___: Work | None) -> Choice:
    if node.columns is None:
        return "hash, partial runs merged by key", "gathers", 1
    return "external merge sort, first of each key", "gathers", 1


def _window(_: Window, __: int, inputs: tuple[Plan, ...], ___: Work | None) -> Choice:
    del inputs
    return "external merge sort, then by partition", "gathers", 1


def _sample(node: Sample, _: int, __: tuple[Plan, ...], ___: Work | None) -> Choice:
    if node.count is None:
        return "by the hash of each place", "nothing", 1
    return "smallest hashes kept", "gathers", 1


def _expect(node: Expect, _: int, __: tuple[Plan, ...], ___: Work | None) -> Choice:
    return ("remembers keys", "passes", 1) if node.unique else ("counts", "nothing", 1)


def _reads(word: str) -> Callable[[Any, int, tuple[Plan, ...], Work | None], Choice]:
    return lambda *_: (word, "nothing", 1)


_CHOOSERS: dict[type[Plan], Callable[[Any, int, tuple[Plan, ...], Work | None], Choice]] = {
    Scan: _reads("reads"),
    Sink: _reads("writes"),
    Union: _reads("one input after the other"),
    Custom: lambda *_: ("as it is installed", "gathers", 1),
    Sort: _sort,
    TopK: _top_k,
    Aggregate: _aggregate,
    Distinct: _distinct,
    Window: _window,
    Sample: _sample,
    Expect: _expect,
}
"""Nodes that are not listed yield a batch for each batch."""
