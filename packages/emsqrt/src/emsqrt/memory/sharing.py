"""Sharing W: at every moment the grants of those who are live add up to W at most.

Each has the least that it can work in. Beyond that all grants grow together until one has what it
wants or a moment is full; those are fixed, and the others grow on. That is max-min fairness: nobody
can grow more without one who has grown less losing.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self, TypeVar

HOLDER_BYTES_MIN = 512 << 10
"""The least that an operator works in: three blocks and a merge, or a join's table and buffers."""

READERS_SHARE = 16
"""One part in so many of what is left over is for records that are longer than a block."""

Key = TypeVar("Key", bound=Hashable)


def share(
    moments: Sequence[frozenset[Key]],
    working_bytes: int,
    wants: Mapping[Key, float],
    leasts: Mapping[Key, int],
) -> dict[Key, int]:
    """Return each one's grant in bytes.

    Args:
        moments: who is live together.
        working_bytes: W; at least the sum of `leasts` of those who are live at any moment.
        wants: what each could make use of; what is left over in the end is shared out as well.
        leasts: what each gets at any rate.
    """
    keys = list(dict.fromkeys(key for moment in moments for key in sorted(moment, key=repr)))
    grants = {key: leasts[key] for key in keys}
    for limits in (wants, dict.fromkeys(keys, float(working_bytes))):
        open_keys = {key for key in keys if grants[key] < limits[key]}
        while open_keys:
            step = min(
                [_room(moment, open_keys, grants, working_bytes) for moment in moments]
                + [int(limits[key]) - grants[key] for key in open_keys]
            )
            for key in open_keys:
                grants[key] += max(0, step)
            open_keys = {
                key
                for key in open_keys
                if grants[key] < int(limits[key])
                and all(
                    _room(moment, open_keys, grants, working_bytes) > 0
                    for moment in moments
                    if key in moment
                )
            }
    return grants


def _room(
    moment: frozenset[Key], open_keys: set[Key], grants: Mapping[Key, int], working_bytes: int
) -> int:
    """Return by how much each open grant of a moment may grow; W when it has none."""
    growing = len(moment & open_keys)
    if not growing:
        return working_bytes
    return (working_bytes - sum(grants[key] for key in moment)) // growing


@dataclass(frozen=True, slots=True)
class Sharing:
    """Who holds memory together, known before a run; small enough to be sent to a child.

    Args:
        moments: ids of the operators that are live together.
        wants: what each could make use of.
        leasts: what each cannot do without, where that is more than `HOLDER_BYTES_MIN`.
    """

    moments: tuple[frozenset[int], ...]
    wants: Mapping[int, float]
    leasts: Mapping[int, int] = field(default_factory=dict)

    @property
    def live_max(self) -> int:
        """The most operators that are live at once."""
        return max(map(len, self.moments), default=0)

    @property
    def needed_bytes(self) -> int:
        """The least W in which all who are live at once can work."""
        return max((sum(map(self._least, moment)) for moment in self.moments), default=0)

    def with_holders(self, holders: Collection[int], leasts: Mapping[int, int] = {}) -> Sharing:
        """Return the same with those alone who do hold; strangers are live at every moment."""
        held = frozenset(holders)
        strangers = held - frozenset[int]().union(*self.moments)
        moments = {(moment & held) | strangers for moment in self.moments} | {strangers}
        moments.discard(frozenset())
        wants = {holder: self.wants.get(holder, float("inf")) for holder in holders}
        return Sharing(tuple(sorted(moments, key=sorted)), wants, leasts)

    def grants(self, working_bytes: int) -> dict[int, int]:
        """Return each one's grant out of W."""
        wants = {key: min(want, float(working_bytes)) for key, want in self.wants.items()}
        leasts = {key: self._least(key) for key in wants}
        return share(self.moments, working_bytes, wants, leasts)

    def _least(self, holder: int) -> int:
        return max(HOLDER_BYTES_MIN, self.leasts.get(holder, 0))

    def to_json(self) -> dict[str, Any]:
        """Return it as plain values."""
        return {
            "moments": [sorted(moment) for moment in self.moments],
            "wants": [[place, want] for place, want in self.wants.items()],
        }

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Self:
        """Return what `to_json` described."""
        moments = tuple(frozenset(moment) for moment in document["moments"])
        return cls(moments, {int(place): float(want) for place, want in document["wants"]})


EVERYBODY = Sharing((), {})
"""Nothing is known, so all who hold are live at once."""
