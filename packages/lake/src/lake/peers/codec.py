"""The codec of all messages between nodes."""

from __future__ import annotations

from lake.peers import (
    chunks,
    forwarding,
    fragments,
    handover_messages,
    have_messages,
    job_messages,
    joining,
    membership,
    publications,
    relay,
    repairs,
    reports,
    restricted,
    returned_rows,
    roster,
    session,
)
from lake.peers.hello import Hello
from lake.peers.messages import Message, MessageCodec

__all__ = ["peer_codec"]

_MESSAGES: tuple[type[Message], ...] = (
    Hello,
    *session.MESSAGES,
    *relay.MESSAGES,
    *joining.MESSAGES,
    *roster.MESSAGES,
    *membership.MESSAGES,
    *publications.MESSAGES,
    *have_messages.MESSAGES,
    *reports.MESSAGES,
    *repairs.MESSAGES,
    *restricted.MESSAGES,
    *forwarding.MESSAGES,
    *returned_rows.MESSAGES,
    *chunks.MESSAGES,
    *fragments.MESSAGES,
    *handover_messages.MESSAGES,
    *job_messages.MESSAGES,
)


def peer_codec() -> MessageCodec:
    """Return a codec of all messages that this version knows."""
    return MessageCodec(_MESSAGES)
