"""Sharing W: at every moment the grants of those who are live add up to W at most.

All grants grow together until one has what it wants or a moment is full; those are fixed, and the
others grow on. That is max-min fairness: nobody can have more without one who has less losing.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import TypeVar

Key = TypeVar("Key", bound=Hashable)


def share(
    moments: Sequence[frozenset[Key]], working_bytes: int, wants: Mapping[Key, float], least: int
) -> dict[Key, int]:
    """Return each one's grant in bytes.

    Args:
        moments: who is live together.
        working_bytes: W; at least `least` times the number of those who are live at any moment.
        wants: what each could make use of; what is left over in the end is shared out as well.
        least: what each gets at any rate.
    """
    keys = list(dict.fromkeys(key for moment in moments for key in sorted(moment, key=repr)))
    grants = dict.fromkeys(keys, least)
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
