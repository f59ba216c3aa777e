"""Routes about the network of nodes: who is in it, invites, joining, accepting, leaving."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from fastapi import APIRouter, Request
from pydantic import Field

from lake import Lake
from lake.peers.members.announcements import network_tag
from lake.peers.members.invites import INVITE_SECONDS
from lake.peers.members.joining import Waiting
from lake.peers.service import NodeState, PeerService
from lake.peers.transport.identity import fingerprint
from lake.routes.documents import Document
from sennit.routes import network_datasets, network_health, network_queue
from sennit_core.errors import Conflict, UsageError
from sennit_core.roles import needs

__all__ = ["router"]

_INVITE_SECONDS_MAX = 30 * 24 * 3600.0
_TEXT_MAX = 16_384


class InviteRequest(Document):
    """Body of `POST /api/network/invites`."""

    seconds: float = Field(default=INVITE_SECONDS, gt=0, le=_INVITE_SECONDS_MAX)
    admin: bool = False


class JoinNetwork(Document):
    """Body of `POST /api/network/join`: an invite, or the address and id of a node to ask."""

    invite: str | None = Field(default=None, max_length=_TEXT_MAX)
    address: str | None = Field(default=None, max_length=300)
    node: str | None = Field(default=None, max_length=64)


class AcceptRequest(Document):
    """Body of `POST /api/network/accept`."""

    fingerprint: str = Field(min_length=1, max_length=100)


def router(peers: PeerService, lake: Lake) -> APIRouter:
    """Return the routes."""
    routes = APIRouter(tags=["network"])

    @routes.get("/api/network", openapi_extra=needs("reader"))
    def show(request: Request) -> dict[str, Any]:
        """The network, this node, all nodes with their states, and nodes that wait to join."""
        user = request.state.principal
        return _shown(peers) | {"mayManage": user.may("admin"), "mayWrite": user.may("writer")}

    @routes.post("/api/network/invites", status_code=201, openapi_extra=needs("admin"))
    def invite(body: InviteRequest) -> dict[str, str]:
        """Make an invite for one node; the first one founds a network."""
        return {"invite": peers.invite(seconds=body.seconds, admin=body.admin)}

    @routes.post("/api/network/join", openapi_extra=needs("admin"))
    def join(body: JoinNetwork) -> dict[str, Any]:
        """Join a network: with an invite, or by asking a node whose owner accepts this one."""
        if body.invite is not None and body.address is None and body.node is None:
            peers.join(body.invite)
        elif body.invite is None and body.address is not None and body.node is not None:
            # Without waiting here: the client asks again, and can be interrupted.
            peers.ask_to_join(body.address, body.node, wait_seconds=0)
        else:
            raise UsageError("joining needs an invite, or the address and the id of a node")
        return _shown(peers)

    @routes.post("/api/network/accept", openapi_extra=needs("admin"))
    def accept(body: AcceptRequest) -> dict[str, Any]:
        """Admit a node that waits, by its whole fingerprint."""
        return peers.accept(body.fingerprint).to_json()

    @routes.get("/api/network/nodes/{node}", openapi_extra=needs("admin"))
    def revocable(node: str) -> dict[str, Any]:
        """The member that DELETE would remove; refused as that would be."""
        return peers.revocable(node).to_json()

    @routes.delete("/api/network/nodes/{node}", openapi_extra=needs("admin"))
    def revoke(node: str) -> dict[str, Any]:
        """Remove a node from the network for ever."""
        return peers.revoke(node).to_json()

    @routes.get("/api/network/discover", openapi_extra=needs("admin"))
    def discover() -> dict[str, Any]:
        """The nodes that are announced on the local network; nothing of that is verified."""
        return _discovered(peers)

    routes.include_router(network_datasets.router(peers, lake))
    routes.include_router(network_health.router(peers, lake))
    routes.include_router(network_queue.router(peers, lake))
    return routes


def _shown(peers: PeerService) -> dict[str, Any]:
    own, nodes = peers.identity.id, peers.nodes()
    names = {each.member.id: each.member.name for each in nodes}
    return {
        "time": time.time(),
        "network": peers.network_id,
        "revoked": peers.is_revoked,
        "mayManage": True,
        "mayWrite": True,
        "discovers": peers.discovery is not None,
        "node": {
            "id": own,
            "name": peers.options.name,
            "fingerprint": fingerprint(own),
            "port": peers.port or None,
        },
        "nodes": [_state(each, names) for each in nodes],
        "waiting": [_waiting(each) for each in peers.waiting()],
        "counters": peers.counters().to_json(),
    }


def _discovered(peers: PeerService) -> dict[str, Any]:
    discovery = peers.discovery
    if discovery is None:
        raise Conflict(
            "this node does not search the local network",
            hint="set network.discovery = true in its config.toml, and start it again",
        )
    network = peers.network_id
    own_tag = None if network is None else network_tag(network)
    members = {each.member.id for each in peers.nodes() if not each.member.revoked}
    return {
        "announced": discovery.problem is None,
        "problem": discovery.problem,
        "nodes": [
            {
                "id": each.node,
                "name": each.name,
                "fingerprint": fingerprint(each.node),
                "addresses": list(each.addresses),
                "member": each.node in members,
                "sameNetwork": each.network == own_tag,
            }
            for each in discovery.found()
        ],
    }


def _state(node: NodeState, names: Mapping[str, str]) -> dict[str, Any]:
    status, connection = node.status, node.connection
    return {
        "id": node.member.id,
        "name": node.member.name,
        "fingerprint": fingerprint(node.member.id),
        "admin": node.member.admin,
        "state": node.state,
        "since": node.member.since,
        "heardAt": node.heard_at or None,
        "addresses": [] if status is None else list(status.addresses),
        "zone": None if status is None else status.zone or None,
        "version": None if status is None else status.version,
        "capacityBytes": None if status is None else status.capacity,
        "usedBytes": None if status is None else status.used,
        "rttSeconds": node.rtt_seconds,
        "connection": None
        if connection is None
        else {
            "relay": names.get(connection.relay, connection.relay) or None,
            "sentBytes": connection.sent_bytes,
            "receivedBytes": connection.received_bytes,
        },
        "cannot": list(node.cannot),
    }


def _waiting(node: Waiting) -> dict[str, Any]:
    return {
        "id": node.node,
        "name": node.name,
        "fingerprint": node.fingerprint,
        "since": node.since,
    }
