"""Encrypted datasets: nothing of them is on the disk in the clear, and no one reads them without a key."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from elkyn import ElkynStore
from emsqrt.executor import ExecutorPool
from lake import Lake
from lake.catalog.snapshots import Manifest
from lake.encryption.keys import KeyRing, Secret, read_secret
from lake.encryption.sealed import Seal, seal_file, unseal_file
from lake.ingest.shards import Limits, ShardWriter
from sennit_core.errors import (
    BadInput,
    Conflict,
    Corrupt,
    Denied,
    NotFound,
    SennitError,
    StorageFull,
    Unsupported,
    UsageError,
)
from sennit_core.units import MIB

from .conftest import put, upload_file
from .served_lake import Client, make_app

CANARY = "canary-7f3a"
PASSPHRASE = "a passphrase of many words"
ROWS = 3000


@contextmanager
def opened(folder: Path, pool: ExecutorPool, **settings: Any) -> Iterator[Lake]:
    settings = {"passphrase": PASSPHRASE, **settings}
    with (
        ElkynStore(folder / "elkyn" / "sys", namespace="sys") as tree,
        Lake(folder, tree=tree, pool=pool, **settings) as lake,
    ):
        yield lake


def csv_text() -> str:
    return "id,secret\n" + "".join(f"{i},{CANARY}-{i:05d}\n" for i in range(ROWS))


def clear_files(folder: Path) -> list[Path]:
    """The files that have the canary, or are Parquet, whose pages could have it compressed."""
    contents = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    return [
        path for path, data in contents.items() if CANARY.encode() in data or b"PAR1" in data[:4]
    ]


@pytest.fixture
def secret(tmp_path: Path, pool: ExecutorPool) -> Iterator[Lake]:
    """A lake with an encrypted dataset `t` of 3,000 rows."""
    with opened(tmp_path / "data", pool) as lake:
        put(lake, "t.csv", csv_text(), options={"encrypt": True})
        yield lake


def test_the_search_finds_a_dataset_that_is_not_encrypted(flights: Lake) -> None:
    put(flights, "t.csv", csv_text())
    assert len(clear_files(flights.folder / "lake" / "objects")) == 3  # two shards, a manifest


@pytest.mark.slow  # a whole life of a dataset, with restarts
def test_no_byte_of_a_dataset_is_on_the_disk_in_the_clear(
    tmp_path: Path, pool: ExecutorPool
) -> None:
    data = tmp_path / "data"
    with opened(data, pool) as lake:
        upload = upload_file(lake, "t.csv", csv_text(), options={"encrypt": True})
        assert clear_files(data) == []
        info = lake.ingest(upload.id)
        assert (info.encrypted, info.rows) == (True, ROWS)
        assert clear_files(data) == []
        query = f"SELECT count(*) FROM t WHERE secret LIKE '{CANARY}%'"
        assert lake.sql(query).value == ROWS
        lake.sql(f"INSERT INTO t VALUES (9000, '{CANARY}-new')")
        lake.sql(f"UPDATE t SET secret = '{CANARY}-updated' WHERE id < 10")
        lake.sql(f"DELETE FROM t WHERE secret = '{CANARY}-00020'")
        lake.sql(f"MERGE INTO t USING (SELECT 30 AS id) s ON t.id = s.id "
                 f"WHEN MATCHED THEN UPDATE SET secret = '{CANARY}-merged'")  # fmt: skip
        lake.append("t", pa.table({"id": [9001], "secret": [f"{CANARY}-appended"]}))
        lake.sql("CREATE OR REPLACE TABLE t AS SELECT * FROM t WHERE id <> 40")
        for number in range(4):
            lake.sql(f"INSERT INTO t VALUES ({9100 + number}, '{CANARY}-small')")
        lake.compact("t")
        lake.sql("ALTER TABLE t ADD COLUMN more BIGINT")
        lake.sql("ALTER TABLE t DROP COLUMN more")
        assert lake.sql(query).value == ROWS + 4
        assert lake.sql("SELECT count(*) FROM t AT (VERSION => 1)").value == ROWS
        lake.rollback("t", 2)
        assert lake.verify().findings == ()
        assert clear_files(data) == []
    assert not lake.vault.cache.folder.exists()
    with opened(data, pool) as lake:
        assert lake.sql(query).value == ROWS + 1
        assert clear_files(data) == []
        lake.delete("t")
        assert lake.vault.keys.datasets() == []


def test_shards_are_on_the_disk_only_when_they_are_encrypted(tmp_path: Path) -> None:
    disk, memory = tmp_path / "disk", tmp_path / "memory"
    disk.mkdir()
    memory.mkdir()
    seal = Seal(os.urandom(32), "one", memory)
    writer = ShardWriter(disk, Limits(group_rows=1), "x", seal=seal)
    for value in (CANARY, f"{CANARY}-2"):
        writer.write(pa.record_batch({"a": [value]}), start=None, stop=None)
        assert list(disk.glob("*")) == list(disk.glob("*.sealed"))
        assert len(list(memory.iterdir())) == 1
        writer.cut()
        assert list(memory.iterdir()) == []

    assert len(list(disk.iterdir())) == 2
    assert clear_files(disk) == []


def test_both_engines_read_encrypted_datasets(secret: Lake) -> None:
    query = "SELECT id, secret FROM t ORDER BY secret DESC, id LIMIT 5"
    assert secret.sql(query, engine="emsqrt").rows == secret.sql(query, engine="duckdb").rows


def test_manifests_and_rows_have_no_values(secret: Lake) -> None:
    secret.sql(f"INSERT INTO t VALUES (9000, '{CANARY}')")
    manifest: Manifest = secret.catalog.manifest("t")
    document = json.dumps(manifest.snapshot.to_json()) + json.dumps(manifest.ingest)
    row = json.dumps(secret.tree.get("/"))

    for text in (document, row):
        assert CANARY not in text
        assert '"min"' not in text
        assert '"max"' not in text
    assert manifest.snapshot.query == "INSERT"
    assert {key for shard in manifest.snapshot.shards for key in shard.stats["id"]} == {"nulls"}


def test_a_locked_lake_lists_encrypted_datasets_and_refuses_to_read_them(
    tmp_path: Path, pool: ExecutorPool
) -> None:
    data = tmp_path / "data"
    with opened(data, pool) as lake:
        put(lake, "t.csv", csv_text(), options={"encrypt": True})
        put(lake, "open.csv", "a\n1\n")
    with opened(data, pool, passphrase=None) as lake:
        assert [(info.name, info.encrypted) for info in lake.catalog.list()] == [
            ("open", False),
            ("t", True),
        ]
        for sql in ("SELECT * FROM t", "INSERT INTO t VALUES (1, 'x')", "DELETE FROM t WHERE id=1"):
            with pytest.raises(Denied, match="read dataset 't', which is encrypted") as caught:
                lake.sql(sql)
            assert "security.key_file" in (caught.value.hint or "")
        assert lake.sql("SELECT a AS t FROM open").value == 1  # a word that is its name is none
        with pytest.raises(Denied, match="encrypt a dataset"):
            upload_file(lake, "u.csv", "a\n1\n", options={"encrypt": True})
        with pytest.raises(Denied):
            lake.append("t", pa.table({"id": [1], "secret": ["x"]}))
        assert lake.verify().findings == ()  # the ciphertext is verified without a key
        assert lake.storage.status()["encryption"] == "locked"
        lake.delete("t")


def test_a_locked_dataset_without_rows_is_refused_too(tmp_path: Path, pool: ExecutorPool) -> None:
    data = tmp_path / "data"
    with opened(data, pool) as lake:
        lake.append("t", pa.table({"a": ["x"]}), encrypt=True)
        lake.sql("TRUNCATE t")
    with opened(data, pool, passphrase=None) as lake:
        for sql in ("INSERT INTO t VALUES ('y')", "SELECT * FROM t"):
            with pytest.raises(Denied, match="which is encrypted"):
                lake.sql(sql)
        lake.sql("CREATE TABLE other AS SELECT 1 AS t")
        lake.sql("DROP TABLE t")


def test_a_wrong_passphrase_is_refused_at_the_start(tmp_path: Path, pool: ExecutorPool) -> None:
    data = tmp_path / "data"
    with opened(data, pool) as lake:
        put(lake, "t.csv", "a\n1\n", options={"encrypt": True})
    key_file = tmp_path / "key"
    key_file.write_bytes(os.urandom(32))
    key_file.chmod(0o600)
    before = (data / "lake" / "keys.json").read_bytes()

    wrong: list[dict[str, Any]] = [
        {"passphrase": "another passphrase"},
        {"passphrase": None, "key_file": key_file},
    ]
    for each in wrong:
        with pytest.raises(Denied, match="unlock the lake"), opened(data, pool, **each):
            pass

    assert (data / "lake" / "keys.json").read_bytes() == before
    assert PASSPHRASE.encode() not in before


def test_rows_do_not_leave_for_a_dataset_in_the_clear(secret: Lake) -> None:
    put(secret, "open.csv", "id,secret\n1,x\n")
    for sql in (
        "CREATE TABLE copy AS SELECT * FROM t",
        "CREATE TABLE copy AS SELECT count(*) AS n FROM t",
        "INSERT INTO open SELECT * FROM t",
        "UPDATE open SET secret = (SELECT max(secret) FROM t)",
        "DELETE FROM open WHERE id IN (SELECT id FROM t)",
        "CREATE OR REPLACE TABLE open AS SELECT * FROM t",
        "MERGE INTO open USING t ON open.id = t.id WHEN MATCHED THEN UPDATE SET secret = t.secret",
    ):
        with pytest.raises(Unsupported, match="'t', which is encrypted"):
            secret.sql(sql)
    names = [path.name for path in clear_files(secret.folder)]
    assert names == [secret.catalog.manifest("open").snapshot.shards[0].object]
    secret.sql("INSERT INTO t SELECT * FROM open")
    assert secret.sql("SELECT count(*) FROM t").value == ROWS + 1


def test_encrypted_files_are_never_published(secret: Lake) -> None:
    client = Client(make_app(secret))
    for path in ("/files/t/head/0.parquet", "/files/t/latest/0.parquet"):
        answer = client.get(path)
        assert answer.status_code == 403
        assert "encrypted" in answer.text
    with pytest.raises(Unsupported, match="which is encrypted"):
        secret.resolve("t")


def test_keys_of_datasets_that_are_gone_are_removed_at_the_start(
    tmp_path: Path, pool: ExecutorPool
) -> None:
    data = tmp_path / "data"
    with opened(data, pool) as lake:
        for name in ("gone", "kept"):
            lake.append(name, pa.table({"a": [name]}), encrypt=True)
        with pytest.raises(BadInput):
            put(lake, "bad.json", "{", options={"encrypt": True})
        kept = lake.catalog.get("kept").id
        assert len(lake.vault.keys.datasets()) == 3
        lake.delete("gone")
        assert len(lake.vault.keys.datasets()) == 2
    with opened(data, pool) as lake:
        assert set(lake.vault.keys.datasets()) == {kept}
        assert lake.sql("SELECT a FROM kept").value == "kept"


def test_the_error_of_an_ingest_quotes_no_value(secret: Lake) -> None:
    with pytest.raises(BadInput, match="line 2") as caught:
        put(secret, "t.csv", f"id,secret\n{CANARY},x\n", mode="append")
    assert CANARY not in json.dumps(caught.value.to_json())


def test_what_cannot_be_encrypted_is_refused(secret: Lake) -> None:
    put(secret, "open.csv", "a\n1\n")
    with pytest.raises(Conflict, match="is not encrypted"):
        put(secret, "open.csv", "a\n2\n", mode="append", options={"encrypt": True})
    with pytest.raises(UsageError, match="source of an encrypted"):
        put(secret, "u.csv", "a\n2\n", options={"encrypt": True, "keepSource": True})
    assert len(secret.vault.keys.datasets()) == 1


@pytest.mark.parametrize("change", ["bit", "swap", "truncate", "header"])
def test_changed_ciphertext_is_damage(secret: Lake, change: str) -> None:
    name = secret.catalog.manifest("t").snapshot.shards[0].object
    path = secret.objects.place(name)
    content = bytearray(path.read_bytes())
    if change == "bit":
        content[100] ^= 1
    elif change == "swap":
        content[60:80], content[100:120] = content[100:120], content[60:80]
    elif change == "truncate":
        del content[-1]
    else:
        content[3] ^= 1
    path.chmod(0o600)
    path.write_bytes(content)

    with pytest.raises(Corrupt, match=f"shard 0 .object {name}"):
        secret.sql("SELECT * FROM t")
    assert len(secret.verify().findings) == 1
    assert list(secret.vault.cache.folder.glob("run-*")) == []


@given(
    size=st.sampled_from((0, 1, MIB - 1, MIB, MIB + 1, 3 * MIB)),
    data=st.data(),
)
@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_any_change_of_a_sealed_file_is_found(tmp_path: Path, size: int, data: Any) -> None:
    plain, sealed, target = (tmp_path / name for name in ("plain", "sealed", "target"))
    for path in (sealed, target):
        path.unlink(missing_ok=True)
    plain.write_bytes(os.urandom(size))
    key = os.urandom(32)
    seal_file(plain, sealed, key, "one")
    assert unseal_file(sealed, target, key, "one") == size
    assert target.read_bytes() == plain.read_bytes()
    target.unlink()

    content = bytearray(sealed.read_bytes())
    change = data.draw(st.sampled_from(("flip", "cut", "extend", "swap", "dataset", "key")))
    if change == "flip":
        content[data.draw(st.integers(0, len(content) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    elif change == "cut":
        del content[data.draw(st.integers(0, len(content) - 1)) :]
    elif change == "extend":
        content += b"x"
    elif change == "swap" and size >= 2 * MIB:
        one, two = slice(48, 48 + MIB + 16), slice(48 + MIB + 16, 48 + 2 * MIB + 32)
        content[one], content[two] = content[two], content[one]
    sealed.write_bytes(content)
    dataset = "two" if change in ("dataset", "swap") and size else "one"
    key = os.urandom(32) if change == "key" else key

    if size or change in ("flip", "cut", "extend"):
        if size == 0 and change == "flip" and content[:8] == b"SNTSEAL1" and not any(content[40:]):
            return  # the salt of an empty file protects nothing
        with pytest.raises(Corrupt):
            unseal_file(sealed, target, key, dataset)


def test_chunks_of_two_objects_of_one_dataset_cannot_be_exchanged(tmp_path: Path) -> None:
    key = os.urandom(32)
    for name in ("a", "b"):
        (tmp_path / name).write_bytes(os.urandom(MIB))
        seal_file(tmp_path / name, tmp_path / f"{name}.sealed", key, "one")
    first, second = ((tmp_path / f"{name}.sealed").read_bytes() for name in ("a", "b"))
    (tmp_path / "mixed").write_bytes(first[:48] + second[48:])

    with pytest.raises(Corrupt, match="encrypted chunk 0"):
        unseal_file(tmp_path / "mixed", tmp_path / "out", key, "one")


def test_memory_for_decrypted_data_is_bounded_and_reused(
    tmp_path: Path, pool: ExecutorPool
) -> None:
    with opened(tmp_path / "data", pool, plain_bytes=MIB) as lake:
        for name in ("a", "b"):
            rows = pa.table({"x": [os.urandom(300).hex() for _ in range(2000)]})
            lake.append(name, rows, encrypt=True)
        cache = lake.vault.cache.folder
        assert lake.sql("SELECT count(*) FROM a").value == 2000
        assert len(list(cache.iterdir())) == 1
        assert lake.sql("SELECT count(*) FROM b").value == 2000  # takes the place of the other
        assert len(list(cache.iterdir())) == 1
        with pytest.raises(StorageFull, match="decrypted data") as caught:
            lake.sql("SELECT count(*) FROM a, b")
        assert "security.plain_bytes" in (caught.value.hint or "")
        assert lake.sql("SELECT count(*) FROM a").value == 2000
        assert cache.stat().st_mode & 0o777 == 0o700


def test_a_dataset_beyond_the_memory_is_refused_before_it_is_decrypted(
    tmp_path: Path, pool: ExecutorPool
) -> None:
    with opened(tmp_path / "data", pool, plain_bytes=MIB // 2) as lake:
        for _ in range(2):
            rows = pa.table({"x": [os.urandom(150).hex() for _ in range(2000)]})
            lake.append("t", rows, encrypt=True)
        with pytest.raises(StorageFull, match=r"needs .* for 2 decrypted shards") as caught:
            lake.sql("SELECT count(*) FROM t")
        assert "512" in str(caught.value)
        assert list(lake.vault.cache.folder.iterdir()) == []


def test_what_a_crash_leaves_in_memory_is_removed_at_the_start(secret: Lake) -> None:
    secret.sql("SELECT count(*) FROM t")
    cache = secret.vault.cache.folder
    assert list(cache.iterdir()) != []
    with Lake(secret.folder, tree=secret.tree, pool=secret.pool):
        assert not cache.exists()


def test_a_folder_in_memory_that_is_not_ours_is_refused(secret: Lake) -> None:
    secret.vault.cache.close()
    cache = secret.vault.cache.folder
    other = secret.folder / "elsewhere"
    other.mkdir()
    cache.symlink_to(other)
    try:
        with pytest.raises(Denied, match="private folder"):
            secret.sql("SELECT count(*) FROM t")
        assert list(other.iterdir()) == []
    finally:
        cache.unlink()


def test_keys_are_in_no_process_argument_environment_or_core(secret: Lake) -> None:
    info = secret.catalog.get("t")
    key = secret.vault.keys.key(info.id, "t")
    secret.sql("INSERT INTO t VALUES (1, 'x')")
    for pid in secret.pool.stats().pids:
        process = Path(f"/proc/{pid}")
        for name in ("cmdline", "environ"):
            found = (process / name).read_bytes()
            assert key not in found
            assert key.hex().encode() not in found
    limits = Path("/proc/self/limits").read_text()
    core = next(line for line in limits.splitlines() if line.startswith("Max core"))
    assert core.split()[4] == "0"
    assert "key" not in repr(secret.vault.seal(info.id, "t", secret.folder))


# Rotation


def test_a_rotation_changes_the_secret_and_no_object(tmp_path: Path, pool: ExecutorPool) -> None:
    data = tmp_path / "data"
    with opened(data, pool) as lake:
        put(lake, "t.csv", csv_text(), options={"encrypt": True})
        objects = {name: lake.objects.place(name).stat() for name in lake.objects}
        new = read_secret(passphrase="quite another passphrase")
        assert new is not None
        assert lake.vault.keys.rotate(new) == 1
        assert {name: lake.objects.place(name).stat() for name in lake.objects} == objects
        assert lake.sql("SELECT count(*) FROM t").value == ROWS
    with pytest.raises(Denied), opened(data, pool):
        pass
    with opened(data, pool, passphrase="quite another passphrase") as lake:
        assert lake.sql("SELECT count(*) FROM t").value == ROWS


ROTATE = """
import sys
from pathlib import Path
from lake.encryption.keys import KeyRing, read_secret
ring = KeyRing(Path(sys.argv[1]), read_secret(passphrase=sys.argv[2]))
ring.rotate(read_secret(passphrase=sys.argv[3]))
"""


@pytest.mark.crash
@pytest.mark.parametrize("point", ["rotate-wrapped", "rotate-written"])
def test_a_rotation_that_is_killed_leaves_the_old_keys_or_the_new(
    tmp_path: Path, point: str
) -> None:
    path, new = tmp_path / "keys.json", "quite another passphrase"
    ring = KeyRing(path, read_secret(passphrase=PASSPHRASE))
    keys = {name: ring.create(name) for name in ("one", "two")}

    died = subprocess.run(
        [sys.executable, "-c", ROTATE, path, PASSPHRASE, new],
        env={"SENNIT_LAKE_CRASH_AT": point, "PATH": "/usr/bin:/bin"},
        check=False,
    )

    assert died.returncode == -signal.SIGKILL
    works, fails = (PASSPHRASE, new) if point == "rotate-wrapped" else (new, PASSPHRASE)
    ring = KeyRing(path, read_secret(passphrase=works))
    assert {name: ring.key(name, name) for name in keys} == keys
    with pytest.raises(Denied):
        KeyRing(path, read_secret(passphrase=fails))


def test_wrapped_keys_cannot_be_exchanged_or_changed(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    ring = KeyRing(path, Secret("file", b"k" * 32))
    ring.create("one")
    ring.create("two")
    document = json.loads(path.read_bytes())
    keys = document["keys"]
    keys["one"], keys["two"] = keys["two"], keys["one"]
    path.write_text(json.dumps(document))

    with pytest.raises(Corrupt, match="the data key of dataset 'one'"):
        KeyRing(path, Secret("file", b"k" * 32)).key("one", "one")
    path.write_text("{")
    with pytest.raises(Corrupt, match=r"keys\.json"):
        KeyRing(path, Secret("file", b"k" * 32))


def test_secrets_are_checked(tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_bytes(b"x" * 31)
    key.chmod(0o600)
    with pytest.raises(UsageError, match="31 bytes; it needs 32"):
        read_secret(key_file=key)
    key.write_bytes(b"x" * 32)
    key.chmod(0o640)
    with pytest.raises(Denied, match="other accounts can access it"):
        read_secret(key_file=key)
    with pytest.raises(NotFound):
        read_secret(key_file=tmp_path / "none")
    with pytest.raises(UsageError, match="shorter than 12"):
        read_secret(passphrase="short")
    with pytest.raises(UsageError, match="set one of"):
        read_secret(passphrase="long enough to be one", key_file=key)
    key.chmod(0o600)
    found = read_secret(passphrase_file=key)
    assert found == Secret("scrypt", b"x" * 32)
    assert "xxx" not in repr(found)
    assert read_secret() is None


def test_a_copy_of_the_folder_is_unreadable_without_the_passphrase(
    secret: Lake, tmp_path: Path
) -> None:
    stolen = tmp_path / "stolen"
    shutil.copytree(secret.folder / "lake", stolen)
    assert clear_files(stolen) == []
    with pytest.raises(SennitError):
        KeyRing(stolen / "keys.json", read_secret(passphrase="guessed passphrase"))
