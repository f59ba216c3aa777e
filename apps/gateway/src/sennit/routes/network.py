"""Routes about the network of nodes: who is in it, invites, joining, accepting, leaving."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from fastapi import APIRouter, Request
from pydantic import Field

from lake import Lake
from lake.peers.identity import fingerprint
from lake.peers.invites import INVITE_SECONDS
from lake.peers.joining import Waiting
from lake.peers.placement import FACTOR_MAX, Placement
from lake.peers.roster import MEMBERS_MAX
from lake.peers.service import NodeState, PeerService
from lake.peers.sharing import ShareInfo
from lake.routes.documents import Document
from lake.routes.requester import requester_of
from sennit.routes import network_health
from sennit_core.errors import UsageError
from sennit_core.records import DatasetInfo
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


class ShareRequest(Document):
    """Body of `PUT /api/datasets/{dataset}/sharing`: nodes by name or id, null for all members."""

    # Required: a body that omits it by mistake must not share with all.
    nodes: list[str] | None = Field(max_length=MEMBERS_MAX)
    copies: int = Field(default=1, ge=1, le=FACTOR_MAX)
    pins: list[str] = Field(default_factory=list, max_length=MEMBERS_MAX)
    only: list[str] = Field(default_factory=list, max_length=MEMBERS_MAX)
    # Null: read only for all members, while users of nodes that are named may change rows.
    read_only: bool | None = None


class AcceptRequest(Document):
    """Body of `POST /api/network/accept`."""

    fingerprint: str = Field(min_length=1, max_length=100)


def router(peers: PeerService, lake: Lake) -> APIRouter:
    """Return the routes."""
    routes = APIRouter(tags=["network"])

    @routes.get("/api/network", openapi_extra=needs("reader"))
    def show(request: Request) -> dict[str, Any]:
        """The network, this node, all nodes with their states, and nodes that wait to join."""
        return _shown(peers, may_manage=request.state.principal.may("admin"))

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

    _add_sharing(routes, peers, lake)
    routes.include_router(network_health.router(peers, lake))
    return routes


def _add_sharing(routes: APIRouter, peers: PeerService, lake: Lake) -> None:
    @routes.get("/api/datasets/{dataset}/sharing", openapi_extra=needs("reader"))
    def sharing(dataset: str, request: Request) -> dict[str, Any]:
        """How a dataset is shared, who writes it, and the state of its copies."""
        return _sharing(peers, lake, lake.policies.visible(dataset, requester_of(request)))

    @routes.put("/api/datasets/{dataset}/sharing", openapi_extra=needs("writer"))
    def share(dataset: str, body: ShareRequest, request: Request) -> dict[str, Any]:
        """Share a dataset of this node with other nodes; needs its owner or an admin."""
        lake.policies.check_manage(dataset, requester_of(request), "sharing")
        placement = Placement(body.copies, tuple(body.pins), tuple(body.only))
        peers.share(dataset, body.nodes, placement, read_only=body.read_only)
        return _sharing(peers, lake, lake.catalog.get(dataset))

    @routes.delete("/api/datasets/{dataset}/sharing", openapi_extra=needs("writer"))
    def unshare(dataset: str, request: Request) -> dict[str, bool]:
        """Make a dataset private again; needs its owner or an admin."""
        lake.policies.check_manage(dataset, requester_of(request), "sharing")
        return {"deleted": peers.unshare(dataset) is not None}


def _sharing(peers: PeerService, lake: Lake, info: DatasetInfo) -> dict[str, Any]:
    names = {node.member.id: node.member.name for node in peers.nodes()}
    share = peers.shares().get(info.id)
    copies = peers.copies().get(peers.ciphertext_of(info.id) or info.id)
    placement = Placement() if share is None else share.placement

    def named(ids: Iterable[str]) -> list[str]:
        return [names.get(node, node) for node in ids]

    return {
        "dataset": info.id,
        "writer": None if info.node is None else names.get(info.node, info.node),
        "shared": share is not None or info.node is not None,
        "restricted": info.head is None or not lake.policies.is_open(info),
        "nodes": None if share is None or "*" in share.nodes else named(share.nodes),
        "readOnly": _is_read_only(peers, info, share),
        "copies": info.replication if info.node is not None else placement.factor,
        "pins": named(placement.pins),
        "only": named(placement.only),
        "state": None
        if copies is None
        else {
            "objects": copies.objects,
            "underReplicated": copies.under_replicated,
            "unavailable": copies.unavailable,
            "missingHere": copies.missing_here,
            "lacking": {names.get(n, n): count for n, count in copies.lacking.items()},
        },
    }


def _is_read_only(peers: PeerService, info: DatasetInfo, share: ShareInfo | None) -> bool | None:
    """Return whether other nodes only read a dataset, at another node whether this one does."""
    if info.node is not None:
        return not peers.accepts_changes(info.id)
    return None if share is None else share.read_only


def _shown(peers: PeerService, *, may_manage: bool = True) -> dict[str, Any]:
    own = peers.identity.id
    return {
        "network": peers.network_id,
        "revoked": peers.is_revoked,
        "mayManage": may_manage,
        "node": {
            "id": own,
            "name": peers.options.name,
            "fingerprint": fingerprint(own),
            "port": peers.port or None,
        },
        "nodes": [_state(each) for each in peers.nodes()],
        "waiting": [_waiting(each) for each in peers.waiting()],
        "counters": peers.counters().to_json(),
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
