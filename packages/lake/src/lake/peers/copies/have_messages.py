"""The question which of some objects a node has, and its answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from lake.peers.transport.messages import Message
from sennit_core.errors import BadInput

__all__ = ["ASKED_MAX", "MESSAGES", "HaveReply", "HaveRequest", "have_bits"]

ASKED_MAX = 1024
"""Objects of a request; their ids are 64 digits each."""


@dataclass(frozen=True, slots=True)
class HaveRequest(Message):
    """Asks which of some objects the receiver has, and has not found to be damaged.

    Args:
        objects: The objects, those of one dataset after those of another.
        datasets: The dataset of each run of objects; none if the sender is of an earlier version.
        ends: Where each run ends.
    """

    kind: ClassVar[str] = "have"
    objects: tuple[str, ...]
    datasets: tuple[str, ...] = ()
    ends: tuple[int, ...] = ()

    @classmethod
    def of(cls, pairs: Sequence[tuple[str, str]]) -> HaveRequest:
        """Return a request for objects, each with its dataset."""
        ends: dict[str, int] = {}
        for place, (dataset, _) in enumerate(pairs):
            ends[dataset] = place + 1
        return cls(tuple(name for _, name in pairs), tuple(ends), tuple(ends.values()))

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """Each object after its dataset, which is "" if it is not named.

        Raises:
            BadInput: There are too many, or the runs are not in order.
        """
        is_ordered = list(self.ends) == sorted(self.ends) and all(each > 0 for each in self.ends)
        if len(self.objects) > ASKED_MAX or len(self.ends) != len(self.datasets) or not is_ordered:
            raise BadInput(
                "a question about objects", reason="its datasets are not those of objects"
            )
        found, start = [], 0
        for dataset, end in zip((*self.datasets, ""), (*self.ends, len(self.objects)), strict=True):
            found += [(dataset, name) for name in self.objects[start:end]]
            start = max(start, end)
        return found


@dataclass(frozen=True, slots=True)
class HaveReply(Message):
    """One bit for each object of the request, the first in the lowest bit, in the body."""

    kind: ClassVar[str] = "have-reply"


MESSAGES: tuple[type[Message], ...] = (HaveRequest, HaveReply)


def have_bits(has: Sequence[bool]) -> bytes:
    """Return the body of a `HaveReply`: whether the sender has each object of the request."""
    bits = bytearray(-(-len(has) // 8))
    for index, is_set in enumerate(has):
        if is_set:
            bits[index // 8] |= 1 << (index % 8)
    return bytes(bits)
