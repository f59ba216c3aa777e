"""A file is hashed once in a process, again when it has changed, and by one thread at a time."""

from __future__ import annotations

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lake import ObjectStore
from lake.objects.verification import ShardFile, Verifier, find_damage
from sennit_core.errors import Cancelled, Corrupt
from sennit_core.hashing import CHUNK_BYTES


@pytest.fixture
def store(tmp_path: Path) -> ObjectStore:
    return ObjectStore(tmp_path / "objects")


def stored(store: ObjectStore, data: bytes) -> ShardFile:
    return ShardFile("flights", 2, str(store.path(store.put_bytes(data).object)))


class Pieces:
    """Counts the pieces of files that were hashed."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self) -> None:
        self.count += 1


def test_a_file_is_hashed_once(store: ObjectStore) -> None:
    shard, verifier, pieces = stored(store, bytes(3 * CHUNK_BYTES)), Verifier(), Pieces()

    verifier.check(shard, pieces)
    first = pieces.count
    verifier.check(shard, pieces)

    assert first >= 3
    assert pieces.count == first


@pytest.mark.parametrize("change", ["times", "another inode"])
def test_a_file_that_may_have_changed_is_hashed_again(store: ObjectStore, change: str) -> None:
    shard, verifier, pieces = stored(store, b"bytes"), Verifier(), Pieces()
    verifier.check(shard, pieces)
    path = Path(shard.path)

    if change == "times":
        os.utime(path)
    else:
        path.with_name("copy").write_bytes(path.read_bytes())
        path.with_name("copy").replace(path)
    verifier.check(shard, pieces)

    assert pieces.count == 2


def test_two_threads_hash_a_file_once(store: ObjectStore) -> None:
    shard, verifier, pieces = stored(store, bytes(CHUNK_BYTES)), Verifier(), Pieces()
    started, go_on = threading.Event(), threading.Event()

    def first_piece() -> None:
        pieces()
        started.set()
        go_on.wait()

    with ThreadPoolExecutor(4) as threads:
        one = threads.submit(verifier.check, shard, first_piece)
        started.wait()
        others = [threads.submit(verifier.check, shard, pieces) for _ in range(3)]
        go_on.set()
        for each in (one, *others):
            each.result()

    alone = Pieces()
    Verifier().check(shard, alone)
    assert pieces.count == alone.count


def test_a_file_verified_while_another_thread_looks_is_not_hashed_again(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    shard, verifier, pieces = stored(store, bytes(CHUNK_BYTES)), Verifier(), Pieces()
    real_stat = os.stat

    def stat_while_another_thread_verifies(path: str) -> os.stat_result:
        monkeypatch.setattr(os, "stat", real_stat)
        verifier.check(shard)
        return real_stat(path)

    monkeypatch.setattr(os, "stat", stat_while_another_thread_verifies)
    verifier.check(shard, pieces)

    assert pieces.count == 0


def test_a_thread_that_is_cancelled_leaves_the_file_to_the_next(store: ObjectStore) -> None:
    shard, verifier = stored(store, bytes(CHUNK_BYTES)), Verifier()

    def cancel() -> None:
        raise Cancelled("the query")

    with pytest.raises(Cancelled):
        verifier.check(shard, cancel)
    verifier.check(shard)


@pytest.mark.slow
@given(st.data())
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_changed_byte_is_found_and_its_chunk_named(tmp_path: Path, data: st.DataObject) -> None:
    store = ObjectStore(tmp_path / "objects")
    size = data.draw(st.integers(1, 3 * CHUNK_BYTES))
    at = data.draw(st.integers(0, size - 1))
    with store.open_writer() as writer:
        writer.write(os.urandom(size))
        digest = writer.commit()
    path = store.path(digest.object)
    path.chmod(0o644)
    with path.open("r+b") as file:
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes((byte ^ data.draw(st.integers(1, 255)),)))

    damage = find_damage(path)
    with pytest.raises(Corrupt, match=f"chunk {at // CHUNK_BYTES} of shard 1 .object {path.name}"):
        Verifier().check(ShardFile("flights", 1, str(path)))

    assert damage is not None
    assert damage.part == f"chunk {at // CHUNK_BYTES}"
    path.unlink()


def test_intact_data_reads_without_damage_from_the_disk(store: ObjectStore) -> None:
    for size in (0, 1, CHUNK_BYTES, CHUNK_BYTES + 1):
        digest = store.put_bytes(bytes(size))
        assert find_damage(store.path(digest.object), from_disk=True) is None
