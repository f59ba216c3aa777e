"""Asks a node of a network for admission; `lake.peers.members.joining` has its side of the conversation."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING

from lake.peers.members.invites import Invite, JoinRequest
from lake.peers.members.joining import Join, Welcome
from lake.peers.members.roster import Roster
from lake.peers.transport.channel import dial
from lake.peers.transport.session import Session
from lake.peers.transport.signed import Statement
from sennit_core.errors import Denied

if TYPE_CHECKING:
    from lake.peers.joined import NodeParts

__all__ = ["JOIN_SECONDS", "ask_for_admission"]

JOIN_SECONDS = 20.0


async def ask_for_admission(
    parts: NodeParts, address: str, node: str, invite: Invite | None
) -> tuple[Roster, Sequence[Statement]]:
    """Return the roster with this node, and statuses of others.

    Args:
        parts: This node.
        address: Where the other one listens.
        node: Its id.
        invite: What it has invited this node with; None asks its admin.

    Raises:
        Unavailable: It cannot be reached.
        WaitingToJoin: No admin has accepted this node yet.
        Denied: It refuses, or its answer does not fit.
    """
    identity, options = parts.identity, parts.options
    channel = await dial(identity, node, address, anonymous=True)
    talk = Session(
        channel, parts.codec, {}, lambda _peer, _message: None, limits=options.limits, dialed=True
    )
    reading = asyncio.create_task(talk.run())
    try:
        request = JoinRequest.make(
            identity, options.name, node, now=parts.clock.now(), invite=invite
        )
        join = Join(request.statement, None if invite is None else invite.statement)
        welcome, _ = await talk.call(join, timeout_seconds=JOIN_SECONDS)
    finally:
        await talk.close()
        await asyncio.wait((reading,))
    if not isinstance(welcome, Welcome):
        raise Denied("joining: the answer is no welcome")
    members = Roster(welcome.network, welcome.roster)
    if invite is not None and invite.network != members.network:
        raise Denied("joining: the answer is of another network")
    if not (members.is_member(identity.id) and members.is_member(node)):
        raise Denied("joining: the answer's roster has not both nodes")
    return members, welcome.statuses
