"""Uploads of encrypted datasets: no step of them writes a byte of the file to the disk in the clear."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import io
import json
import os
import threading
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from emsqrt.executor import ExecutorPool
from lake import Lake
from lake.encryption.files import EncryptedFile
from lake.encryption.keys import read_secret
from lake.uploads.part_reuse import reuse_parts
from lake.uploads.upload import UploadInfo
from sennit_core.errors import BadInput, Conflict, Corrupt, Denied, SennitError
from sennit_core.units import KIB

from .conftest import put, upload_file
from .served_lake import Client, make_app
from .test_crash import CHILD, die
from .test_encryption import CANARY, PASSPHRASE, ROWS, clear_files, csv_text, opened

ENCRYPT = {"encrypt": True}
CHUNK = 256 * KIB


@pytest.fixture
def lake(tmp_path: Path, pool: ExecutorPool) -> Iterator[Lake]:
    with opened(tmp_path / "data", pool) as lake:
        yield lake


@contextmanager
def watched(folder: Path) -> Iterator[list[Path]]:
    """Look for the canary in the files of a folder again and again while the context is open."""
    found: list[Path] = []
    ended = threading.Event()

    def look() -> None:
        while not ended.is_set():
            # Unlike `rglob`, `walk` ignores folders that are removed meanwhile.
            names = [Path(at, name) for at, _, files in os.walk(folder) for name in files]
            for path in names:
                try:
                    data = path.read_bytes()
                except OSError:  # it is gone
                    continue
                if CANARY.encode() in data or data[:4] == b"PAR1":
                    found.append(path)

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield found
    finally:
        ended.set()
        thread.join()


def parquet() -> bytes:
    sink = io.BytesIO()
    table = pa.table({"id": range(ROWS), "secret": [f"{CANARY}-{i}" for i in range(ROWS)]})
    pq.write_table(table, sink, row_group_size=500)
    return sink.getvalue()


def workbook() -> bytes:
    openpyxl = pytest.importorskip("openpyxl")
    book = openpyxl.Workbook()
    book.active.append(["id", "secret"])
    for index in range(ROWS):
        book.active.append([index, f"{CANARY}-{index}"])
    sink = io.BytesIO()
    book.save(sink)
    return sink.getvalue()


def zipped() -> bytes:
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("t.csv", csv_text())
    return sink.getvalue()


FILES: dict[str, Callable[[], bytes]] = {
    "t.csv": lambda: csv_text().encode(),
    "t.csv.gz": lambda: gzip.compress(csv_text().encode()),
    "t.csv.bz2": lambda: bz2.compress(csv_text().encode()),
    "t.zip": zipped,
    "t.jsonl": lambda: "".join(
        json.dumps({"id": i, "secret": f"{CANARY}-{i}"}) + "\n" for i in range(ROWS)
    ).encode(),
    "t.parquet": parquet,
    "t.xlsx": workbook,
}


@pytest.mark.parametrize("name", FILES)
def test_no_step_of_an_upload_is_in_the_clear(lake: Lake, name: str) -> None:
    with watched(lake.folder) as found:
        upload = upload_file(
            lake, name, FILES[name](), options={**ENCRYPT, "name": "t"}, part_bytes=5000
        )
        info = lake.ingest(upload.id)
    assert found == []
    assert (info.encrypted, info.rows) == (True, ROWS)
    query = f"SELECT count(*), count(DISTINCT id) FROM t WHERE secret LIKE '{CANARY}%'"
    assert lake.sql(query).rows == [(ROWS, ROWS)]
    assert lake.vault.keys.entries() == [info.id]  # the upload's key is gone with it


def test_the_watch_finds_an_upload_that_is_not_encrypted(lake: Lake) -> None:
    with watched(lake.folder) as found:
        upload = upload_file(lake, "t.csv", csv_text())
        threading.Event().wait(0.2)
        lake.ingest(upload.id)
    assert any(path.suffix == ".part" for path in found)


@pytest.mark.parametrize("mode", ["append", "replace"])
def test_uploads_into_an_encrypted_dataset_are_encrypted_without_being_asked(
    lake: Lake, mode: str
) -> None:
    put(lake, "t.csv", csv_text(), options=ENCRYPT)
    with watched(lake.folder) as found:
        put(lake, "t.csv", csv_text(), mode=mode)
    assert found == []
    assert lake.catalog.get("t").rows == (2 * ROWS if mode == "append" else ROWS)


def test_hashes_that_confirm_a_guess_are_not_stored(lake: Lake) -> None:
    content = csv_text().encode()
    whole = hashlib.sha256(content).hexdigest()
    upload = upload_file(lake, "t.csv", content, options=ENCRYPT, sha256=whole)
    folder = lake.parts.folder(upload.id)
    assert whole not in " ".join(path.name for path in folder.iterdir())
    assert whole not in (folder / "upload.json").read_text()
    assert lake.parts.get(upload.id).to_json()["sha256"] is None
    assert lake.ingest(upload.id).rows == ROWS


def test_encrypted_parts_are_not_taken_by_other_uploads(lake: Lake) -> None:
    data, clear = csv_text().encode(), {"name": "clear"}
    sent = [
        upload_file(lake, "a.csv", data, owner="ada", options=each) for each in (ENCRYPT, clear)
    ]
    offered = {0: hashlib.sha256(data).hexdigest()}

    assert list(lake.parts.reusable("ada")) == [sent[1].id]
    for options in (ENCRYPT | {"name": "b"}, {"name": "c"}):
        upload = lake.parts.start("a.csv", len(data), owner="ada", options=options)
        reused = reuse_parts(lake.parts, upload.id, "ada", offered)
        assert list(reused) == ([] if upload.encrypted else [0])


def test_parts_come_in_any_order_again_and_after_a_restart(
    tmp_path: Path, pool: ExecutorPool
) -> None:
    content = csv_text().encode()
    size = 20_000
    whole = hashlib.sha256(content).hexdigest()
    start: dict[str, Any] = {"options": ENCRYPT, "part_bytes": size, "resume_key": "key"}

    def send(lake: Lake, upload: UploadInfo, index: int, data: bytes | None = None) -> None:
        piece = content[index * size :][:size] if data is None else data
        sha256 = hashlib.sha256(piece).hexdigest()
        with lake.parts.open_part(upload.id, index, sha256=sha256) as part:
            part.write(piece)
            part.commit()

    with opened(tmp_path / "data", pool) as lake:
        upload = lake.parts.start("t.csv", len(content), sha256=whole, **start)
        assert upload.parts is not None
        for index in (2, 0, 2):
            send(lake, upload, index)
        with pytest.raises(Conflict, match="is here with other bytes"):
            send(lake, upload, 0, b"x" * size)
        with lake.parts.open_part(upload.id, 1, sha256="0" * 64) as part:
            part.write(content[size : 2 * size])
            with pytest.raises(BadInput, match="SHA-256 was declared"):
                part.commit()
    with opened(tmp_path / "data", pool, passphrase=None) as lake:  # without the key: shown only
        assert lake.parts.get(upload.id).have == (0, 2)
        with pytest.raises(Denied):
            send(lake, upload, 1)
    with opened(tmp_path / "data", pool) as lake:
        row = lake.tree.get(f"/uploads/{upload.id}")
        assert isinstance(row, dict)
        assert row["bytesDone"] == 2 * size
        again = lake.parts.start("t.csv", len(content), sha256=whole, **start)
        assert (again.id, again.have) == (upload.id, (0, 2))
        new = read_secret(passphrase="quite another passphrase")
        assert new is not None
        lake.vault.keys.rotate(new)
        for index in range(upload.parts):
            send(lake, upload, index)
        assert lake.ingest(upload.id).rows == ROWS


def test_a_whole_file_with_another_hash_is_refused(lake: Lake) -> None:
    upload = upload_file(lake, "t.csv", csv_text(), options=ENCRYPT, sha256="0" * 64)
    with pytest.raises(BadInput, match="the parts make"):
        lake.ingest(upload.id)


def test_an_aborted_or_swept_upload_loses_its_key(tmp_path: Path, pool: ExecutorPool) -> None:
    with opened(tmp_path / "data", pool) as lake:
        upload = upload_file(lake, "t.csv", csv_text(), options=ENCRYPT)
        kept = upload_file(lake, "u.csv", csv_text(), options=ENCRYPT)
        assert len(lake.vault.keys.entries()) == 2
        lake.parts.abort(upload.id)
        assert len(lake.vault.keys.entries()) == 1
        (
            lake.parts.folder(kept.id) / "upload.json"
        ).unlink()  # as a crash between the two leaves it
    with opened(tmp_path / "data", pool) as lake:
        assert lake.vault.keys.entries() == []


def test_damaged_parts_are_found_and_not_ingested(lake: Lake) -> None:
    upload = upload_file(lake, "t.csv", csv_text(), options=ENCRYPT, part_bytes=20_000)
    parts = sorted(lake.parts.folder(upload.id).glob("*.part"))
    first, second = (path.read_bytes() for path in parts[:2])
    parts[0].write_bytes(second)  # another part of the same upload, of the same size
    with pytest.raises(Corrupt, match="of encrypted file"):
        lake.ingest(upload.id)
    parts[0].write_bytes(first)
    assert lake.ingest(upload.id).rows == ROWS


def test_parts_in_the_clear_do_not_end_in_an_encrypted_dataset(lake: Lake) -> None:
    upload = upload_file(lake, "t.csv", csv_text(), mode="append")
    put(lake, "t.csv", csv_text(), options=ENCRYPT)
    with pytest.raises(Conflict, match="began before its dataset was encrypted"):
        lake.ingest(upload.id)


def test_encrypted_parts_do_not_end_in_a_dataset_in_the_clear(lake: Lake) -> None:
    put(lake, "t.csv", csv_text(), options=ENCRYPT)
    upload = upload_file(lake, "t.csv", csv_text(), mode="append")
    lake.delete("t")
    with watched(lake.folder) as found:
        assert lake.ingest(upload.id).encrypted
    assert found == []
    second = upload_file(lake, "t.csv", csv_text(), mode="append")
    lake.delete("t")
    put(lake, "open.csv", "id,secret\n1,x\n")
    lake.sql("ALTER TABLE open RENAME TO t")
    with pytest.raises(Conflict, match="is not encrypted"):
        lake.ingest(second.id)


def test_a_whole_file_over_http_is_encrypted(lake: Lake) -> None:
    client = Client(make_app(lake))
    with watched(lake.folder) as found:
        answer = client.post(
            "/api/upload", params={"name": "t.csv", "options": '{"encrypt": true}'},
            content=csv_text().encode(),
        )  # fmt: skip
    assert answer.status_code == 200, answer.text
    assert found == []


@pytest.mark.crash
@pytest.mark.parametrize("point", ["ingest-sealed", "ingest-half-adopted", "ingest-committed"])
def test_a_node_killed_during_the_ingest_leaves_nothing_in_the_clear(
    tmp_path: Path, pool: ExecutorPool, point: str
) -> None:
    data, key = tmp_path / "data", tmp_path / "key"
    key.write_bytes(os.urandom(32))
    key.chmod(0o600)
    secret = {"passphrase": None, "key_file": key}
    child = CHILD.replace('memory_bytes="512MiB"', f'memory_bytes="512MiB", key_file="{key}"')
    with opened(data, pool, **secret) as lake:
        text = gzip.compress(csv_text().encode())
        upload = upload_file(lake, "t.csv.gz", text, options=ENCRYPT, part_bytes=5000)

    with watched(data) as found:
        die(data, point, "ingest", upload.id, child)

    assert found == []
    assert clear_files(data) == []
    with opened(data, pool, **secret) as lake:
        info = lake.ingest(upload.id)
        assert lake.sql("SELECT count(DISTINCT id), count(*) FROM t").rows == [(ROWS, ROWS)]
        assert lake.vault.keys.entries() == [info.id]
    assert clear_files(data) == []


SIZES = st.sampled_from((0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK))


@given(size=SIZES, data=st.data())
@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_an_encrypted_file_reads_as_it_was_written_or_not_at_all(
    tmp_path: Path, size: int, data: Any
) -> None:
    path, key, content = tmp_path / "file", os.urandom(32), os.urandom(size)
    path.unlink(missing_ok=True)
    file = EncryptedFile(path, "a/0", key)
    with file.open("xb") as sink:
        start = 0
        while start < size:
            step = data.draw(st.integers(1, size))
            sink.write(content[start : start + step])
            start += step
        assert sink.tell() == size
    assert file.plain_bytes == size
    with file.open() as source:
        assert source.read() == content
        offset = source.seek(data.draw(st.integers(0, size + 1)))
        assert source.read() == content[offset:]

    stored = bytearray(path.read_bytes())
    change = data.draw(st.sampled_from(("flip", "cut", "cut at a chunk", "extend", "name", "key")))
    if change == "flip":
        stored[data.draw(st.integers(0, len(stored) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    elif change == "cut":
        del stored[data.draw(st.integers(0, len(stored) - 1)) :]
    elif change == "cut at a chunk" and size > CHUNK:
        del stored[40 + CHUNK + 16 :]
    elif change == "name":
        file = replace(file, name="a/1")
    elif change == "key":
        file = replace(file, key=os.urandom(32))
    else:
        stored += b"x"
    path.write_bytes(stored)

    with pytest.raises(SennitError), file.open() as source:
        source.read()
    assert PASSPHRASE not in repr(file)
    assert "key" not in repr(file)
