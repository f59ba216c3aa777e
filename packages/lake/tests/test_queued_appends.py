"""What a lake keeps of queued appends: rows and objects, over crashes, damage and a network that is left."""

from __future__ import annotations

from pathlib import Path

import pytest

from lake import Lake
from lake.distributed.queued_appends import QueuedAppends, expiry_of
from lake.distributed.remote_shards import ForeignChange
from lake.distributed.staged_inputs import StagedInput, StagedObject
from lake.peers.changes.append_queue import QueuedAppend
from lake.peers.changes.forwarding import ChangeRequest, Made
from lake.statements.limits import Requester
from sennit_core.errors import NotFound, Unavailable
from sennit_core.ids import new_id
from sennit_core.schema import Schema

WRITER = "w" * 64
SCHEMA = Schema.from_json(
    {
        "fields": [
            {"name": "a", "type": "Int64", "nullable": False},
            {"name": "b", "type": "Utf8", "nullable": True},
        ]
    }
)


def queue(lake: Lake, *, data: bytes = b"rows", was_sent: bool = False) -> tuple[str, str]:
    """Queue an append with one object; return its id and that of the object."""
    with lake.objects.open_writer(bounded=True) as writer:
        writer.write(data)
        stored = writer.commit()
    rows = StagedInput("r", SCHEMA, (StagedObject(stored.object, stored.size),))
    append = new_id()
    change = ForeignChange(
        "d", "t", "INSERT INTO t FROM r", "", Requester("ann"), 60.0, inputs=(rows,), id=append,
        expires_at=expiry_of(append), appends=True, queue=True,
    )  # fmt: skip
    lake.queued.add(change, WRITER, was_sent=was_sent)
    lake.queued.add(change, WRITER, was_sent=was_sent)  # a repetition
    return append, stored.object


def request_of(append: QueuedAppend) -> ChangeRequest:
    return ChangeRequest(
        append.id, append.dataset, append.name, append.sql, append.params, append.seconds,
        append.expires_at, inputs=append.inputs or None,
    )  # fmt: skip


def test_an_append_and_its_rows_are_there_after_a_restart_until_it_is_made(tmp_path: Path) -> None:
    with Lake(tmp_path) as lake:
        append, name = queue(lake)
        lake.retention.discard([name])
        # The writer refuses another request with its id.
        digest = request_of(lake.queued.list()[0]).digest
    with Lake(tmp_path) as lake:
        [found] = lake.queued.list()
        assert (found.id, found.state, found.user) == (append, "waiting", "ann")
        assert name in lake.objects
        [due] = lake.queued.tick(0.0, [WRITER])
        assert due == found
        assert request_of(due).digest == digest
        lake.queued.ended(append, Made(1, 1), 0.0)
        assert name not in lake.objects
    with Lake(tmp_path) as lake:
        assert not lake.queued.list()
        assert not lake.retention.pins()


def test_a_pin_without_a_row_is_removed_unless_a_row_is_damaged(tmp_path: Path) -> None:
    with Lake(tmp_path) as lake:
        append, name = queue(lake)
        row = lake.tree.get(f"/queued/{append}")
        lake.tree.set(f"/queued/{append}", row | {"user": "eve"})
        broken = QueuedAppends(lake.storage, lake.tree, lake.policies, lake.clock)
        assert not broken.list()
        assert name in lake.objects
        lake.tree.delete(f"/queued/{append}")
        QueuedAppends(lake.storage, lake.tree, lake.policies, lake.clock)
        assert name not in lake.objects


def test_a_user_removes_and_retries_his_own(tmp_path: Path) -> None:
    with Lake(tmp_path) as lake:
        append, name = queue(lake)
        eve = Requester("eve", role="writer")
        assert not lake.queued.list(eve)
        for call in (lake.queued.remove, lake.queued.retry):
            with pytest.raises(NotFound):
                call(append, eve)
        lake.queued.close()
        ann = Requester("ann", role="writer")
        again = lake.queued.retry(append, ann)
        assert [each.id for each in lake.queued.list(ann)] == [again.id] != [append]
        assert name in lake.objects
        assert lake.queued.remove(again.id, ann).state == "waiting"
        assert name not in lake.objects


def test_a_network_that_is_left_ends_what_waits(tmp_path: Path) -> None:
    with Lake(tmp_path) as lake:
        queue(lake)
        queue(lake, data=b"more", was_sent=True)
        lake.queued.close()
        assert [each.state for each in lake.queued.list()] == ["refused", "unknown"]
        assert not lake.queued.tick(0.0, [])


def test_nothing_is_sent_for_a_dataset_that_is_not_shared_any_more(tmp_path: Path) -> None:
    with Lake(tmp_path) as lake:
        queue(lake)
        [due] = lake.queued.tick(0.0, [])
        with pytest.raises(NotFound):
            lake.queued.sending(due, WRITER)
        assert lake.queued.list()[0].state == "waiting"


def test_what_cannot_be_stored_is_not_acknowledged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Lake(tmp_path) as lake:

        def full(*_: object) -> None:
            raise Unavailable("the disk")

        with monkeypatch.context() as patched:
            patched.setattr(lake.queued._table, "put", full)
            with pytest.raises(Unavailable):
                queue(lake)
        assert not lake.queued.list()
