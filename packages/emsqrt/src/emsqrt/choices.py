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
        build_bytes: what the built side's rows are estimated to take, None when nobody knows.
        build_left: whether the left side is built and the right one probes; where order counts,
            what comes out is sorted then.
    """

    ordered: bool = True
    merge: tuple[str, ...] = ()
    build_bytes: int | None = None
    build_left: bool = False

    def to_json(self) -> dict[str, Any]:
        """Return it as plain values."""
        return {
            "ordered": self.ordered,
            "merge": list(self.merge),
            "buildBytes": self.build_bytes,
            "buildLeft": self.build_left,
        }

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Self:
        """Return what `to_json` described."""
        merge = tuple(document["merge"])
        return cls(document["ordered"], merge, document["buildBytes"], document["buildLeft"])


HASHED = JoinChoice()
"""Nothing is known."""
