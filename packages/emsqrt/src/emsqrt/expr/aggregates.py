"""The constants that follow an aggregate's argument, as in `quantile(x, 0.9)`."""

from __future__ import annotations

from collections.abc import Sequence

from emsqrt.expr.functions import AGGREGATES
from emsqrt.expr.literals import make_literal
from emsqrt.expr.nodes import Expr, Literal
from sennit_core.errors import UsageError
from sennit_core.schema import DataType


def check_params(name: str, params: Sequence[Expr]) -> tuple[Literal, ...]:
    """Return the constants of aggregate `name` in the types that plans use.

    Raises:
        UsageError: too many or too few, not constants, or a quantile outside 0 to 1.
    """
    wanted = AGGREGATES[name].params
    if len(params) != wanted:
        raise UsageError(f"{name} takes {wanted} constant(s) after its argument, not {len(params)}")
    return tuple(_fraction(name, param) for param in params)


def _fraction(name: str, param: Expr) -> Literal:
    value = param.value if isinstance(param, Literal) else None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise UsageError(f"{name} takes a constant from 0 to 1, not {param!s}")
    return make_literal(float(value), DataType("Float64"))
