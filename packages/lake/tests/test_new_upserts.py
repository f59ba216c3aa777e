"""Upserts that create their dataset, and upserts into encrypted datasets."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from emsqrt.executor import ExecutorPool
from lake import Lake
from lake.links.linking import LinkRequest
from sennit_core.errors import BadInput, Denied, SennitError, UnknownColumn

from .conftest import put, upload_file
from .served_lake import Client, make_app
from .test_crash import CHILD, check_nothing_is_left_over, die
from .test_crash import opened as opened_plain
from .test_encrypted_uploads import watched
from .test_encryption import CANARY, ROWS, clear_files, csv_text, opened

KEY: dict[str, Any] = {"name": "t", "key": ["id"]}


@pytest.fixture
def locked(tmp_path: Path, pool: ExecutorPool) -> Iterator[Lake]:
    """A lake with a key and no dataset."""
    with opened(tmp_path / "data", pool) as lake:
        yield lake


@pytest.fixture
def secret(locked: Lake) -> Lake:
    """A lake with an encrypted dataset `t` of the ids 0 to 2,999."""
    put(locked, "t.csv", csv_text(), options={"encrypt": True})
    return locked


def test_an_upsert_creates_the_dataset_and_the_next_one_merges(lake: Lake) -> None:
    lake.upsert("t", pa.table({"id": [1, 2], "v": ["a", "b"]}), key=["ID"])
    info = lake.upsert("t", pa.table({"id": [2, 3], "v": ["B", "c"]}), key=["id"])
    assert lake.sql("FROM t").rows == [(1, "a"), (2, "B"), (3, "c")]
    assert info.rows == 3


@pytest.mark.parametrize(
    ("text", "key", "error", "message"),
    [
        ("id,v\n5,x\n7,y\n5,z\n", ["id"], BadInput, "rows 1 and 3 .* id = 5"),
        ("id,v\n5,x\n,y\n", ["id"], BadInput, "1 rows have no value .* row 2"),
        ("id,v\n5,x\n", ["idd"], UnknownColumn, "idd"),
    ],
)
def test_a_new_dataset_needs_a_key_too(
    lake: Lake, tmp_path: Path, text: str, key: list[str], error: type[SennitError], message: str
) -> None:
    file = tmp_path / "t.csv"
    file.write_text(text)
    with pytest.raises(error, match=message):
        lake.upsert("t", file, key=key)
    assert lake.catalog.find("t") is None
    assert list(lake.objects) == []
    assert list(lake.staging.iterdir()) == []


def test_an_upload_and_a_linked_file_create_it(lake: Lake, tmp_path: Path) -> None:
    document = {"name": "new.csv", "size": 12, "mode": "upsert", "options": KEY}
    assert Client(make_app(lake)).post("/api/start-upload", json=document).status_code == 200
    lake.ingest(upload_file(lake, "new.csv", "id,v\n1,a\n2,b\n", mode="upsert", options=KEY).id)
    file = tmp_path / "u.csv"
    file.write_text("id,v\n1,a\n2,b\n")
    linked = lake.linker.link(LinkRequest(str(file), mode="upsert", options=KEY | {"name": "u"}))
    assert linked.upload is not None
    lake.ingest(linked.upload)
    assert lake.sql("FROM t").rows == lake.sql("FROM u").rows == [(1, "a"), (2, "b")]


def test_a_layout_of_a_new_dataset_is_kept(lake: Lake) -> None:
    rows = pa.table({"id": [1, 2, 3], "c": ["x", "y", "x"]})
    lake.upsert("t", rows, key=["id"], partition_by=["c"], sort_by=["id DESC"])
    assert lake.sql("FROM t").rows == [(3, "x"), (1, "x"), (2, "y")]


@pytest.mark.slow
def test_upserts_that_create_at_the_same_time_keep_every_key_once(lake: Lake) -> None:
    errors: list[SennitError] = []

    def merge(writer: int) -> None:
        try:
            lake.upsert("t", pa.table({"id": [1, writer + 10], "v": [writer, writer]}), key=["id"])
        except SennitError as error:
            errors.append(error)

    threads = [threading.Thread(target=merge, args=(writer,)) for writer in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert lake.sql("SELECT id FROM t ORDER BY id").rows == [(1,), (10,), (11,), (12,), (13,)]


@pytest.mark.slow
def test_rows_are_merged_into_an_encrypted_dataset_and_nothing_is_in_the_clear(
    secret: Lake,
) -> None:
    text = f"id,secret\n7,{CANARY}-seven\n90000,{CANARY}-new\n"
    with watched(secret.folder) as seen:
        secret.ingest(upload_file(secret, "n.csv", text, mode="upsert", options=KEY).id)
        rows = pa.table({"id": [8, 90001], "secret": [f"{CANARY}-eight", f"{CANARY}-newer"]})
        secret.upsert("t", rows, key=["id"])
    assert seen == clear_files(secret.folder) == []
    found = secret.sql("SELECT id, secret FROM t WHERE id IN (7, 8) OR id >= 90000").rows
    assert [value.removeprefix(CANARY) for _, value in found] == [
        *("-seven", "-eight", "-new", "-newer")
    ]
    assert secret.catalog.get("t").rows == ROWS + 2
    assert secret.verify().findings == ()
    left = [path for path in secret.vault.cache.folder.rglob("*") if path.name.startswith("run-")]
    assert left == []


def test_an_encrypted_dataset_is_created_by_an_upsert(locked: Lake) -> None:
    rows = pa.table({"id": [1, 2], "secret": [CANARY, "b"]})
    with watched(locked.folder) as seen:
        assert locked.upsert("t", rows, key=["id"], encrypt=True).encrypted
        locked.upsert("t", rows, key=["id"])
    assert seen == clear_files(locked.folder) == []
    assert locked.sql("FROM t").rows == [(1, CANARY), (2, "b")]


def test_the_error_of_a_key_that_is_there_twice_has_no_value(secret: Lake) -> None:
    rows = pa.table({"id": [1, 2], "secret": [CANARY, CANARY]})
    for table, options in (("t", {}), ("new", {"encrypt": True})):
        with pytest.raises(BadInput, match="rows 1 and 2 have the same key") as caught:
            secret.upsert(table, rows, key=["secret"], **options)
        assert CANARY not in str(caught.value)


def test_without_the_key_nothing_is_merged(tmp_path: Path, pool: ExecutorPool) -> None:
    with opened(tmp_path / "data", pool) as lake:
        put(lake, "t.csv", csv_text(), options={"encrypt": True})
    with (
        opened(tmp_path / "data", pool, passphrase=None) as lake,
        pytest.raises(Denied, match="which is encrypted"),
    ):
        lake.upsert("t", pa.table({"id": [1], "secret": ["x"]}), key=["id"])


@pytest.mark.slow
def test_rows_appended_to_an_encrypted_dataset_meanwhile_are_replaced(secret: Lake) -> None:
    commit = secret._writer.commit
    calls: list[int] = []

    def late(answer: dict[str, Any], origin: Any) -> Any:
        calls.append(1)
        if len(calls) == 1:
            secret.append("t", pa.table({"id": [90000], "secret": [f"{CANARY}-theirs"]}))
        return commit(answer, origin)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(secret._writer, "commit", late)
        rows = pa.table({"id": [90000, 90001], "secret": [f"{CANARY}-ours", "x"]})
        secret.upsert("t", rows, key=["id"])
    assert secret.sql("SELECT secret FROM t WHERE id >= 90000").rows == [
        (f"{CANARY}-ours",),
        ("x",),
    ]
    assert clear_files(secret.folder) == []


@pytest.mark.crash
@pytest.mark.parametrize("point", ["ingest-encoded", "ingest-manifest", "ingest-committed"])
def test_an_upsert_that_creates_and_is_killed_is_done_once(
    tmp_path: Path, pool: ExecutorPool, point: str
) -> None:
    data = tmp_path / "data"
    with opened_plain(data, pool) as lake, lake.tree:
        text = "id,v\n1,a\n2,b\n"
        waiting = upload_file(lake, "new.csv", text, mode="upsert", options=KEY).id
    die(data, point, "ingest", waiting)
    with opened_plain(data, pool) as lake, lake.tree:
        if point == "ingest-committed":
            lake.sql("UPDATE t SET v = 'newer' WHERE id = 2")
        lake.ingest(waiting)
        merged = "newer" if point == "ingest-committed" else "b"
        assert lake.sql("FROM t ORDER BY id").rows == [(1, "a"), (2, merged)]
        check_nothing_is_left_over(lake)


@pytest.mark.crash
@pytest.mark.parametrize("point", ["write-encoded", "write-manifest", "write-committed"])
def test_an_upsert_into_an_encrypted_dataset_that_is_killed_leaves_nothing_in_the_clear(
    tmp_path: Path, pool: ExecutorPool, point: str
) -> None:
    data, key = tmp_path / "data", tmp_path / "key"
    key.write_bytes(os.urandom(32))
    key.chmod(0o600)
    with opened(data, pool, passphrase=None, key_file=key) as lake:
        put(lake, "t.csv", csv_text(), options={"encrypt": True})
        text = f"id,secret\n7,{CANARY}-seven\n90000,{CANARY}-new\n"
        waiting = upload_file(lake, "n.csv", text, mode="upsert", options=KEY).id
    child = CHILD.replace('memory_bytes="512MiB"', f'memory_bytes="512MiB", key_file="{key}"')
    die(data, point, "ingest", waiting, child)
    assert clear_files(data) == []
    with opened(data, pool, passphrase=None, key_file=key) as lake:
        lake.ingest(waiting)
        assert lake.catalog.get("t").rows == ROWS + 1
        assert lake.sql("SELECT secret FROM t WHERE id = 7").value == f"{CANARY}-seven"
        assert clear_files(data) == []
