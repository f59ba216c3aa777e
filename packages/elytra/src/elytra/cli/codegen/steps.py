"""What all forms of generated code have in common: the order of the steps, and what has no form."""

from __future__ import annotations

from emsqrt.expr import Column, Expr, parse_expr
from emsqrt.expr.wire import expr_to_json
from emsqrt.plan import Plan, Scan, inputs_of
from sennit_core.errors import SennitError, Unsupported

__all__ = ["leading_columns", "no_form", "spine_of", "text_of"]


def spine_of(plan: Plan) -> tuple[Scan, list[Plan]]:
    """Return the first scan of a plan and the operators above it, from the first to the last."""
    nodes = [plan]
    while below := inputs_of(nodes[-1]):
        nodes.append(below[0])
    scan, *steps = reversed(nodes)
    assert isinstance(scan, Scan), "every plan begins with one"
    return scan, steps


def text_of(expr: Expr, form: str) -> str:
    """Return an expression as `parse_expr` reads it."""
    text = str(expr)
    try:
        same = expr_to_json(parse_expr(text)) == expr_to_json(expr)
    except SennitError:
        same = False
    if not same:
        raise no_form(f"the expression {text:.100}", form)
    return text


def leading_columns(columns: tuple[tuple[str, Expr], ...]) -> int:
    """Return how many columns at the beginning keep their name, and are written by it alone."""
    plain = (isinstance(expr, Column) and expr.name == name for name, expr in columns)
    return next((at for at, same in enumerate(plain) if not same), len(columns))


def no_form(what: str, form: str) -> Unsupported:
    """Return the error for what a form cannot express."""
    return Unsupported(f"{what} has no form in {form}", hint="use --to json, which has all plans")
