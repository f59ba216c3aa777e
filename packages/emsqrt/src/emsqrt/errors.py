"""What can go wrong in a run beyond the errors that all packages share.

Whoever receives errors from another process imports this, so that they arrive as the classes that
they were.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from emsqrt.expr.errors import BadExpression, BadPlan, TypeMismatch, ValueOutOfRange
from emsqrt.spill.errors import SpillDamaged, SpillError, SpillFull, SpillLost
from sennit_core.errors import SennitError

__all__ = [
    "BadExpression",
    "BadPlan",
    "ExpectationFailed",
    "SpillDamaged",
    "SpillError",
    "SpillFull",
    "SpillLost",
    "TypeMismatch",
    "ValueOutOfRange",
]


@dataclass(eq=False)
class ExpectationFailed(SennitError):
    """Rows are not as a plan expects them; nothing was written.

    Args:
        expectation: what was expected, such as "unique(id)".
        found: what came instead.
    """

    code = "expectation-failed"
    message: str = field(default="", kw_only=True)
    expectation: str
    found: str

    def describe(self) -> str:
        """Name the expectation and what came."""
        return f"expected {self.expectation}, found {self.found}"
