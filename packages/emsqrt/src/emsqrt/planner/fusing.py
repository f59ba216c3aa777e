"""Fuse neighbouring operators into one: filters, projections, limits, sort and limit."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from emsqrt.expr import Column, Expr, Literal
from emsqrt.expr.check import bind
from emsqrt.plan import (
    Distinct,
    Filter,
    Limit,
    Plan,
    Project,
    Sort,
    TopK,
    rewrite,
    with_inputs,
)
from emsqrt.plan.tree import fold
from emsqrt.planner.schemas import schemas_known, schemas_of
from emsqrt.planner.substitution import conjunction, conjuncts, substitute, uses_of


def fuse(plan: Plan, folder: Path) -> Plan:
    """Fuse neighbouring operators: sort and limit to top_k, two filters to one, and the like."""
    del folder
    if schemas_known(plan):
        plan = _fuse_expressions(plan)
    return rewrite(plan, _fused)


def _fused(node: Plan) -> Plan:
    match node:
        case Limit(TopK() | Sort() as below, count, offset):
            return _first_rows(below, count, offset)
        # The outer offset skips rows of the inner limit, so fewer of these are left.
        case Limit(Limit(below, inner, inner_offset), count, offset):
            return Limit(below, min(count, max(0, inner - offset)), inner_offset + offset)
        # Sorts are stable: rows that are equal by the outer keys keep the order of the inner ones.
        case Sort(Sort(below, inner), keys):
            return Sort(below, (*keys, *inner))
        case Distinct(Distinct(columns=None) as below, None):
            return below
    return node


def _first_rows(below: TopK | Sort, count: int, offset: int) -> TopK:
    if isinstance(below, Sort):
        return TopK(below.input, below.keys, count, offset)
    left = min(count, max(0, below.count - offset))
    return replace(below, count=left, offset=below.offset + offset)


def _fuse_expressions(plan: Plan) -> Plan:
    """Fuse filters and projections bottom-up; the schemas determine which expressions may fail."""

    def visit(node: Plan, inputs: tuple[Plan, ...]) -> Plan:
        node = with_inputs(node, inputs)
        match node:
            case Filter(Filter(below, first), second):
                schema = schemas_of(below)[id(below)]
                # In one conjunction, a term that may fail would also be evaluated on rows for which
                # the inner filter is NULL.
                if not any(bind(term, schema).fallible for term in conjuncts(second)):
                    return Filter(below, conjunction([*conjuncts(first), *conjuncts(second)]))
            case Project(Project() as inner, outer):
                return _one_projection(inner, outer) or node
        return node

    return fold(plan, visit)


def _one_projection(inner: Project, outer: tuple[tuple[str, Expr], ...]) -> Plan | None:
    made = dict(inner.columns)
    uses: dict[str, int] = {}
    for _, expr in outer:
        for name, count in uses_of(expr).items():
            uses[name] = uses.get(name, 0) + count
    for name, count in uses.items():
        # An expression that is used twice would be computed twice.
        if count > 1 and not isinstance(made[name], Column | Literal):
            return None
    return Project(inner.input, tuple((name, substitute(expr, made)) for name, expr in outer))
