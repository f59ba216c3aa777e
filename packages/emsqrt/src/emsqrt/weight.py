"""What a plan needs before it reads anything, told by a process like the one that would run it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

WEIGHING_BYTES = 256 << 20
"""Room of a process that looks for a plan's smallest cap, however small the one is that was refused:
it loads what the plan needs and reads heads and footers. Hardly any of it is taken: 35 to 60 MiB."""


class Weight(NamedTuple):
    """What a plan needs, and what it would have under a cap.

    Args:
        cap_bytes: the smallest cap under which it is admitted.
        because: why less is refused.
        working_bytes: W under the cap that was asked about; 0 when nobody holds rows, or it is
            refused, or more than there is here.
        leasts: what each operator that holds rows cannot do without, by place.
    """

    cap_bytes: int
    because: str
    working_bytes: int
    leasts: dict[int, int]

    def to_json(self) -> dict[str, Any]:
        """Return it as plain values."""
        return {**self._asdict(), "leasts": list(self.leasts.items())}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Weight:
        """Return what `to_json` described."""
        return cls(**{**document, "leasts": dict(map(tuple, document["leasts"]))})
