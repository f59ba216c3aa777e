"""A plan's memory requirement, measured before reading by a process like the run's own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

ESTIMATE_PROCESS_BYTES = 256 << 20
"""Memory for a process that searches a plan's smallest cap, however small the refused cap is: it
loads what the plan needs and reads headers and footers. It usually uses 35 to 60 MiB of it."""


class MemoryRequirement(NamedTuple):
    """A plan's memory requirement, and its shares under a cap.

    Args:
        cap_bytes: the smallest cap under which it is admitted.
        because: why a smaller cap is refused.
        working_bytes: W under the requested cap; 0 when no operator holds rows, or when the cap is
            refused or exceeds the memory of the machine.
        minimums: the minimum of each operator that holds rows, by node.
    """

    cap_bytes: int
    because: str
    working_bytes: int
    minimums: dict[int, int]

    def to_json(self) -> dict[str, Any]:
        """Return it as plain values."""
        return {**self._asdict(), "minimums": list(self.minimums.items())}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> MemoryRequirement:
        """Return what `to_json` described."""
        return cls(**{**document, "minimums": dict(map(tuple, document["minimums"]))})
