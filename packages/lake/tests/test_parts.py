"""Uploads in parts: resumable, idempotent, checked."""

import hashlib
import os
import random
import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st

from lake.errors import UploadIncomplete
from lake.ingest.source import PartsFile
from lake.uploads.parts import PartStore
from lake.uploads.upload import SealedUpload, UploadInfo
from sennit_core.errors import (
    BadInput,
    Conflict,
    Corrupt,
    NotFound,
    StorageFull,
    TooLarge,
    UsageError,
)
from sennit_core.file_kinds import find_unreadable
from sennit_core.testing import ManualClock

DATA = bytes(range(256)) * 4  # 1024 bytes


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def send(
    store: PartStore, upload: UploadInfo, index: int, data: bytes, sha256: str | None = None
) -> str:
    with store.open_part(upload.id, index, sha256=sha256) as part:
        part.write(data)
        return part.commit()


def content(sealed: SealedUpload) -> bytes:
    with PartsFile(sealed.paths) as file:
        return file.read() or b""


@pytest.fixture
def store(tmp_path: Path) -> PartStore:
    return PartStore(tmp_path / "uploads")


@pytest.fixture
def upload(store: PartStore) -> UploadInfo:
    return store.start("flights.csv", len(DATA), part_bytes=400)


def test_parts_in_any_order_make_the_file(store: PartStore, upload: UploadInfo) -> None:
    for index in (2, 0, 1):
        send(store, upload, index, DATA[index * 400 : index * 400 + 400])

    sealed = store.seal(upload.id)

    assert content(sealed) == DATA
    assert sealed.size == 1024
    assert store.get(upload.id).state == "sealed"


def test_a_part_returns_its_hash_and_is_listed(store: PartStore, upload: UploadInfo) -> None:
    assert send(store, upload, 1, DATA[400:800]) == sha(DATA[400:800])
    assert store.get(upload.id).have == (1,)


