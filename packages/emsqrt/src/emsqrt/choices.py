"""The planner's choices for an operator, as plain values that can be sent to a child process."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self


@dataclass(frozen=True, slots=True)
class JoinChoice:
    """How a join is carried out; the resulting rows do not depend on it.

    Args:
        ordered: whether the order of the join's rows is observable; if not, it is not preserved.
        merge: the left keys in the order by which both sides are sorted; empty for a hash join.
        build_bytes: estimated size of the build side's rows, None when unknown.
        build_left: whether the left side is built and the right one probes; where order counts,
            the output is sorted then.
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
"""The default: a hash join, with nothing known about its inputs."""
