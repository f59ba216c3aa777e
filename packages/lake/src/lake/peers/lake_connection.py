"""What a lake may ask of the network that its node is in."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lake.peers.handovers.rows import HandOverTable

if TYPE_CHECKING:
    from lake import Lake
    from lake.peers.service import PeerService

__all__ = ["connect"]


def connect(lake: Lake, peers: PeerService) -> None:
    """Let the statements of a lake read what other nodes have, and change what these accept."""
    lake.remote.fetch, lake.remote.distribute = peers.fetch, peers.distribute
    lake.remote.restricted, lake.remote.find_node = peers.restricted, peers.find_node
    lake.remote.was_received = peers.seeder.was_received
    lake.remote.has_written = HandOverTable(lake.tree).is_frozen
    lake.remote.change, lake.remote.accepts_changes = peers.change, peers.accepts_changes
    lake.remote.jobs, lake.remote.delete = peers.jobs, peers.shared.delete
    lake.remote.may_have, lake.remote.is_shared = peers.may_have, peers.is_shared
