"""What the nodes of a hand-over send each other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from lake.peers.transport.messages import Message
from lake.peers.transport.signed import Statement

__all__ = ["MESSAGES", "HandOverRefusal", "HandOverReply", "HandOverRequest"]


@dataclass(frozen=True, slots=True)
class HandOverRequest(Message):
    """Asks the writer of a dataset to hand it over to the sender, to whom it was offered.

    Args:
        dataset: Its id.
        manifest: Object id of the newest manifest of which the sender has every object; "" only asks
            whether it is offered.
    """

    kind: ClassVar[str] = "hand-over"
    dataset: str
    manifest: str = ""


@dataclass(frozen=True, slots=True)
class HandOverRefusal(Message):
    """Says that the sender will not write a dataset that was offered to it.

    Args:
        dataset: Its id.
        reason: Why, for the users of the writer.
    """

    kind: ClassVar[str] = "hand-over-refused"
    dataset: str
    reason: str


@dataclass(frozen=True, slots=True)
class HandOverReply(Message):
    """The answer to both.

    Args:
        chain: The statements that make the sender the writer; empty if the writer has not signed.
    """

    kind: ClassVar[str] = "handed-over"
    chain: tuple[Statement, ...] = ()


MESSAGES: tuple[type[Message], ...] = (HandOverRequest, HandOverRefusal, HandOverReply)
