"""Disk quotas for what users of other nodes store here, and for what users of this node have queued."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pytest

from elkyn.records import Change
from lake import Lake
from lake.access.quotas import UserQuota
from lake.distributed.foreign_statements import ForeignChanges
from lake.distributed.receipts import Receipt, Receipts
from lake.distributed.remote_shards import ForeignChange
from lake.peers.transport.stop import Stop
from lake.statements.limits import Requester
from sennit_core.errors import StorageFull

from .test_queued_appends import queue

ROME, BERN = "a" * 64, "b" * 64


def change(lake: Lake, sql: str, node: str, key: str) -> int:
    """Make a change for a user of another node, as its server does."""
    info = lake.catalog.get("trips")
    receipts = Receipts(lake.tree, lake.catalog.writing)

    def written(count: int, size: int) -> Sequence[Change]:
        charge = lake.quotas.charge_foreign(node, info, size)
        return receipts.change(key, Receipt(info.id, "", count, 1e12)), charge

    user = Requester("eve", role="writer", node=node)
    made = ForeignChanges(lake).run(
        ForeignChange(info.id, "trips", sql, "", user, 30.0), written, Stop()
    )
    return made.count


def insert(lake: Lake, number: int, node: str = ROME) -> int:
    return change(lake, f"INSERT INTO trips VALUES ({number})", node, f"{node}_{number}")


def test_what_users_of_a_node_store_counts_for_its_quota(tmp_path: Path) -> None:
    with Lake(tmp_path, memory_bytes="256 MiB") as lake:
        lake.append("trips", pa.table({"id": [1]}))
        assert insert(lake, 2) == 1
        size = lake.quotas.foreign.of(ROME)
        assert lake.catalog.manifest("trips").snapshot.shards[-1].bytes == size > 0
        assert lake.quotas.foreign.of(BERN) == 0
        # For each node without a quota of its own.
        lake.quotas.set(UserQuota("*@*", disk_bytes=size + 1))
        with pytest.raises(StorageFull, match=f"users of node {ROME[:16]} may store") as full:
            insert(lake, 3)
        assert "too many" in str(full.value)
        assert insert(lake, 3, BERN) == 1
        lake.quotas.set(UserQuota(f"*@{ROME}", disk_bytes=3 * size))
        assert insert(lake, 4) == 1
        # What stores nothing is not refused.
        lake.quotas.set(UserQuota(f"*@{ROME}", disk_bytes=1))
        assert change(lake, "DELETE FROM trips WHERE id = 4", ROME, "delete") == 1
        assert lake.sql("SELECT id FROM trips ORDER BY id").rows == [(1,), (2,), (3,)]
        shown = lake.quotas.shown(lake.quotas.get("*@*"))
        assert shown["storedBytes"] == lake.quotas.foreign.of(ROME) + lake.quotas.foreign.of(BERN)
    with Lake(tmp_path, memory_bytes="256 MiB") as lake:
        table = lake.quotas.foreign._table(ROME)
        dataset = lake.catalog.get("trips")
        assert lake.quotas.foreign.of(ROME) >= 2 * size
        # Of a damaged row it is not known how much it was.
        lake.tree.set(f"/foreign-bytes/{ROME}/{dataset.id}/bytes", 1)
        assert lake.quotas.foreign.of(ROME) == lake.quotas.stored.bytes_of(dataset)
        lake.delete("trips")
        assert lake.quotas.foreign.of(ROME) == 0
        assert not table.ids()


@pytest.mark.nightly
def test_a_node_is_charged_at_most_what_its_dataset_stores(tmp_path: Path) -> None:
    with Lake(tmp_path, memory_bytes="256 MiB") as lake:
        lake.append("trips", pa.table({"id": [1]}))
        for number in range(2, 5):
            insert(lake, number)
        lake.sql("TRUNCATE trips")
        lake.retention.expire("trips", keep=1, before=lake.clock.now() + 60)
        info = lake.catalog.get("trips")
        assert lake.quotas.foreign.of(ROME) == lake.quotas.stored.bytes_of(info) == 0
        # Nor is it charged again for what is gone.
        insert(lake, 9)
        assert lake.quotas.foreign.of(ROME) == lake.quotas.stored.bytes_of(
            lake.catalog.get("trips")
        )


def test_queued_appends_count_for_the_quota_of_their_user(tmp_path: Path) -> None:
    with Lake(tmp_path) as lake:
        lake.quotas.set(UserQuota("ann", disk_bytes=1500))
        first, _ = queue(lake, data=b"x" * 1000)
        with pytest.raises(StorageFull, match="in queued appends"):
            queue(lake, data=b"y" * 1000)
        assert len(lake.queued) == 1
        assert lake.quotas.shown(lake.quotas.get("ann"))["queuedBytes"] == 1000
        # One that may be committed already is kept all the same.
        sent, _ = queue(lake, data=b"z" * 100, was_sent=True)
        with pytest.raises(StorageFull):
            lake.quotas.check_room("ann", "an upload", 500)
        lake.queued.remove(first, Requester())
        lake.queued.remove(sent, Requester(), forget=True)
        lake.quotas.check_room("ann", "an upload", 1500)
        queue(lake, data=b"y" * 1000)
    with Lake(tmp_path, memory_bytes="256 MiB") as lake:
        assert lake.quotas.queued_by("ann") == 1000
        assert lake.quotas.queued_by("bob") == 0
