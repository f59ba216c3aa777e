"""The parts of a lake that a network uses to share its datasets."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from lake.access.policies import Policies
from lake.access.quotas import Quotas
from lake.catalog.catalog import Catalog
from lake.catalog.node_key import NodeKey
from lake.distributed.foreign_statements import ForeignChanges
from lake.distributed.queued_appends import QueuedAppends
from lake.distributed.receipts import Receipts
from lake.maintenance.retention import Retention
from lake.objects.disk_space import DiskSpace
from lake.objects.store import ObjectStore
from lake.peers.changes.change_server import WriterParts
from lake.peers.changes.returned_rows import ReturnedResults
from lake.peers.copies.copies import Copies, CopyOptions
from lake.peers.handovers.rows import HandOverTable
from lake.peers.jobs.server import TaskRunner
from lake.peers.queries.fragments import FragmentRunner, LocalFragments
from lake.peers.queries.restricted import RestrictedReads
from lake.peers.sharing.adoption import forget_adopted
from lake.peers.sharing.ciphertext import Ciphertexts
from lake.peers.sharing.forgotten_datasets import ForgottenDatasets
from lake.peers.sharing.held import HeldObjects
from lake.peers.sharing.sharing import Shares
from sennit_core.units import GIB

if TYPE_CHECKING:
    from emsqrt.executor import ExecutorPool
    from lake import Lake

__all__ = ["DataParts", "data_parts"]


@dataclass(frozen=True, slots=True)
class DataParts:
    """What a lake brings into a network.

    Args:
        catalog: Its datasets.
        objects: Its objects.
        retention: Deletes objects.
        shares: What it shares.
        policies: The access policies.
        copies: The copies of shared objects.
        fragments: Runs parts of queries here.
        restricted: Answers queries over restricted datasets.
        pool: The executors.
        staging: Folder for parts of queries.
        space: The disk.
        writer: Makes changes of other nodes.
        handovers: Which datasets were handed over.
        key: Signs hand-overs.
        quotas: What users may store.
        queued: Appends that wait for other nodes.
        forgotten: Datasets of removed nodes that were deleted here.
        tasks: Runs tasks of other nodes' jobs; None for a node that runs none.
    """

    catalog: Catalog
    objects: ObjectStore
    retention: Retention
    shares: Shares
    policies: Policies
    copies: Copies
    fragments: FragmentRunner
    restricted: RestrictedReads
    pool: ExecutorPool
    staging: Path
    space: DiskSpace
    writer: WriterParts
    handovers: HandOverTable
    key: NodeKey
    quotas: Quotas
    queued: QueuedAppends
    forgotten: ForgottenDatasets
    tasks: TaskRunner | None = None

    def leave(self) -> None:
        """Make all datasets private, and delete those of other nodes: the network is left.

        The nodes of the next network were not named in these shares.
        """
        self.shares.clear()
        self.queued.close()
        for info in self.catalog.list():
            if info.node is not None and self.handovers.is_frozen(info.id):
                # The other node may not have it: a copy of what this node wrote is never deleted.
                self.catalog.adopter.put(replace(info, node=None))
            elif info.node is not None:
                forget_adopted(self.retention, self.policies, self.copies.held, info.id)
        self.handovers.clear()
        self.forgotten.clear()
        self.copies.clear()


def data_parts(
    lake: Lake,
    options: CopyOptions | None = None,
    change_bytes_max: int = GIB,
    *,
    tasks: TaskRunner | None = None,
) -> DataParts:
    """Return what a lake brings into a network.

    Args:
        lake: The lake.
        options: How copies are kept.
        change_bytes_max: The most rows that a change of another node's dataset sends, or brings.
        tasks: Runs tasks of other nodes' jobs (`elytra.backends.peer_tasks`).
    """
    handovers = HandOverTable(lake.tree)

    def own_shards() -> set[str] | None:
        # Equal shards have one object: one that a dataset of this node has stays.
        own = [
            info
            for info in lake.catalog.list()
            if info.node is None or handovers.needs_all(info.id)
        ]
        if any(info.damaged is not None for info in own):
            return None
        return {name for info in own for name in lake.quotas.stored.sizes(info)}

    def drop(names: Iterable[str]) -> None:
        lake.retention.drop_copies(names, own_shards)

    node = lake.storage.node_key.id
    held = HeldObjects(node, lake.objects, lake.tree)
    copies = Copies(node, lake.objects, held, lake.folder / "lake", drop, options)
    ciphertexts = Ciphertexts(lake.tree, lake.catalog, lake.retention, lake.clock)
    shares = Shares(lake.tree, lake.catalog, lake.policies, ciphertexts, handovers)

    def version(dataset: str) -> int:
        return lake.catalog.stored_manifest(dataset).snapshot.version

    receipts = Receipts(lake.tree, lake.catalog.writing)
    returned = ReturnedResults(lake.staging)
    writer = WriterParts(
        ForeignChanges(lake), receipts, shares, version, returned, lake.catalog.get, lake.quotas,
        change_bytes_max,
    )  # fmt: skip
    fragments = LocalFragments(lake.catalog, lake.tables, lake.pool, lake.staging)
    restricted = RestrictedReads(lake.catalog, shares, lake.tables, lake.pool, lake.running)
    return DataParts(
        lake.catalog, lake.objects, lake.retention, shares, lake.policies, copies, fragments,
        restricted, lake.pool, lake.staging, lake.space, writer, handovers, lake.storage.node_key,
        lake.quotas, lake.queued, ForgottenDatasets(lake.tree), tasks,
    )  # fmt: skip
