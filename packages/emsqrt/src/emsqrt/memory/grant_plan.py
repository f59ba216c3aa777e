"""Share the working memory W among operators, so that those live at the same time fit W together.

A live set is a set of operators that hold memory at the same time. Each operator gets the least
that it can work in. Beyond that, all grants grow equally until one reaches what its operator wants,
or the operators of a live set use all of W; those grants are fixed, and the others keep growing.
That is max-min fairness: no grant can grow further without shrinking one that has grown less.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self, TypeVar

HOLDER_BYTES_MIN = 512 << 10
"""The least memory of an operator: three blocks and a merge, or a join's table and buffers."""

READERS_SHARE = 16
"""This fraction of the memory that is left over is for records longer than a block."""

Key = TypeVar("Key", bound=Hashable)


def share(
    live_sets: Sequence[frozenset[Key]],
    working_bytes: int,
    wants: Mapping[Key, float],
    minimums: Mapping[Key, int],
) -> dict[Key, int]:
    """Return each operator's grant in bytes.

    Args:
        live_sets: the sets of operators that are live at the same time.
        working_bytes: W; at least the sum of `minimums` of every live set.
        wants: the most that each operator could use; memory left over is shared out as well.
        minimums: the least that each operator gets.
    """
    # First up to what each operator wants, then the memory left over without that limit.
    # Sorted, so that equal plans have equal grants: sets have no order of their own.
    keys = list(dict.fromkeys(key for live_set in live_sets for key in sorted(live_set, key=repr)))
    grants = {key: minimums[key] for key in keys}
    for limits in (wants, dict.fromkeys(keys, float(working_bytes))):
        open_keys = {key for key in keys if grants[key] < limits[key]}
        # Progressive filling, the usual algorithm for max-min fairness. Each round grows all open
        # grants by the same step, and closes at least one:
        #
        #     W = 10, live sets {A, B} and {B, C}, A wants 2
        #     round 1   step 2   A 2  B 2  C 2    A has what it wants
        #     round 2   step 3   A 2  B 5  C 5    {B, C} is full
        #     then, without the limits of `wants`: A grows to 5
        while open_keys:
            # Rounded down by `_room`: a step of 0 closes the grants of a live set with less than a
            # byte each.
            step = min(
                [_room(live_set, open_keys, grants, working_bytes) for live_set in live_sets]
                + [int(limits[key]) - grants[key] for key in open_keys]
            )
            for key in open_keys:
                grants[key] += max(0, step)
            open_keys = {
                key
                for key in open_keys
                if grants[key] < int(limits[key])
                and all(
                    _room(live_set, open_keys, grants, working_bytes) > 0
                    for live_set in live_sets
                    if key in live_set
                )
            }
    return grants


def _room(
    live_set: frozenset[Key], open_keys: set[Key], grants: Mapping[Key, int], working_bytes: int
) -> int:
    """Return by how much each open grant of a live set may grow; W if it has no open grant."""
    growing = len(live_set & open_keys)
    if not growing:
        return working_bytes
    return (working_bytes - sum(grants[key] for key in live_set)) // growing


@dataclass(frozen=True, slots=True)
class GrantPlan:
    """Which operators hold memory at the same time, known before a run; sent to the child process.

    Args:
        live_sets: ids of the operators that are live at the same time.
        wants: the most memory that each operator could use.
        minimums: the least memory of each operator that needs more than `HOLDER_BYTES_MIN`.
    """

    live_sets: tuple[frozenset[int], ...]
    wants: Mapping[int, float]
    minimums: Mapping[int, int] = field(default_factory=dict)

    @property
    def live_max(self) -> int:
        """The most operators that are live at the same time."""
        return max(map(len, self.live_sets), default=0)

    @property
    def needed_bytes(self) -> int:
        """The least W in which all operators of every live set can work."""
        return max((sum(map(self._least, live_set)) for live_set in self.live_sets), default=0)

    def with_holders(self, holders: Collection[int], minimums: Mapping[int, int] = {}) -> GrantPlan:
        """Return the plan of `holders` alone; operators that it lacks are live all the time."""
        held = frozenset(holders)
        unknown = held - frozenset[int]().union(*self.live_sets)
        live_sets = {(live_set & held) | unknown for live_set in self.live_sets} | {unknown}
        live_sets.discard(frozenset())
        # An operator that the plan does not know has no known need: it may grow to all that is
        # left.
        wants = {holder: self.wants.get(holder, float("inf")) for holder in holders}
        return GrantPlan(tuple(sorted(live_sets, key=sorted)), wants, minimums)

    def grants(self, working_bytes: int) -> dict[int, int]:
        """Return each operator's share of W."""
        wants = {key: min(want, float(working_bytes)) for key, want in self.wants.items()}
        minimums = {key: self._least(key) for key in wants}
        return share(self.live_sets, working_bytes, wants, minimums)

    def _least(self, holder: int) -> int:
        return max(HOLDER_BYTES_MIN, self.minimums.get(holder, 0))

    def to_json(self) -> dict[str, Any]:
        """Return the plan as JSON values."""
        return {
            "liveSets": [sorted(live_set) for live_set in self.live_sets],
            "wants": [[place, want] for place, want in self.wants.items()],
        }

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Self:
        """Return the plan that `to_json` described."""
        live_sets = tuple(frozenset(live_set) for live_set in document["liveSets"])
        return cls(live_sets, {int(place): float(want) for place, want in document["wants"]})


ALL_LIVE = GrantPlan((), {})
"""Nothing is known, so all operators that hold memory are live at the same time."""
