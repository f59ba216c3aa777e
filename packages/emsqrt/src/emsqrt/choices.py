"""What a planner chose for an operator, in plain values that can be sent to a lean child."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self


@dataclass(frozen=True, slots=True)
class JoinChoice:
    """How a join is carried out; never what comes out of it.

    Args:
        ordered: whether anybody can tell the order of its rows; else no work is spent on it.
        merge: the left keys in the order by which both sides are sorted; empty for a hash join.
        build_bytes: what the right side's rows are estimated to take, None when nobody knows.
    """

    ordered: bool = True
    merge: tuple[str, ...] = ()
    build_bytes: int | None = None

    def to_json(self) -> dict[str, Any]:
        """Return it as plain values."""
        return {"ordered": self.ordered, "merge": list(self.merge), "buildBytes": self.build_bytes}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Self:
        """Return what `to_json` described."""
        return cls(document["ordered"], tuple(document["merge"]), document["buildBytes"])


HASHED = JoinChoice()
"""Nothing is known."""
