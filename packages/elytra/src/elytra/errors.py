"""Errors of pipelines, in addition to those that all packages share."""

from __future__ import annotations

from dataclasses import dataclass, field

from sennit_core.errors import UsageError

__all__ = ["StepFailed"]


@dataclass(eq=False)
class StepFailed(UsageError):
    """A Python function of a pipeline failed, or returned what the step's columns cannot hold.

    Args:
        step: The step, such as "step 2, map(shorten)".
        reason: What happened.
        row: The row among those that the step received, from 0; of a batch, its first row.
        column: The column of the step's result that does not fit; None if it is not about one.
    """

    code = "step-failed"
    message: str = field(default="", kw_only=True)
    step: str
    reason: str
    row: int | None = None
    column: str | None = None

    def describe(self) -> str:
        """Name the step, the row, the column and the reason."""
        row = "" if self.row is None else f", row {self.row}"
        column = "" if self.column is None else f", column {self.column!r}"
        return f"{self.step}{row}{column}: {self.reason}"
