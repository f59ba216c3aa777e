"""The object store: whole or absent, verified, read-only."""

import errno
import os
import stat
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lake.objects import store as objects
from lake.objects.store import ObjectStore
from lake.objects.verification import find_damage
from sennit_core.errors import Corrupt, NotFound, UsageError
from sennit_core.hashing import CHUNK_BYTES, ObjectHasher, hash_file


@pytest.fixture
def store(tmp_path: Path) -> ObjectStore:
    return ObjectStore(tmp_path / "objects")


def test_an_object_is_found_by_the_id_of_its_bytes(store: ObjectStore) -> None:
    digest = store.put_bytes(b"some bytes")

    assert digest == ObjectHasher().update(b"some bytes").finish()
    assert store.path(digest.object).read_bytes() == b"some bytes"
    assert list(store) == [digest.object]


def test_objects_are_read_only_files_of_their_owner_alone(store: ObjectStore) -> None:
    path = store.path(store.put_bytes(b"x").object)

    assert stat.S_IMODE(path.stat().st_mode) == 0o400


def test_a_writer_that_fails_leaves_nothing(store: ObjectStore) -> None:
    with pytest.raises(TypeError), store.open_writer() as writer:
        writer.write("no bytes")  # type: ignore[arg-type]

    assert list(store) == []
    assert [p for p in store.root.rglob("*") if p.is_file()] == []


def test_adopting_a_file_moves_it(store: ObjectStore, tmp_path: Path) -> None:
    path = tmp_path / "shard"
    path.write_bytes(b"shard")

    digest = store.adopt(path, hash_file(path))

    assert not path.exists()
    assert store.verify(digest.object) == digest


def test_adopting_a_file_of_another_size_is_refused(store: ObjectStore, tmp_path: Path) -> None:
    path = tmp_path / "shard"
    path.write_bytes(b"shard")
    digest = hash_file(path)
    path.write_bytes(b"shard, longer")

    with pytest.raises(Corrupt, match="5 bytes"):
        store.adopt(path, digest)


def test_one_flipped_bit_is_found_and_its_chunk_named(store: ObjectStore) -> None:
    data = bytes(CHUNK_BYTES) + b"tail"
    path = store.path(store.put_bytes(data).object)
    path.chmod(0o644)
    path.write_bytes(bytes(CHUNK_BYTES) + b"tbil")

    with pytest.raises(Corrupt, match="chunk 1"):
        store.verify(path.name)


def test_a_range_outside_the_damage_can_still_be_read(store: ObjectStore) -> None:
    digest = store.put_bytes(bytes(CHUNK_BYTES) + b"tail")
    path = store.path(digest.object)
    path.chmod(0o644)
    path.write_bytes(b"\x01" + bytes(CHUNK_BYTES - 1) + b"tail")

    assert b"".join(store.read(digest.object, CHUNK_BYTES)) == b"tail"
    with pytest.raises(Corrupt, match="chunk 0"):
        b"".join(store.read(digest.object, 0, 10))


def test_forged_chunk_hashes_are_found(store: ObjectStore) -> None:
    digest = store.put_bytes(bytes(CHUNK_BYTES + 1))
    sidecar = store.path(digest.object).with_name(digest.object + ".chunks")
    sidecar.chmod(0o644)
    sidecar.write_text(sidecar.read_text().replace(digest.chunks[0], "0" * 64))

    with pytest.raises(Corrupt, match="chunk hashes"):
        store.digest(digest.object)


def test_a_deletion_is_reported_and_an_open_reader_keeps_its_bytes(store: ObjectStore) -> None:
    name = store.put_bytes(b"bytes").object

    with store.path(name).open("rb") as reader:
        assert store.delete(name)
        assert reader.read() == b"bytes"

    assert not store.delete(name)
    with pytest.raises(NotFound):
        store.path(name)


def test_an_invalid_object_id_never_becomes_a_path(store: ObjectStore) -> None:
    for name in ("../../etc/passwd", "", "A" * 64, "0" * 63, "0" * 64 + "/x"):
        with pytest.raises(UsageError):
            store.path(name)


def test_files_left_by_a_crash_are_swept_at_the_start(store: ObjectStore) -> None:
    (store.root / "incoming" / "0123.incoming").write_bytes(b"half")

    again = ObjectStore(store.root)

    assert list((again.root / "incoming").iterdir()) == []


@pytest.mark.slow
@given(st.binary(max_size=64), st.integers(0, 70), st.integers(0, 70))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_range_reads_as_the_slice_of_the_bytes(
    tmp_path: Path, data: bytes, start: int, stop: int
) -> None:
    store = ObjectStore(tmp_path / "objects")
    name = store.put_bytes(data).object

    assert b"".join(store.read(name, start, stop)) == data[start:stop]


@pytest.mark.parametrize("size", [0, 1, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1])
def test_only_an_object_of_several_chunks_has_a_list_of_them(store: ObjectStore, size: int) -> None:
    data = bytes(size)

    digest = store.put_bytes(data)

    lists = list(store.root.rglob("*.chunks"))
    assert len(lists) == (1 if size > CHUNK_BYTES else 0)
    assert store.digest(digest.object) == digest == ObjectHasher().update(data).finish()
    assert b"".join(store.read(digest.object)) == data
    assert find_damage(store.path(digest.object)) is None


@pytest.mark.parametrize("change", [b"", b"other", b"bytes and more", bytes(CHUNK_BYTES + 5)])
def test_a_changed_object_of_one_chunk_is_found(store: ObjectStore, change: bytes) -> None:
    path = store.path(store.put_bytes(b"bytes").object)
    path.chmod(0o644)
    path.write_bytes(change)

    assert find_damage(path) is not None
    with pytest.raises(Corrupt):
        list(store.read(path.name))


def test_names_are_durable_before_a_row_names_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A power cut after the commit must not lose an object of the commit, or its folder."""
    synced: set[str] = set()
    real = os.fsync

    def record(descriptor: int) -> None:
        real(descriptor)
        synced.add(str(Path(f"/proc/self/fd/{descriptor}").readlink()))

    monkeypatch.setattr(os, "fsync", record)
    store = ObjectStore(tmp_path / "objects")
    file = tmp_path / "file"
    file.write_bytes(b"shard")

    names = [store.put_bytes(b"%d" % number).object for number in range(20)]
    names.append(store.adopt(file).object)
    assert str(file) in synced
    assert not any(str(store.place(name).parent) in synced for name in names)
    store.sync_names()

    assert {str(store.place(name).parent) for name in names} | {str(store.root)} <= synced
    synced.clear()
    store.sync_names()
    assert synced == set()


def test_a_sync_of_names_that_failed_is_repeated(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = store.put_bytes(b"bytes").object
    with monkeypatch.context() as patch:
        patch.setattr(objects, "fsync_folders", lambda folders: fail())
        with pytest.raises(OSError, match="broken"):
            store.sync_names()
    synced: list[Path] = []
    monkeypatch.setattr(objects, "fsync_folders", synced.extend)

    store.sync_names()

    assert store.place(name).parent in synced


def fail() -> None:
    raise OSError(errno.EIO, "broken")
