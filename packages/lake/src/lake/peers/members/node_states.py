"""The nodes of a network as one of them sees them."""

from __future__ import annotations

from lake.peers.members.health import Connection, NodeState
from lake.peers.members.membership import Membership, Peer
from lake.peers.members.roster import Member, Roster
from lake.peers.transport.network import PeerNetwork

__all__ = ["node_states"]


def node_states(roster: Roster, members: Membership, sessions: PeerNetwork) -> list[NodeState]:
    """Return all members that were not revoked, this node first, the others by name."""
    own = members.own.node
    found = []
    for node, member in roster.members.items():
        if member.revoked:
            continue
        if node == own:
            found.append(NodeState(member, members.own.state, members.own))
        else:
            found.append(_other(member, members.peers.get(node), members, sessions))
    return sorted(found, key=lambda each: (each.member.id != own, each.member.name))


def _other(
    member: Member, peer: Peer | None, members: Membership, sessions: PeerNetwork
) -> NodeState:
    session, traffic = sessions.open_session(member.id), sessions.traffic(member.id)
    connection = None
    if session is not None:
        relay = session.channel.relay
        connection = Connection(relay, traffic.sent_bytes, traffic.received_bytes)
    if peer is None:
        return NodeState(member, "unknown", None, connection=connection, heard_at=traffic.heard_at)
    status = peer.status
    cannot = tuple(each for each in members.own.features if each not in status.features)
    if members.own.duckdb != status.duckdb:
        cannot = (*cannot, "aggregate-states")
    # The time of a statement is by the clock of its node, which may be ahead.
    heard_at = max(traffic.heard_at, peer.statement.issued_at)
    return NodeState(member, peer.state, status, peer.rtt, cannot, connection, heard_at)
