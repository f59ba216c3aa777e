"""The parts of a lake that a network uses to share its datasets."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from lake.foreign_statements import ForeignChanges
from lake.peers.change_server import WriterParts
from lake.peers.ciphertext import Ciphertexts
from lake.peers.copies import Copies, CopyOptions
from lake.peers.exchange import DataParts
from lake.peers.fragments import LocalFragments
from lake.peers.held import HeldObjects
from lake.peers.restricted import RestrictedReads
from lake.peers.returned_rows import ReturnedResults
from lake.peers.sharing import Shares
from lake.receipts import Receipts
from sennit_core.units import GIB

if TYPE_CHECKING:
    from lake import Lake
    from lake.peers.service import PeerService

__all__ = ["connect", "data_parts"]


def data_parts(
    lake: Lake, options: CopyOptions | None = None, change_bytes_max: int = GIB
) -> DataParts:
    """Return what a lake brings into a network.

    Args:
        lake: The lake.
        options: How copies are kept.
        change_bytes_max: The most rows that a change of another node's dataset sends, or brings.
    """

    def own_shards() -> set[str] | None:
        # Equal shards have one object: one that a dataset of this node has stays.
        own = [info for info in lake.catalog.list() if info.node is None]
        if any(info.damaged is not None for info in own):
            return None
        return {name for info in own for name in lake.quotas.stored.sizes(info)}

    def drop(names: Iterable[str]) -> None:
        lake.retention.drop_copies(names, own_shards)

    node = lake.storage.node_key.id
    held = HeldObjects(node, lake.objects, lake.tree)
    copies = Copies(node, lake.objects, held, lake.folder / "lake", drop, options)
    ciphertexts = Ciphertexts(lake.tree, lake.catalog, lake.retention, lake.clock)
    shares = Shares(lake.tree, lake.catalog, lake.policies, ciphertexts)

    def version(dataset: str) -> int:
        return lake.catalog.stored_manifest(dataset).snapshot.version

    receipts = Receipts(lake.tree, lake.catalog.writing)
    returned = ReturnedResults(lake.staging)
    writer = WriterParts(
        ForeignChanges(lake), receipts, shares, version, returned, change_bytes_max
    )
    fragments = LocalFragments(lake.catalog, lake.tables, lake.pool)
    restricted = RestrictedReads(lake.catalog, shares, lake.tables, lake.pool, lake.running)
    return DataParts(
        lake.catalog, lake.objects, lake.retention, shares, lake.policies, copies, fragments,
        restricted, lake.pool, lake.staging, lake.space, writer,
    )  # fmt: skip


def connect(lake: Lake, peers: PeerService) -> None:
    """Let the statements of a lake read what other nodes have, and change what these accept."""
    lake.remote.fetch, lake.remote.distribute = peers.fetch, peers.distribute
    lake.remote.restricted, lake.remote.find_node = peers.restricted, peers.find_node
    lake.remote.was_received = peers.seeder.was_received
    lake.remote.change, lake.remote.accepts_changes = peers.change, peers.accepts_changes
    lake.remote.may_have = peers.may_have
