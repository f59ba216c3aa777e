"""The codec of all messages between nodes."""

from __future__ import annotations

from lake.peers.changes import forwarding, returned_rows
from lake.peers.copies import chunks, have_messages, repairs
from lake.peers.handovers import messages as handover_messages
from lake.peers.jobs import messages as job_messages
from lake.peers.members import joining, membership, reports, roster
from lake.peers.queries import fragments, restricted
from lake.peers.sharing import publications
from lake.peers.transport import relay, session
from lake.peers.transport.hello import Hello
from lake.peers.transport.messages import Message, MessageCodec

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
