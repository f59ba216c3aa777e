"""Routes about how datasets are shared in the network, and the state of their copies."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Self

from fastapi import APIRouter, Request
from pydantic import Field

from lake import Lake
from lake.distributed.fork_origins import ForkOrigin
from lake.peers.copies.copy_states import CopyState
from lake.peers.copies.placement import FACTOR_MAX, Placement
from lake.peers.handovers.rows import HandOverTable
from lake.peers.members.roster import MEMBERS_MAX
from lake.peers.service import PeerService
from lake.peers.sharing.sharing import ShareInfo
from lake.routes.documents import Document
from lake.routes.requester import requester_of
from lake.statements.limits import Requester
from sennit_core.errors import SennitError
from sennit_core.records import DatasetInfo
from sennit_core.roles import needs

__all__ = ["router"]

_NODE_MAX = 255


class ShareRequest(Document):
    """Body of `PUT /api/datasets/{dataset}/sharing`: nodes by name or id, null for all members."""

    # Required: a body that omits it by mistake must not share with all.
    nodes: list[str] | None = Field(max_length=MEMBERS_MAX)
    # Null: the node's setting storage.replication.
    copies: int | None = Field(default=None, ge=1, le=FACTOR_MAX)
    pins: list[str] = Field(default_factory=list, max_length=MEMBERS_MAX)
    only: list[str] = Field(default_factory=list, max_length=MEMBERS_MAX)
    # Null: read only for all members, while users of nodes that are named may change rows.
    read_only: bool | None = None


class HandOverBody(Document):
    """Body of `PUT /api/datasets/{dataset}/hand-over`: the node that is to write it, by name or id."""

    node: str = Field(min_length=1, max_length=_NODE_MAX)


class AcceptHandOverBody(Document):
    """Body of `POST /api/datasets/{dataset}/hand-over/accept`: the user who is to own it, null for the caller."""

    owner: str | None = Field(default=None, min_length=1, max_length=255)


def router(peers: PeerService, lake: Lake) -> APIRouter:
    """Return the routes."""
    routes = APIRouter(tags=["network"])

    @routes.get("/api/network/datasets", openapi_extra=needs("reader"))
    def datasets(request: Request) -> list[dict[str, Any]]:
        """The shared datasets that the user may read, of this node and of others."""
        requester, seen = requester_of(request), _Network.of(peers)
        return [
            _listed(peers, lake, seen, info, requester)
            for info in lake.policies.list(requester)
            if info.node is not None or info.id in seen.shares
        ]

    @routes.get("/api/datasets/{dataset}/sharing", openapi_extra=needs("reader"))
    def sharing(dataset: str, request: Request) -> dict[str, Any]:
        """How a dataset is shared, who writes it, and the state of its copies."""
        info = lake.policies.visible(dataset, requester_of(request))
        return _sharing(peers, lake, _Network.of(peers), info)

    @routes.put("/api/datasets/{dataset}/sharing", openapi_extra=needs("writer"))
    def share(dataset: str, body: ShareRequest, request: Request) -> dict[str, Any]:
        """Share a dataset of this node with other nodes; needs its owner or an admin."""
        lake.policies.check_manage(dataset, requester_of(request), "sharing")
        copies = body.copies or peers.options.replication
        placement = Placement(copies, tuple(body.pins), tuple(body.only))
        peers.share(dataset, body.nodes, placement, read_only=body.read_only)
        return _sharing(peers, lake, _Network.of(peers), lake.catalog.get(dataset))

    @routes.delete("/api/datasets/{dataset}/sharing", openapi_extra=needs("writer"))
    def unshare(dataset: str, request: Request) -> dict[str, bool]:
        """Make a dataset private again; needs its owner or an admin."""
        lake.policies.check_manage(dataset, requester_of(request), "sharing")
        return {"deleted": peers.unshare(dataset) is not None}

    _add_hand_overs(routes, peers, lake)
    return routes


def _add_hand_overs(routes: APIRouter, peers: PeerService, lake: Lake) -> None:
    def sharing(dataset: str) -> dict[str, Any]:
        return _sharing(peers, lake, _Network.of(peers), lake.catalog.get(dataset))

    @routes.put("/api/datasets/{dataset}/hand-over", openapi_extra=needs("writer"))
    def hand_over(dataset: str, body: HandOverBody, request: Request) -> dict[str, Any]:
        """Let another node become the writer of a dataset; needs its owner or an admin."""
        info = lake.policies.check_manage(dataset, requester_of(request), "handing over")
        peers.hand_overs.offer(info.id, body.node)
        return sharing(info.id)

    @routes.delete("/api/datasets/{dataset}/hand-over", openapi_extra=needs("writer"))
    def undo(dataset: str, request: Request) -> dict[str, Any]:
        """End a hand-over that is not signed, here or at the node that accepts it."""
        info = lake.policies.check_manage(dataset, requester_of(request), "handing over")
        peers.hand_overs.undo(info.id)
        return sharing(info.id)

    # An admin's, as the dataset counts on this node's disk.
    @routes.post(
        "/api/datasets/{dataset}/hand-over/accept", status_code=202, openapi_extra=needs("admin")
    )
    def accept_hand_over(
        dataset: str, request: Request, body: AcceptHandOverBody | None = None
    ) -> dict[str, Any]:
        """Begin to write a dataset of another node, which has offered that to this one."""
        requester = requester_of(request)
        info = lake.policies.visible(dataset, requester)
        owner = None if body is None else body.owner
        peers.hand_overs.accept(info.id, requester.name if owner is None else owner)
        return sharing(info.id)


@dataclass(frozen=True, slots=True)
class _Network:
    """What is asked of the network once for all datasets of an answer.

    Args:
        names: The names of the nodes, by id.
        shares: How this node's datasets are shared, by id.
        copies: The states of copies, by dataset.
        origins: What datasets are forks of, by id.
    """

    names: Mapping[str, str]
    shares: Mapping[str, ShareInfo]
    copies: Mapping[str, CopyState]
    origins: Mapping[str, ForkOrigin]

    @classmethod
    def of(cls, peers: PeerService) -> Self:
        """Ask a node's service."""
        names = {node.member.id: node.member.name for node in peers.nodes()}
        return cls(names, peers.shares(), peers.shared.states(), peers.shared.origins())

    def named(self, nodes: Iterable[str]) -> list[str]:
        """Return the names of nodes; the id of one that is no member any more."""
        return [self.names.get(node, node) for node in nodes]


