"""Copies of encrypted datasets at nodes that cannot read them.

Shards of an encrypted dataset are stored encrypted, and their ids are hashes of that, so any node can hold,
verify and send them. What holders need is published as a dataset of its own, the *ciphertext* of the other: its
manifest lists the ids and sizes of the shards, without columns, statistics, partitions or numbers of rows.

    encrypted dataset ── head ──▶ manifest (stays here)
           └── ciphertext dataset ──▶ manifest of ids and sizes ──▶ holders, by placement

The writer fetches a shard that it has lost from a holder, as of any shared dataset. It pins the ciphertext's manifest,
as no row of its catalog references it.
"""

from __future__ import annotations

from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from elkyn.records import CheckedTable
from lake.catalog.catalog import Catalog
from lake.catalog.snapshots import Manifest
from lake.maintenance.retention import Retention
from sennit_core.clock import Clock
from sennit_core.errors import NotFound
from sennit_core.ids import new_id
from sennit_core.records import DatasetInfo, Record, ShardInfo, SnapshotInfo
from sennit_core.schema import Schema

if TYPE_CHECKING:
    from elkyn import ElkynStore

__all__ = ["Ciphertext", "Ciphertexts"]

_COLUMNS = Schema.of(ciphertext="Binary")  # a dataset has a column
_PATH = "/peers/ciphertexts"


@dataclass(frozen=True, slots=True)
class Ciphertext(Record):
    """The ciphertext of a dataset; a row by the id of the dataset.

    Args:
        id: The id of the ciphertext dataset, which stays.
        source: Object id of the dataset's manifest that it was made from.
        snapshot: The id of its newest snapshot.
        manifest: Object id of that one's manifest.
        version: Its number, which only grows.
        pin: The pin of its manifest and lists.
    """

    id: str
    source: str
    snapshot: str
    manifest: str
    version: int
    pin: str


class Ciphertexts:
    """The ciphertexts of one node's datasets. Methods read and write files.

    Args:
        tree: The namespace `sys`.
        catalog: The datasets.
        retention: Pins manifests.
        clock: Source of times.
    """

    def __init__(
        self, tree: ElkynStore, catalog: Catalog, retention: Retention, clock: Clock
    ) -> None:
        self._table = CheckedTable(tree, _PATH, Ciphertext)
        self._catalog = catalog
        self._retention = retention
        self._clock = clock

    def find_id(self, dataset: str) -> str | None:
        """Return the id of a dataset's ciphertext; None if it has no copies."""
        row = self._table.get(dataset)
        return None if row is None else row.id

    def current(self, info: DatasetInfo) -> Ciphertext:
        """Return a dataset's ciphertext, made anew if the dataset has changed."""
        assert info.encrypted, "no other dataset has one"
        assert info.head is not None, "it has rows"
        source, _ = self._catalog.adopter.manifest_of(info, info.head)
        row = self._table.get(info.id)
        if row is None or row.source != source:
            row = self._make(info, source, row)
        return row

    def keep(self, ids: Collection[str]) -> None:
        """Forget all ciphertexts but those with these ids."""
        for dataset, row in self._table.all().items():
            if row.id not in ids:
                self._table.remove(dataset)
                self._unpin(row)

    def _make(self, info: DatasetInfo, source: str, before: Ciphertext | None) -> Ciphertext:
        shards = self._catalog.manifest(info.id).snapshot.shards
        dataset = new_id() if before is None else before.id
        snapshot = SnapshotInfo(
            new_id(), None, dataset, _COLUMNS,
            tuple(ShardInfo(each.object, 0, each.bytes, {}, {}) for each in shards),
            {}, "", None, (), version=1 if before is None else before.version + 1,
        )  # fmt: skip
        name = self._catalog.adopter.write_manifest(Manifest(snapshot, self._clock.now()))
        lists = self._catalog.adopter.read_manifest(name).lists
        pin = self._retention.pin(
            (name, *(each.object for each in lists)), f"ciphertext of dataset {info.name}"
        )
        row = Ciphertext(dataset, source, snapshot.id, name, snapshot.version, pin.id)
        # After the pin: a crash in between leaves a pin too many, which keeps one small object.
        self._table.put(info.id, row)
        if before is not None:
            self._unpin(before)
        return row

    def _unpin(self, row: Ciphertext) -> None:
        with suppress(NotFound):  # an admin has unpinned it
            self._retention.unpin(row.pin)
