"""Stores of other versions: read where that is possible, refused with what to do where it is not."""

from __future__ import annotations

import hashlib
import lzma
import subprocess
import sys
from base64 import b64decode
from pathlib import Path

import lmdb
import pytest

from elkyn import Archiver, ElkynStore, restore
from elkyn.errors import OtherFormat
from elkyn.storage.disk import verify_folder
from elkyn.storage.format import CURRENT, OLDEST
from sennit_core.errors import Corrupt

FIRST = Path(__file__).with_name("format-1.mdb.xz.txt")
"""Written by the first version: 40 users, a large map, a long key."""


def mark(folder: Path, to: bytes | None = None) -> bytes:
    """Return what a store's file says that its version is, after making it say something else."""
    with lmdb.open(str(folder), max_dbs=1) as env:
        meta = env.open_db(b"meta")
        with env.begin(write=True) as txn:
            if to is not None:
                txn.put(b"format", to, db=meta)
            found = txn.get(b"format", db=meta)
    assert found is not None
    return found


def contents(folder: Path) -> str:
    return hashlib.sha256((folder / "data.mdb").read_bytes()).hexdigest()


def elkyn(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "elkyn.cli", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


@pytest.fixture
def first(tmp_path: Path) -> Path:
    """A store of the first version."""
    folder = tmp_path / "first"
    folder.mkdir()
    (folder / "data.mdb").write_bytes(lzma.decompress(b64decode(FIRST.read_text())))
    assert mark(folder) == b"elkyn 1"
    return folder


@pytest.fixture
def store(tmp_path: Path) -> Path:
    with ElkynStore(tmp_path / "store") as made:
        made.set("/a", {"b": 1})
    return tmp_path / "store"


def test_a_store_of_the_first_version_is_read_and_becomes_one_of_today_when_written(
    first: Path,
) -> None:
    with ElkynStore(first) as store:
        assert store.get("/users/u1") == {"n": 1, "name": "Änn", "tags": ["a", "b"]}
        assert len(store.get("/users")) == 40
        assert store.get(f"/{'k' * 700}") == {"b": True, "deep": 1.5}
        assert store.admin.verify() == []
    assert (
        mark(first) == b"elkyn 1"
    )  # reading does not raise the format: older versions still open it
    with ElkynStore(first) as store:
        store.set("/users/u2/n", 5)
        for number in range(5):
            store.set(f"/new/{number}", {"x": number, "y": 0})
    assert mark(first) == b"elkyn %d" % CURRENT
    with ElkynStore(first) as store:
        assert store.get("/users/u2/n") == 5
        assert store.keys("/large") == [f"k{number:03}" for number in range(100)]
        assert store.admin.verify() == []


def test_a_write_that_fails_leaves_the_version(first: Path) -> None:
    def fail(_value: object) -> object:
        raise RuntimeError

    with ElkynStore(first) as store, pytest.raises(RuntimeError):
        store.transaction("/users", fail)
    assert mark(first) == b"elkyn 1"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("version", "says"),
    [(CURRENT + 1, "a newer version"), (OLDEST - 1, "an older version")],
)
def test_a_store_of_a_version_that_is_not_read_is_left_as_it_is(
    store: Path, version: int, says: str
) -> None:
    mark(store, b"elkyn %d" % version)
    before = contents(store)
    with pytest.raises(OtherFormat, match=says) as error:
        ElkynStore(store)
    text = str(error.value)
    assert f"format {version}; this one reads {OLDEST} to {CURRENT}" in text
    assert "elkyn export" in text
    assert str(store) in text
    shown = elkyn("get", "--data", str(store.parent), "--namespace", "store", "/")
    assert (shown.returncode, "elkyn export" in shown.stderr) == (1, True)
    (problem,) = verify_folder(store)
    assert says in problem
    assert contents(store) == before
    mark(store, b"elkyn %d" % CURRENT)
    with ElkynStore(store) as again:
        assert again.get("/a/b") == 1


@pytest.mark.slow
def test_a_server_reports_the_format_of_such_a_store(store: Path) -> None:
    mark(store, b"elkyn 99")
    done = elkyn(
        *("serve", "--data", str(store.parent), "--namespace", "store", "--port", "0"),
    )
    assert (done.returncode, "format 99" in done.stderr) == (1, True)
    assert "Traceback" not in done.stderr


def test_a_store_without_a_version_is_damaged(store: Path) -> None:
    mark(store, b"elkyn one")
    with pytest.raises(Corrupt, match="elkyn one"):
        ElkynStore(store)


def test_a_snapshot_of_a_newer_version_replaces_nothing(store: Path, tmp_path: Path) -> None:
    with ElkynStore(tmp_path / "other") as other:
        other.set("/a", "other")
        other.admin.backup(tmp_path / "copy")
    mark(tmp_path / "copy", b"elkyn 99")
    with ElkynStore(store) as kept:
        with pytest.raises(OtherFormat):
            kept.admin.install(tmp_path / "copy")
        assert kept.get("/a") == {"b": 1}
        kept.set("/a/b", 2)
    with ElkynStore(store) as kept:
        assert kept.get("/a/b") == 2


def test_an_archive_says_its_version_too(store: Path, tmp_path: Path) -> None:
    with ElkynStore(store) as kept:
        kept.admin.backup(tmp_path / "copy")
        with Archiver(kept, tmp_path / "archive"):
            kept.set("/a/b", 2)
    file = max((tmp_path / "archive").iterdir())
    data = file.read_bytes()
    assert data.startswith(b"elkyn log 2\n")
    file.write_bytes(data.replace(b"elkyn log 2\n", b"elkyn log 1\n", 1))
    restore(tmp_path / "copy", tmp_path / "old", archive=tmp_path / "archive")
    with ElkynStore(tmp_path / "old") as old:
        assert old.get("/a/b") == 2
    file.write_bytes(data.replace(b"elkyn log 2\n", b"elkyn log 3\n", 1))
    with pytest.raises(OtherFormat, match="format 3"):
        restore(tmp_path / "copy", tmp_path / "new", archive=tmp_path / "archive")
