"""The error of a document of steps: the problem, and its position."""

from __future__ import annotations

from dataclasses import dataclass, field

from sennit_core.errors import UsageError


@dataclass(eq=False)
class BadDocument(UsageError):
    """A document of steps is invalid at `place`: `flow.yaml:7:12`, or `steps[2].filter`."""

    code = "bad-document"
    message: str = field(default="", kw_only=True)
    place: str
    reason: str

    def describe(self) -> str:
        """Name the position and the problem."""
        return f"{self.place}: {self.reason}" if self.place else self.reason
