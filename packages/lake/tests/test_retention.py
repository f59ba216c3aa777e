"""What may be deleted: nothing that is referenced, leased, pinned or waiting; in the end all else."""

from __future__ import annotations

import tempfile
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from elkyn import ElkynStore
from lake import Lake
from lake.catalog.catalog import Catalog
from lake.catalog.snapshots import Manifest
from lake.maintenance.retention import Retention
from lake.objects.retained import PinInfo
from lake.objects.store import ObjectStore
from sennit_core.errors import NotFound, UsageError
from sennit_core.records import DatasetInfo, ShardInfo, SnapshotInfo
from sennit_core.schema import Schema
from sennit_core.testing import ManualClock

from .conftest import put

SCHEMA = Schema.of(a="Int64")
GRACE = 100.0


class Objects(RuleBasedStateMachine):
    """A store under random commits, deletions, leases, pins, retirements, times and restarts."""

    leases: Bundle[Any] = Bundle("leases")
    pins: Bundle[Any] = Bundle("pins")

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.tree = ElkynStore(mode="memory")
        self.clock = ManualClock()
        # Ids that are the same in each run, so that objects are, which are drawn by their order.
        self.ids = (f"id{number:024d}" for number in count())
        # What must stay, kept by hand.
        self.heads: dict[str, DatasetInfo] = {}
        self.references: dict[str, set[str]] = {}
        self.leased: list[set[str]] = []
        self.pinned: dict[str, set[str]] = {}
        self.waiting: list[tuple[float, set[str]]] = []
        self.start()

    def start(self) -> None:
        self.store = ObjectStore(Path(self.folder.name))
        self.catalog = Catalog(self.tree, self.store, clock=self.clock)
        self.retention = Retention(
            self.store, self.catalog, self.tree, grace_seconds=GRACE, clock=self.clock
        )

    def teardown(self) -> None:
        self.tree.close()
        self.folder.cleanup()

    def needed(self) -> set[str]:
        due = self.clock.now()
        return set().union(
            *self.references.values(),
            *self.leased,
            *self.pinned.values(),
            *(names for until, names in self.waiting if until > due),
        )

    def some(self, data: st.DataObject) -> set[str]:
        stored = sorted(self.store)
        return data.draw(st.sets(st.sampled_from(stored), max_size=4)) if stored else set()

    @rule(name=st.sampled_from("abc"), contents=st.sets(st.integers(0, 5), min_size=1))
    def commit(self, name: str, contents: set[int]) -> None:
        """Equal contents are equal objects, so datasets share them."""
        objects = {f"{n}".encode(): self.store.put_bytes(f"{n}".encode()).object for n in contents}
        info = self.heads.get(name) or DatasetInfo(next(self.ids), name, "", SCHEMA)
        shards = tuple(ShardInfo(each, 1, 1, {}, {}) for each in sorted(objects.values()))
        snapshot = SnapshotInfo(
            next(self.ids), info.head, info.id, SCHEMA, shards, {}, "", None, ()
        )
        self.clock.sleep(1.0)
        head = self.catalog.commit(
            info, Manifest(snapshot, self.clock.now()), expected_head=info.head
        )
        assert head.head is not None
        self.heads[name] = head
        needs = self.catalog.objects_of(head.id, head.head)
        self.references.setdefault(name, set()).update(needs)

    @rule(data=st.data())
    def delete(self, data: st.DataObject) -> None:
        if self.heads:
            name = data.draw(st.sampled_from(sorted(self.heads)))
            self.retention.delete_dataset(name)
            del self.heads[name], self.references[name]

    @rule(data=st.data())
    def discard(self, data: st.DataObject) -> None:
        self.retention.discard(self.some(data))

    @rule(target=leases, data=st.data())
    def lease(self, data: st.DataObject) -> Any:
        names = self.some(data)
        self.leased.append(names)
        return self.retention.acquire(names), names

    @rule(lease=consumes(leases))
    def release(self, lease: Any) -> None:
        held, names = lease
        if names in self.leased:  # a restart ends all leases
            self.leased.remove(names)
            self.retention.release(held)

    @rule(target=pins, data=st.data())
    def pin(self, data: st.DataObject) -> Any:
        names = self.some(data)
        pin = self.retention.pin(names, "kept for a test")
        self.pinned[pin.id] = names
        return pin.id

    @rule(pin=consumes(pins))
    def unpin(self, pin: str) -> None:
        del self.pinned[pin]
        self.retention.unpin(pin)

    @rule(data=st.data())
    def retire(self, data: st.DataObject) -> None:
        names = self.some(data)
        self.waiting.append((self.clock.now() + GRACE, names))
        self.retention.retire(names)

    @rule(seconds=st.sampled_from((1.0, 60.0, 200.0)))
    def wait(self, seconds: float) -> None:
        self.clock.sleep(seconds)
        self.retention.sweep_retired()

    @rule()
    def restart(self) -> None:
        self.leased.clear()
        self.start()
        self.retention.sweep()
        self.retention.sweep_retired()
        assert set(self.store) == self.needed() & set(self.store)

    @invariant()
    def nothing_that_is_needed_is_gone(self) -> None:
        stored = set(self.store)
        assert self.needed() <= stored
        assert {pin.id for pin in self.retention.pins()} == set(self.pinned)

    @rule()
    def let_all_go(self) -> None:
        """What nothing needs is gone after the grace time, without a restart."""
        self.clock.sleep(2 * GRACE)
        before = set(self.store)
        self.retention.sweep_retired()
        self.retention.discard(before)
        assert set(self.store) == self.needed()


