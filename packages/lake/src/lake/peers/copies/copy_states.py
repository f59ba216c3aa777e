"""What a node knows of the copies of a dataset, in numbers that can be added."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ["CopyState", "Handover"]


@dataclass(frozen=True, slots=True)
class CopyState:
    """The copies of a dataset, as this node knows them.

    Args:
        objects: Their number.
        under_replicated: How many have fewer live copies than they should.
        unavailable: How many have none.
        missing_here: How many this node is to hold and lacks.
        lacking: How many each other node is to hold and lacks, by node.
        copies: How many each should have.
        places: How many nodes can hold the one with the fewest.
        held: How many this node has.
    """

    objects: int
    under_replicated: int
    unavailable: int
    missing_here: int
    lacking: Mapping[str, int]
    copies: int = 1
    places: int = 1
    held: int = 0

    @property
    def is_placed(self) -> bool:
        """Whether every node that is to hold copies now has said that it does."""
        return not self.missing_here and not self.lacking

    def __add__(self, other: CopyState) -> CopyState:
        """Return the state of two parts of a dataset."""
        return CopyState(
            self.objects + other.objects,
            self.under_replicated + other.under_replicated,
            self.unavailable + other.unavailable,
            self.missing_here + other.missing_here,
            dict(Counter(self.lacking) + Counter(other.lacking)),
            self.copies,
            min(self.places, other.places),
            self.held + other.held,
        )


@dataclass(frozen=True, slots=True)
class Handover:
    """What a node that leaves is still needed for.

    Args:
        objects: Objects of shared datasets that it has.
        waiting: Those of them that not all nodes that are to hold them have confirmed.
        homeless: Those of these that no other node is to hold.
    """

    objects: int = 0
    waiting: int = 0
    homeless: int = 0

    def __add__(self, other: Handover) -> Handover:
        """Return that of both."""
        return Handover(
            self.objects + other.objects,
            self.waiting + other.waiting,
            self.homeless + other.homeless,
        )
