"""Routes about the health of the network: what is wrong with it, and its map."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import StreamingResponse
from pydantic import Field

from lake import Lake
from lake.peers.copies.healing import heal
from lake.peers.members.health import NodeState, SharedCopies
from lake.peers.members.leaving import leave
from lake.peers.members.survey import NetworkMap
from lake.peers.service import PeerService
from lake.routes.documents import Document
from lake.routes.report_lines import report_lines
from lake.routes.requester import requester_of
from sennit_core.errors import SennitError
from sennit_core.roles import needs

__all__ = ["router"]

_WAIT_SECONDS_MAX = 7 * 24 * 3600.0


class LeaveRequest(Document):
    """Body of `POST /api/network/leave`."""

    wait_seconds: float = Field(default=0.0, ge=0, le=_WAIT_SECONDS_MAX)


class HealRequest(Document):
    """Body of `POST /api/network/heal`."""

    dataset: str | None = Field(default=None, max_length=256)


def router(peers: PeerService, lake: Lake) -> APIRouter:
    """Return the routes."""
    routes = APIRouter(tags=["network"])

    # An admin's, as it names all shared datasets and makes other nodes connect to this one.
    @routes.get("/api/network/check", openapi_extra=needs("admin"))
    def check() -> dict[str, Any]:
        """Examine the network: connections, clocks, versions, copies, room, damage."""
        findings = peers.check()
        return {
            "ok": all(each.ok for each in findings),
            "findings": [each.to_json() for each in findings],
        }

    @routes.get("/api/network/map", openapi_extra=needs("reader"))
    def network_map(request: Request) -> dict[str, Any]:
        """The nodes, the connections between all of them, and what each node lacks."""
        found = peers.map()
        requester = requester_of(request)
        visible = {}
        for dataset, copies in found.datasets.items():
            with suppress(SennitError):
                lake.policies.visible(dataset, requester)
                visible[dataset] = copies
        return _shown(found, visible)

    thread = ThreadPoolExecutor(1, "network-heal")

    @routes.post("/api/network/heal", openapi_extra=needs("admin"))
    async def heal_copies(body: HealRequest) -> StreamingResponse:
        """Repair the copies of one shared dataset, or of all, now."""
        stop = threading.Event()
        return await report_lines(thread, heal(peers, lake.scrub, body.dataset, stop), stop)

    leaving = ThreadPoolExecutor(1, "network-leave")

    @routes.get("/api/network/leave", openapi_extra=needs("admin"))
    def consequences() -> dict[str, Any]:
        """What leaving the network means: datasets that stop, and those that are gone here."""
        shares = peers.shares()
        datasets = lake.catalog.list()
        return {
            "writes": sorted(each.name for each in datasets if each.id in shares),
            "reads": sorted(each.name for each in datasets if each.node is not None),
        }

    @routes.post("/api/network/leave", openapi_extra=needs("admin"))
    async def leave_network(body: LeaveRequest) -> StreamingResponse:
        """Hand over what this node holds for others, and leave the network."""
        stop = threading.Event()
        return await report_lines(leaving, leave(peers, body.wait_seconds, stop), stop)

    return routes


def _shown(found: NetworkMap, datasets: Mapping[str, SharedCopies]) -> dict[str, Any]:
    names = {node.member.id: node.member.name for node in found.nodes}
    own = found.nodes[0].member.id
    lacking = [
        {"node": names.get(node, node), "dataset": each.name, "shards": count}
        for each in datasets.values()
        for node, count in ({own: each.state.missing_here} | dict(each.state.lacking)).items()
        if count
    ]
    return {
        "nodes": [_node(node, found.silent.get(node.member.id)) for node in found.nodes],
        "links": [
            {
                "nodes": [names.get(node, node) for node in link.nodes],
                "rttSeconds": link.rtt_seconds,
                "relay": names.get(link.relay, link.relay) or None,
            }
            for link in found.links
        ],
        "lacking": lacking,
        "datasets": [
            {
                "name": each.name,
                "writer": names.get(each.writer, each.writer),
                "shards": each.state.objects,
                "copies": each.state.copies,
                "underReplicated": each.state.under_replicated,
                "unavailable": each.state.unavailable,
            }
            for each in datasets.values()
        ],
    }


def _node(node: NodeState, problem: str | None) -> dict[str, Any]:
    status = node.status
    return {
        "name": node.member.name,
        "state": node.state,
        "zone": None if status is None else status.zone or None,
        "capacityBytes": None if status is None else status.capacity,
        "usedBytes": None if status is None else status.used,
        "problem": problem,
    }
