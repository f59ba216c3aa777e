"""The error of a document of steps: what is wrong, and where it stands."""

from __future__ import annotations

from dataclasses import dataclass, field

from sennit_core.errors import UsageError


@dataclass(eq=False)
class BadDocument(UsageError):
    """A document of steps makes no sense at `place`: `flow.yaml:7:12`, or `steps[2].filter`."""

    code = "bad-document"
    message: str = field(default="", kw_only=True)
    place: str
    reason: str

    def describe(self) -> str:
        """Name the place and what is wrong there."""
        return f"{self.place}: {self.reason}" if self.place else self.reason
