"""Downloads: who wants them, what is kept, how much is under way, and the files that they are written to."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest

from elkyn import ElkynStore
from lake import Lake
from lake.objects.store import ObjectStore
from lake.peers.copies.chunks import Chunk, ChunkRequest, ListReply
from lake.peers.copies.copies import Copies
from lake.peers.copies.transfers import (
    PLAN,
    FindKept,
    ObjectComplete,
    ObjectUnobtainable,
    TransferOptions,
    Transfers,
    WriteChunk,
)
from lake.peers.data import data_parts
from lake.peers.sharing.held import HeldObjects
from lake.peers.transport.machine import Call, Effect, Failed, Replied
from sennit_core.errors import Corrupt, NotFound
from sennit_core.hashing import CHUNK_BYTES, object_id
from sennit_core.ids import new_id

SIZE = 16
DATA = [bytes([n]) * SIZE for n in range(12)]
DIGESTS = tuple(hashlib.sha256(chunk).hexdigest() for chunk in DATA)
NAME = object_id(SIZE * len(DATA), SIZE, DIGESTS)
LIST = ListReply(SIZE * len(DATA), SIZE)


class World:
    """The downloads of a node; `asked` are the chunks that were asked of peers, in their order."""

    def __init__(self, kept: Sequence[int] = (), *, writes: bool = True) -> None:
        self.machine = Transfers(TransferOptions(window=4))
        self.kept, self.writes = {n: DIGESTS[n] for n in kept}, writes
        self.asked: list[tuple[str, int]] = []
        self.wrong: set[str] = set()
        self.written: set[int] = set()
        self.ends: list[Effect] = []
        self.now = 0.0

    def want(self, *sources: str, by: str = PLAN) -> None:
        self.machine.want("d", NAME, sources, by=by)

    def run(self) -> None:
        """Let the machine run as far as it can."""
        effects = self.machine.tick(self.now)
        while effects:
            effects = [*effects[1:], *self.perform(effects[0])]

    def perform(self, effect: Effect) -> list[Effect]:
        match effect:
            case Call(peer, number, ChunkRequest(_, index)):
                self.asked.append((peer, index))
                data = bytes(SIZE + 1) if peer in self.wrong else DATA[index]
                return self.machine.replied(Replied(number, Chunk(), data), self.now)
            case Call(_, number):
                body = bytes.fromhex("".join(DIGESTS))
                return self.machine.replied(Replied(number, LIST, body), self.now)
            case FindKept():
                return self.machine.found_kept(effect, self.kept, self.now)
            case WriteChunk(_, _, index, _, data, digest):
                if not self.writes:
                    return []
                is_right = hashlib.sha256(data).hexdigest() == digest
                self.written |= {index} if is_right else set()
                return self.machine.written(effect, is_right=is_right, now=self.now)
        self.ends.append(effect)
        return []


def test_an_object_is_complete_when_all_chunks_are_written() -> None:
    world = World()
    world.want("rome")
    world.run()
    assert world.written == set(range(12))
    assert world.ends == [ObjectComplete("d", NAME, SIZE * 12, SIZE, DIGESTS)]
    assert not world.machine.objects


def test_what_is_on_disk_is_not_asked_for() -> None:
    world = World(kept=[0, 1, 5, 11])
    world.want("rome")
    world.run()
    assert sorted(index for _, index in world.asked) == [2, 3, 4, 6, 7, 8, 9, 10]
    assert len(world.ends) == 1


def test_what_is_on_disk_completely_is_complete() -> None:
    world = World(kept=range(12))
    world.want("rome")
    world.run()
    assert (world.asked, len(world.ends)) == ([], 1)


def test_what_is_being_stored_is_not_fetched_again() -> None:
    world = World(kept=range(12))
    for _ in range(2):
        world.want("rome")
        world.run()
    assert len(world.ends) == 1
    world.machine.stored("d", NAME)
    world.want("rome")
    world.run()
    assert len(world.ends) == 2


def test_a_plan_that_ends_does_not_stop_what_a_query_waits_for() -> None:
    world = World()
    world.want("rome")
    world.want("rome", by="query")
    world.machine.cancel("d", NAME)
    world.run()
    assert isinstance(world.ends[0], ObjectComplete)


def test_a_query_that_ends_does_not_stop_a_plan_or_another_query() -> None:
    world = World(writes=False)
    for by in ("one", "other", PLAN):
        world.want("rome", by=by)
    world.run()
    for by in ("one", "other"):
        world.machine.cancel("d", NAME, by=by)
        assert world.machine.objects
    world.machine.cancel("d", NAME)
    assert not world.machine.objects


def test_a_slow_disk_slows_the_requests_down() -> None:
    world = World(writes=False)
    world.want("rome", "bern")
    for _ in range(10):
        world.now += 0.25
        world.run()
    assert len(world.asked) == 8  # a window of each peer


def test_a_peer_with_a_wrong_chunk_is_not_asked_again() -> None:
    world = World()
    world.wrong = {"rome"}
    world.want("rome", "bern")
    world.run()
    assert world.written == set(range(12))
    asked = [index for peer, index in world.asked if peer == "rome"]
    # Each twice, as its own disk may be damaged, and then it is to find that out.
    assert sorted(asked) == [0, 0, 2, 2, 4, 4, 6, 6]
    assert len(world.machine.wrong["rome"]) == 4


def test_a_peer_that_finds_out_that_its_copy_is_damaged_is_not_blamed() -> None:
    machine = Transfers(TransferOptions(window=1), now=0.0)
    machine.want("d", NAME, ["rome"])
    machine.tick(0.0)
    request = answered_list(machine)
    [write] = machine.replied(Replied(request.id, Chunk(), b"damaged"), 0.0)
    assert isinstance(write, WriteChunk)
    [again] = machine.written(write, is_right=False, now=0.0)
    assert isinstance(again, Call)
    assert request.message == ChunkRequest(NAME, 0, "d", background=True)
    assert again.message == ChunkRequest(NAME, 0, "d", background=True, doubted=True)
    [end] = machine.failed(Failed(again.id, "corrupt"), 0.0)
    assert isinstance(end, ObjectUnobtainable)
    assert not machine.wrong


def test_downloads_go_on_one_after_the_other_without_a_tick() -> None:
    """What has arrived is synced while the next one arrives."""
    world = World()
    machine = world.machine
    for dataset in "abcdef":
        machine.want(dataset, NAME, ["rome"])
    world.run()
    assert [each.dataset for each in world.ends if isinstance(each, ObjectComplete)] == [*"abcdef"]
    assert [index for _, index in world.asked] == [*range(12)] * 6


def answered_list(machine: Transfers) -> Call:
    """Answer the request for the list; return the one for the first chunk."""
    machine.found_kept(FindKept("d", NAME), {}, 0.0)
    body = bytes.fromhex("".join(DIGESTS))
    [request] = machine.replied(Replied(1, LIST, body), 0.0)
    assert isinstance(request, Call)
    return request


def test_the_record_of_wrong_chunks_is_bounded() -> None:
    world = World()
    world.wrong = {"rome"}
    for attempt in range(100):
        world.now = attempt * 1000.0
        world.want("rome")
        world.run()
    assert len(world.machine.wrong["rome"]) <= 16
    assert all(isinstance(each, ObjectUnobtainable) for each in world.ends)


def test_an_answer_after_the_end_has_no_effect() -> None:
    world = World(writes=False)
    world.want("rome")
    effects = world.machine.tick(0.0)
    [call] = [each for each in effects if isinstance(each, Call)]
    world.machine.abandon("d", NAME)
    assert world.machine.failed(Failed(call.id, "unavailable"), 1.0) == []


# Files


@pytest.fixture
def store(tmp_path: Path) -> ObjectStore:
    return ObjectStore(tmp_path / "objects")


@pytest.fixture
def copies(tmp_path: Path, store: ObjectStore) -> Iterator[Copies]:
    with ElkynStore(tmp_path / "sys") as tree:
        held = HeldObjects("oslo", store, tree)
        yield Copies("oslo", store, held, tmp_path, lambda _names: None)


DATASET = new_id()


def effects_of(data: bytes) -> tuple[list[WriteChunk], ObjectComplete]:
    """The writes of an object, and its end."""
    chunks = [data[at : at + CHUNK_BYTES] for at in range(0, len(data), CHUNK_BYTES)]
    digests = tuple(hashlib.sha256(chunk).hexdigest() for chunk in chunks)
    name = object_id(len(data), CHUNK_BYTES, digests)
    writes = [
        WriteChunk(DATASET, name, n, n * CHUNK_BYTES, chunk, digests[n], "rome")
        for n, chunk in enumerate(chunks)
    ]
    return writes, ObjectComplete(DATASET, name, len(data), CHUNK_BYTES, digests)


def test_chunks_in_any_order_become_an_object(copies: Copies, store: ObjectStore) -> None:
    data = os.urandom(2 * CHUNK_BYTES + 100)
    writes, end = effects_of(data)
    for write in reversed(writes):
        assert copies.write(write)
    assert copies.kept_chunks(DATASET, end.object) == dict(enumerate(end.chunks))
    copies.complete(end)
    assert b"".join(store.read(end.object)) == data
    store.verify(end.object)


def test_a_wrong_chunk_is_not_written(copies: Copies) -> None:
    [write], end = effects_of(b"right")
    wrong = WriteChunk(DATASET, end.object, 0, 0, b"wrong", write.digest, "rome")
    assert not copies.write(wrong)
    assert copies.kept_chunks(DATASET, end.object) == {}


@pytest.mark.parametrize("length", [CHUNK_BYTES + 10, CHUNK_BYTES])
def test_a_damaged_copy_is_found_when_the_receiver_doubts_it(
    copies: Copies, store: ObjectStore, length: int
) -> None:
    data = os.urandom(CHUNK_BYTES + 100)
    name = store.put_bytes(data).object
    sent = [copies.chunk(ChunkRequest(name, n, DATASET, doubted=n == 1))[1] for n in range(2)]
    assert b"".join(sent) == data
    store.place(name).chmod(0o600)
    store.place(name).write_bytes(bytes(length))
    assert copies.chunk(ChunkRequest(name, 0, DATASET))[1] == bytes(CHUNK_BYTES)
    with pytest.raises(Corrupt):
        copies.chunk(ChunkRequest(name, 1, DATASET, doubted=length > CHUNK_BYTES))
    assert store.quarantined() == [name]


@pytest.mark.parametrize("index", [-1, 2, 2**60])
def test_a_chunk_that_an_object_does_not_have_is_not_found(
    copies: Copies, store: ObjectStore, index: int
) -> None:
    name = store.put_bytes(bytes(CHUNK_BYTES + 1)).object
    with pytest.raises(NotFound):
        copies.chunk(ChunkRequest(name, index, DATASET))


def test_a_file_that_was_cut_off_is_no_object(copies: Copies, tmp_path: Path) -> None:
    [write], end = effects_of(b"some bytes")
    copies.write(write)
    os.truncate(tmp_path / "incoming-copies" / f"{end.object}.{DATASET}", 3)
    with pytest.raises(Corrupt):
        copies.complete(end)
    assert copies.kept_chunks(DATASET, end.object) == {}


def test_files_that_nobody_wants_are_removed_after_an_hour(copies: Copies, tmp_path: Path) -> None:
    ends = []
    for text in (b"old", b"wanted", b"new"):
        [write], end = effects_of(text)
        copies.write(write)
        ends.append(end)
    old, wanted, new = ends
    for end in (old, wanted):
        path = tmp_path / "incoming-copies" / f"{end.object}.{DATASET}"
        os.utime(path, (time.time() - 3601,) * 2)
    copies.transfers.want(DATASET, wanted.object, ["rome"])
    copies.sweep(copies.wanted)
    kept = [bool(copies.kept_chunks(DATASET, end.object)) for end in (old, wanted, new)]
    assert kept == [False, True, True]


@pytest.mark.slow  # starts executors
def test_no_copy_is_dropped_while_an_own_dataset_is_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What that references is not known, and may be one of the copies."""
    with Lake(tmp_path, memory_bytes="256 MiB") as lake:
        lake.append("mine", pa.table({"id": [1]}))
        [shard] = lake.catalog.manifest("mine").snapshot.shards
        copy = lake.objects.put_bytes(b"a copy").object
        parts = data_parts(lake)
        damaged = [replace(info, damaged="its row is lost") for info in lake.catalog.list()]
        with monkeypatch.context() as patched:
            patched.setattr(lake.catalog, "list", lambda: damaged)
            parts.copies.drop([copy, shard.object])
        assert copy in lake.objects
        parts.copies.drop([copy, shard.object])
        assert copy not in lake.objects
        assert shard.object in lake.objects