def _listed(
    peers: PeerService, lake: Lake, seen: _Network, info: DatasetInfo, requester: Requester
) -> dict[str, Any]:
    return _sharing(peers, lake, seen, info) | {
        "name": info.name,
        "encrypted": info.encrypted,
        "mayShare": info.node is None and _may_manage(lake, info, requester),
    }


def _may_manage(lake: Lake, info: DatasetInfo, requester: Requester) -> bool:
    try:
        lake.policies.check_manage(info.id, requester, "sharing")
    except SennitError:
        return False
    return requester.may_write


def _sharing(peers: PeerService, lake: Lake, seen: _Network, info: DatasetInfo) -> dict[str, Any]:
    share = seen.shares.get(info.id)
    copies = seen.copies.get(peers.ciphertext_of(info.id) or info.id)
    placement = Placement() if share is None else share.placement
    return {
        "dataset": info.id,
        "writer": None if info.node is None else seen.names.get(info.node, info.node),
        "writerRevoked": info.node is not None and info.node not in seen.names,
        "shared": share is not None or info.node is not None,
        "restricted": info.head is None or not lake.policies.is_open(info),
        "nodes": None if share is None or "*" in share.nodes else seen.named(share.nodes),
        "readOnly": _is_read_only(peers, info, share),
        "copies": info.replication if info.node is not None else placement.factor,
        "pins": seen.named(placement.pins),
        "only": seen.named(placement.only),
        **_hand_over(lake, info, seen),
        "forkOf": _origin(lake, info, seen),
        "state": None
        if copies is None
        else {
            "objects": copies.objects,
            "held": copies.held,
            "places": copies.places,
            "underReplicated": copies.under_replicated,
            "unavailable": copies.unavailable,
            "missingHere": copies.missing_here,
            "lacking": {seen.names.get(n, n): count for n, count in copies.lacking.items()},
        },
    }


def _hand_over(lake: Lake, info: DatasetInfo, seen: _Network) -> dict[str, Any]:
    row = HandOverTable(lake.tree).get(info.id)
    under_way = {"state": row.state, "node": seen.named([row.peer])[0]} if row.peer else None
    return {"handOver": under_way, "handOverRefusal": row.refusal or None}


def _origin(lake: Lake, info: DatasetInfo, seen: _Network) -> dict[str, Any] | None:
    """Return what a dataset is a fork of; null if it is none, or hidden by a policy."""
    own = info.node is None and lake.policies.is_open(info)
    found = seen.origins.get(info.id) or (lake.storage.forks.get(info.id) if own else None)
    return None if found is None else found.to_json()


def _is_read_only(peers: PeerService, info: DatasetInfo, share: ShareInfo | None) -> bool | None:
    """Return whether other nodes only read a dataset, at another node whether this one does."""
    if info.node is not None:
        return not peers.accepts_changes(info.id)
    return None if share is None else share.read_only