def test_a_part_is_stored_while_another_one_reaches_the_disk(
    store: PartStore, upload: UploadInfo, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, syncing, go_on = os.fsync, threading.Event(), threading.Event()

    def slow(file: int) -> None:
        if threading.current_thread() is not threading.main_thread():
            syncing.set()
            assert go_on.wait(30)
        real(file)

    monkeypatch.setattr(os, "fsync", slow)
    first = threading.Thread(target=send, args=(store, upload, 0, DATA[:400]))
    first.start()
    assert syncing.wait(30)
    send(store, upload, 1, DATA[400:800])

    assert store.get(upload.id).have == (1,)
    go_on.set()
    first.join()
    assert store.get(upload.id).have == (0, 1)


def test_the_same_part_twice_changes_nothing(store: PartStore, upload: UploadInfo) -> None:
    send(store, upload, 0, DATA[:400], sha(DATA[:400]))
    send(store, upload, 0, DATA[:400], sha(DATA[:400]))

    assert store.get(upload.id).have == (0,)


def test_other_bytes_under_the_same_index_are_a_conflict(
    store: PartStore, upload: UploadInfo
) -> None:
    send(store, upload, 0, DATA[:400])

    with pytest.raises(Conflict, match="is here with SHA-256"):
        store.open_part(upload.id, 0, sha256=sha(bytes(400)))
    with pytest.raises(Conflict, match="is here with SHA-256"):
        send(store, upload, 0, bytes(400))
    assert store.get(upload.id).have == (0,)


def test_wrong_bytes_are_refused_naming_both_hashes(store: PartStore, upload: UploadInfo) -> None:
    with pytest.raises(BadInput) as caught:
        send(store, upload, 0, bytes(400), sha(DATA[:400]))

    assert sha(DATA[:400]) in str(caught.value)
    assert sha(bytes(400)) in str(caught.value)
    assert store.get(upload.id).have == ()


def test_a_short_part_is_refused(store: PartStore, upload: UploadInfo) -> None:
    with pytest.raises(BadInput, match="has 399 bytes, expected 400"):
        send(store, upload, 0, DATA[:399])


def test_a_long_part_is_refused_as_soon_as_it_is_too_long(
    store: PartStore, upload: UploadInfo
) -> None:
    with pytest.raises(TooLarge), store.open_part(upload.id, 2) as part:
        part.write(bytes(225))
    with pytest.raises(TooLarge):
        store.open_part(upload.id, 0, expected_bytes=401)


def test_completing_with_parts_missing_lists_them(store: PartStore, upload: UploadInfo) -> None:
    send(store, upload, 1, DATA[400:800])

    with pytest.raises(UploadIncomplete) as caught:
        store.seal(upload.id)

    assert caught.value.missing == [0, 2]
    assert store.get(upload.id).state == "receiving"


def test_an_upload_resumes_after_a_restart(
    store: PartStore, upload: UploadInfo, tmp_path: Path
) -> None:
    send(store, upload, 0, DATA[:400])
    (store.folder(upload.id) / "dead.incoming").write_bytes(b"half a part")

    again = PartStore(tmp_path / "uploads")
    assert again.get(upload.id).have == (0,)
    for index in (1, 2):
        send(again, upload, index, DATA[index * 400 : index * 400 + 400])

    assert content(again.seal(upload.id)) == DATA
    assert not list(again.folder(upload.id).glob("*.incoming"))


def test_parts_that_were_damaged_at_rest_are_sent_again(
    store: PartStore, upload: UploadInfo
) -> None:
    for index in range(3):
        send(store, upload, index, DATA[index * 400 : index * 400 + 400])
    (damaged,) = store.folder(upload.id).glob("000001-*.part")
    damaged.write_bytes(b"x" + damaged.read_bytes()[1:])
    os.utime(damaged, (0, 0))

    with pytest.raises(UploadIncomplete) as raised:
        store.seal(upload.id)
    assert raised.value.missing == [1]
    send(store, upload, 1, DATA[400:800])
    assert content(store.seal(upload.id)) == DATA

    (damaged,) = store.folder(upload.id).glob("000001-*.part")
    damaged.write_bytes(b"x" + damaged.read_bytes()[1:])
    os.utime(damaged, (0, 0))
    with pytest.raises(Corrupt, match=f"part 1 of upload {upload.id}"):
        store.seal(upload.id)


def test_a_part_that_was_interrupted_leaves_nothing(store: PartStore, upload: UploadInfo) -> None:
    part = store.open_part(upload.id, 0)
    part.write(DATA[:100])
    part.__exit__(ConnectionError, ConnectionError(), None)

    assert [path.name for path in store.folder(upload.id).iterdir()] == ["upload.json"]


def test_the_whole_file_is_checked_against_its_declared_hash(store: PartStore) -> None:
    good = store.start("a.csv", 4, sha256=sha(b"abcd"))
    send(store, good, 0, b"abcd")
    assert store.seal(good.id).sha256 == sha(b"abcd")

    bad = store.start("a.csv", 4, sha256=sha(b"abcd"))
    send(store, bad, 0, b"abce")
    with pytest.raises(BadInput, match="declared"):
        store.seal(bad.id)


def test_a_sealed_upload_accepts_no_more_parts(store: PartStore) -> None:
    upload = store.start("a.csv", None, part_bytes=4)
    send(store, upload, 0, b"abcd")
    store.seal(upload.id)

    with pytest.raises(Conflict, match="accepts no more parts"):
        store.open_part(upload.id, 1)


def test_a_stream_of_unknown_size_ends_with_a_shorter_part(store: PartStore) -> None:
    upload = store.start("a.csv", None, part_bytes=4)
    send(store, upload, 1, b"ef")
    with pytest.raises(UploadIncomplete):
        store.seal(upload.id)
    send(store, upload, 0, b"abcd")

    assert content(store.seal(upload.id)) == b"abcdef"


def test_a_short_part_in_the_middle_of_a_stream_is_refused(store: PartStore) -> None:
    upload = store.start("a.csv", None, part_bytes=4)
    send(store, upload, 0, b"abc")
    send(store, upload, 1, b"ef")

    with pytest.raises(BadInput, match="not full"):
        store.seal(upload.id)


def test_an_empty_file_is_refused_before_any_part(store: PartStore) -> None:
    with pytest.raises(BadInput, match=r"empty\.csv.*is empty"):
        store.start("empty.csv", 0)


def send_pieces(store: PartStore, upload: UploadInfo, pieces: list[bytes]) -> None:
    with store.open_part(upload.id, 0) as part:
        for piece in pieces:
            part.write(piece)
        part.commit()


@pytest.mark.parametrize("sizes", [(10_000,), (3, 5, 9_992), (50,)])
def test_an_image_is_refused_at_its_first_bytes(store: PartStore, sizes: tuple[int, ...]) -> None:
    png = (b"\x89PNG\r\n\x1a\n" + bytes(9_992))[: sum(sizes)]
    upload = store.start("photo.csv", len(png) + 100, part_bytes=len(png))
    pieces = [png[sum(sizes[:i]) : sum(sizes[: i + 1])] for i in range(len(sizes))]

    with pytest.raises(BadInput, match=r"photo\.csv.*a PNG image"):
        send_pieces(store, upload, pieces)

    assert store.get(upload.id).have == ()


def test_only_the_beginning_of_a_file_is_looked_at(store: PartStore) -> None:
    upload = store.start("a.csv", 24, part_bytes=16)

    with store.open_part(upload.id, 1) as part:
        part.write(b"\x89PNG\r\n\x1a\n")
        part.commit()

    assert store.get(upload.id).have == (1,)


def test_aborting_forgets_everything_and_twice_is_fine(
    store: PartStore, upload: UploadInfo
) -> None:
    send(store, upload, 0, DATA[:400])

    store.abort(upload.id)
    store.abort(upload.id)

    with pytest.raises(NotFound):
        store.get(upload.id)
    assert list(store.root.iterdir()) == []


def test_old_unfinished_uploads_are_swept(tmp_path: Path) -> None:
    clock = ManualClock()
    store = PartStore(tmp_path / "uploads", expire_seconds=50, clock=clock)
    old = store.start("old.csv", 10)
    clock.advance(100)
    new = store.start("new.csv", 10)

    assert store.sweep() == [old.id]
    assert [u.id for u in store.list()] == [new.id]


def test_names_and_ids_never_become_paths(store: PartStore) -> None:
    assert store.start("../../etc/passwd", 1).name == "passwd"
    assert store.start("C:\\data\\a b.csv", 1).name == "a b.csv"
    for name in ("", "..", "a\x00b", "dir/", "x" * 300):
        with pytest.raises(UsageError):
            store.start(name, 1)
    for upload_id in ("../x", "..", "", "A" * 26):
        with pytest.raises(NotFound):
            store.get(upload_id)


def test_parts_outside_the_file_are_refused(store: PartStore, upload: UploadInfo) -> None:
    for index in (-1, 3, 10**9):
        with pytest.raises(UsageError):
            store.open_part(upload.id, index)


def test_an_upload_that_cannot_fit_the_disk_is_refused_at_the_start(store: PartStore) -> None:
    with pytest.raises(StorageFull):
        store.start("huge.csv", 1 << 44, part_bytes=256 << 20)


def test_a_limit_on_size_is_reported(tmp_path: Path) -> None:
    store = PartStore(tmp_path, size_max=100)

    with pytest.raises(TooLarge, match="upload"):
        store.start("a.csv", 101)


def test_admission_is_checked_before_anything_is_written(tmp_path: Path) -> None:
    def refuse(name: str, mode: str, options: dict[str, Any]) -> None:
        raise Conflict(f"{name} {mode} {options}")

    store = PartStore(tmp_path / "uploads", admit=refuse)
    with pytest.raises(Conflict, match=r"a\.csv create"):
        store.start("a.csv", 1, options={"strict": True})
    assert list(store.root.iterdir()) == []


@pytest.mark.slow
@example(data=b"PK\x05\x06", part_bytes=4, order=random.Random(0))
@given(data=st.binary(min_size=1, max_size=200), part_bytes=st.integers(1, 64), order=st.randoms())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)
def test_any_file_in_any_parts_round_trips(
    tmp_path_factory: pytest.TempPathFactory, data: bytes, part_bytes: int, order: random.Random
) -> None:
    # A file whose first bytes are those of an image or an archive is refused, and the generator
    # knows the marks: it tries constants of the code.
    assume(find_unreadable(data[:part_bytes]) is None)
    store = PartStore(tmp_path_factory.mktemp("uploads"))
    upload = store.start("f", len(data), part_bytes=part_bytes)
    indexes = list(range(upload.parts or 0))
    order.shuffle(indexes)
    for index in indexes:
        send(store, upload, index, data[index * part_bytes : (index + 1) * part_bytes])

    assert content(store.seal(upload.id)) == data