Objects.TestCase.settings = settings(max_examples=30, stateful_step_count=30, deadline=None)
TestObjects = pytest.mark.slow(Objects.TestCase)


def pin_head(lake: Lake, reason: str) -> PinInfo:
    info = lake.catalog.get("flights")
    assert info.head is not None
    return lake.retention.pin(lake.catalog.objects_of(info.id, info.head), reason)


def test_a_pinned_snapshot_survives_its_dataset_and_a_restart(flights: Lake) -> None:
    pin = pin_head(flights, "the report of May")

    flights.delete("flights")
    reopened = Lake(flights.folder, tree=flights.tree, pool=flights.pool)

    assert pin.objects == 2
    assert reopened.retention.pins() == [pin]
    assert len(list(reopened.objects)) == 2
    reopened.retention.unpin(pin.id)
    assert list(reopened.objects) == []
    with pytest.raises(NotFound):
        reopened.retention.unpin(pin.id)


def test_a_pin_of_several_rows_is_kept_whole(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lake.objects.retained._ROW_OBJECTS", 10)
    names = {lake.objects.put_bytes(str(n).encode()).object for n in range(25)}
    pin = lake.retention.pin(names, "many")

    reopened = Lake(lake.folder, tree=lake.tree, pool=lake.pool)

    assert set(reopened.objects) == names
    reopened.retention.unpin(pin.id)
    assert list(reopened.objects) == []
    assert reopened.tree.get("/pinned") is None


@pytest.mark.parametrize("reason", ["", " ", "x" * 1001])
def test_a_pin_needs_a_reason_and_existing_objects(lake: Lake, reason: str) -> None:
    with pytest.raises(UsageError, match="needs a reason"):
        lake.retention.pin([], reason)
    with pytest.raises(NotFound):
        lake.retention.pin(["0" * 64], "a reason")
    with pytest.raises(NotFound):
        lake.retention.unpin("no/such")


def test_nothing_is_deleted_while_a_row_of_pins_is_damaged(flights: Lake) -> None:
    pin = pin_head(flights, "kept")
    row = flights.tree.get(f"/pinned/{pin.id}-0")
    flights.tree.set(f"/pinned/{pin.id}-0", row | {"objects": [row["objects"][0]]})

    reopened = Lake(flights.folder, tree=flights.tree, pool=flights.pool)
    reopened.delete("flights")

    assert len(list(reopened.objects)) == 2
    assert reopened.retention.withheld == 2


def test_objects_of_expired_snapshots_wait_for_the_grace_time(lake: Lake) -> None:
    clock = ManualClock()
    lake = Lake(lake.folder, tree=lake.tree, pool=lake.pool, grace_seconds=60, clock=clock)
    lake.sql("CREATE TABLE t AS SELECT 1 AS a")
    lake.sql("CREATE OR REPLACE TABLE t AS SELECT 2 AS a")
    before = set(lake.objects)

    lake.retention.expire("t", keep=1, before=clock.now() + 1)

    assert set(lake.objects) == before
    lake = Lake(lake.folder, tree=lake.tree, pool=lake.pool, grace_seconds=60, clock=clock)
    clock.sleep(61)
    assert len(lake.retention.sweep_retired()) == 2
    assert lake.sql("SELECT a FROM t").value == 2


def test_retired_objects_of_a_dataset_wait_for_their_time(lake: Lake) -> None:
    clock = ManualClock()
    lake = Lake(lake.folder, tree=lake.tree, pool=lake.pool, grace_seconds=60, clock=clock)
    put(lake, "a.csv", "a\n1\n")
    info = lake.catalog.get("a")
    assert info.head is not None
    lake.retention.retire(lake.catalog.objects_of(info.id, info.head))
    lake.delete("a")

    assert lake.retention.sweep_retired() == []
    lake = Lake(lake.folder, tree=lake.tree, pool=lake.pool, clock=clock)
    assert lake.retention.retired == 2
    clock.sleep(61)
    assert len(lake.retention.sweep_retired()) == 2
    assert list(lake.objects) == []
