"""Errors of a run, in addition to those that all packages share.

A process that receives errors from another process imports this module, so that they arrive as
instances of their own classes.
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
    """Rows do not meet a plan's expectation; nothing was written.

    Args:
        expectation: what was expected, such as "unique(id)".
        found: what the rows are instead.
    """

    code = "expectation-failed"
    message: str = field(default="", kw_only=True)
    expectation: str
    found: str

    def describe(self) -> str:
        """Name the expectation and what was found."""
        return f"expected {self.expectation}, found {self.found}"
