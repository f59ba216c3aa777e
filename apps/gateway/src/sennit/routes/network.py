"""Routes about the network of nodes: who is in it, invites, joining, accepting, leaving."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field

from lake.peers.identity import fingerprint
from lake.peers.invites import INVITE_SECONDS
from lake.peers.joining import Waiting
from lake.peers.service import NodeState, PeerService
from sennit_core.errors import UsageError
from sennit_core.roles import needs

__all__ = ["router"]

_INVITE_SECONDS_MAX = 30 * 24 * 3600.0
_TEXT_MAX = 16_384


class InviteRequest(BaseModel):
    """Body of `POST /api/network/invites`."""

    model_config = ConfigDict(extra="forbid")
    seconds: float = Field(default=INVITE_SECONDS, gt=0, le=_INVITE_SECONDS_MAX)
    admin: bool = False


class JoinNetwork(BaseModel):
    """Body of `POST /api/network/join`: an invite, or the address and id of a node to ask."""

    model_config = ConfigDict(extra="forbid")
    invite: str | None = Field(default=None, max_length=_TEXT_MAX)
    address: str | None = Field(default=None, max_length=300)
    node: str | None = Field(default=None, max_length=64)


class AcceptRequest(BaseModel):
    """Body of `POST /api/network/accept`."""

    model_config = ConfigDict(extra="forbid")
    fingerprint: str = Field(min_length=1, max_length=100)


def router(peers: PeerService) -> APIRouter:
    """Return the routes."""
    routes = APIRouter(tags=["network"])

    @routes.get("/api/network", openapi_extra=needs("reader"))
    def show() -> dict[str, Any]:
        """The network, this node, all nodes with their states, and nodes that wait to join."""
        return _shown(peers)

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

    @routes.delete("/api/network/nodes/{node}", openapi_extra=needs("admin"))
    def revoke(node: str) -> dict[str, Any]:
        """Remove a node from the network for ever."""
        return peers.revoke(node).to_json()

    @routes.post("/api/network/leave", openapi_extra=needs("admin"))
    def leave() -> dict[str, Any]:
        """Leave the network."""
        peers.leave()
        return _shown(peers)

    return routes


def _shown(peers: PeerService) -> dict[str, Any]:
    own = peers.identity.id
    return {
        "network": peers.network_id,
        "revoked": peers.is_revoked,
        "node": {
            "id": own,
            "name": peers.options.name,
            "fingerprint": fingerprint(own),
            "port": peers.port or None,
        },
        "nodes": [_state(each) for each in peers.nodes()],
        "waiting": [_waiting(each) for each in peers.waiting()],
    }


def _state(node: NodeState) -> dict[str, Any]:
    status = node.status
    return {
        "id": node.member.id,
        "name": node.member.name,
        "admin": node.member.admin,
        "state": node.state,
        "since": node.member.since,
        "addresses": [] if status is None else list(status.addresses),
        "zone": None if status is None else status.zone or None,
        "version": None if status is None else status.version,
        "rttSeconds": node.rtt_seconds,
        "cannot": list(node.cannot),
    }


def _waiting(node: Waiting) -> dict[str, Any]:
    return {
        "id": node.node,
        "name": node.name,
        "fingerprint": node.fingerprint,
        "since": node.since,
    }
