"""Walk and rebuild plan trees without recursion, so a deep plan needs no deep stack."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any, TypeVar, cast

from emsqrt.plan.nodes import Custom, Join, Plan, Scan, Union
from sennit_core.errors import Unsupported

T = TypeVar("T")


def inputs_of(plan: Plan) -> tuple[Plan, ...]:
    """Return the nodes that `plan` reads from, in order: none for a Scan, two for a Join."""
    match plan:
        case Scan():
            return ()
        case Join(left=left, right=right):
            return left, right
        case Union(inputs=inputs) | Custom(inputs=inputs):
            return inputs
        case _:
            return (cast("Plan", cast("Any", plan).input),)


def with_inputs(plan: Plan, inputs: Sequence[Plan]) -> Plan:
    """Return the node with other inputs; `plan` itself when they are the same objects."""
    before = inputs_of(plan)
    assert len(inputs) == len(before), f"{type(plan).__name__} reads from {len(before)}"
    if all(new is old for new, old in zip(inputs, before, strict=True)):
        return plan
    node = cast("Any", plan)
    match plan:
        case Join():
            return replace(plan, left=inputs[0], right=inputs[1])
        case Union() | Custom():
            return replace(plan, inputs=tuple(inputs))
        case _:
            return cast("Plan", replace(node, input=inputs[0]))


def walk(plan: Plan) -> Iterator[Plan]:
    """Yield every node of the tree, each after its inputs; `plan` itself comes last."""
    pending: list[tuple[Plan, bool]] = [(plan, False)]
    while pending:
        node, opened = pending.pop()
        if opened:
            yield node
            continue
        pending.append((node, True))
        pending += [(below, False) for below in reversed(inputs_of(node))]


def fold(plan: Plan, visit: Callable[[Plan, tuple[T, ...]], T]) -> T:
    """Return `visit(node, results of its inputs)` of the top node, evaluated bottom-up."""
    results: list[T] = []
    for node in walk(plan):
        first = len(results) - len(inputs_of(node))
        below = tuple(results[first:])
        results[first:] = [visit(node, below)]
    return results[0]


def rewrite(plan: Plan, change: Callable[[Plan], Plan]) -> Plan:
    """Return the tree with `change` applied to every node, from the scans up."""
    return fold(plan, lambda node, inputs: change(with_inputs(node, inputs)))


def scans_of(plan: Plan) -> tuple[Scan, ...]:
    """Return the scans of the tree, from left to right."""
    return tuple(node for node in walk(plan) if isinstance(node, Scan))


def input_of(plan: Plan) -> Plan | None:
    """Return the one node that `plan` reads from, None for a Scan.

    Raises:
        Unsupported: it reads from several.
    """
    inputs = inputs_of(plan)
    if len(inputs) > 1:
        raise Unsupported(f"{_word(plan)} reads from {len(inputs)} inputs: the plan is not a chain")
    return inputs[0] if inputs else None


def chain(plan: Plan) -> tuple[Plan, ...]:
    """Return the nodes from the Scan up to `plan` itself.

    Raises:
        Unsupported: the plan branches, at a join or a union.
    """
    nodes = [plan]
    while (below := input_of(nodes[-1])) is not None:
        nodes.append(below)
    return tuple(reversed(nodes))


def _word(plan: Plan) -> str:
    return type(plan).__name__.lower()
