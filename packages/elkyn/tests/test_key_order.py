"""The order of children's names, in memory, in rows, in windows, and in stores of format 2."""

from __future__ import annotations

import lzma
import shutil
import signal
import subprocess
import sys
from base64 import b64decode
from functools import cmp_to_key
from pathlib import Path
from typing import Any

import lmdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from elkyn import ElkynStore
from elkyn.storage import index_rows, rows
from elkyn.storage.disk import verify_folder
from elkyn.storage.format import CURRENT
from elkyn.storage.log_rows import unpack_entry
from elkyn.tree.paths import key_problem, order_key
from elkyn.tree.values import ordered, present

SECOND = Path(__file__).with_name("format-2.mdb.xz.txt")
"""Written by the program of format 2: padded integers and astral characters in rows of all kinds."""

MONTHS = [f"{month:02}" for month in range(1, 13)]
NUMBERS = st.from_regex(r"-?0{0,12}[0-9]{1,11}", fullmatch=True)
NAMES = st.text(st.sampled_from("a-0\u00e9\ud7ff\ue000\uffff\U00010000\U0010ffff"), min_size=1)
LONG = st.builds(
    lambda head, tail: (head * 800).encode()[:700].decode(errors="ignore") + tail,
    st.sampled_from(["k", "\U0001f600", "\ue000"]),
    NAMES,
)
KEYS = (NUMBERS | NAMES | LONG).filter(lambda key: key_problem(key) is None)
NODE = rows.node_of(7)


def as_the_sdk(left: str, right: str) -> int:
    """Compare as `nameCompare` of the SDKs does, with a rule for names that it treats as equal."""

    def integer(name: str) -> int | None:
        digits = name.removeprefix("-").lstrip("0")
        text = name.isascii() and name.removeprefix("-").isdecimal() and len(digits) <= 10
        return int(name) if text and -(2**31) <= int(name) < 2**31 else None

    a, b = integer(left), integer(right)
    if a is None or b is None:
        if a is None and b is None:
            units = left.encode("utf-16-be"), right.encode("utf-16-be")
            return (units[0] > units[1]) - (units[0] < units[1])
        return -1 if b is None else 1
    return a - b or len(left) - len(right) or (left < right) - (left > right)


@pytest.mark.slow
@given(st.lists(KEYS, unique=True, max_size=12))
def test_keys_sort_as_the_sdk_sorts_them(keys: list[str]) -> None:
    assert sorted(keys, key=order_key) == sorted(keys, key=cmp_to_key(as_the_sdk))


@pytest.mark.slow
@given(st.lists(KEYS, unique=True, max_size=12))
def test_rows_hold_keys_in_their_order(keys: list[str]) -> None:
    short = [key for key in sorted(keys, key=order_key) if not rows.is_long(key)]
    encoded = [rows.child_row(NODE, key) for key in short]
    assert encoded == sorted(encoded)
    assert [rows.key_of(row_key, len(NODE)) for row_key in encoded] == short
    assert all(len(rows.child_row(NODE, key)) <= 511 for key in keys)


@given(KEYS, st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=5))
def test_the_key_is_recovered_from_an_index_row(key: str, value: Any) -> None:
    row_key, data = index_rows.row(index_rows.head(1, ("a",)), value, key)
    assert index_rows.parse(row_key, data).key == key
    assert len(row_key) <= 511


@pytest.mark.slow
@settings(max_examples=40, deadline=None)
@given(st.lists(KEYS, unique=True, min_size=1, max_size=25), KEYS, st.booleans())
def test_windows_by_key_on_rows_of_their_own(keys: list[str], bound: str, last: bool) -> None:
    tree = {key: {"pad": "x" * 200} for key in keys}
    inside = [key for key in sorted(keys, key=order_key) if order_key(key) >= order_key(bound)]
    with ElkynStore(mode="memory") as store:
        store.set("/n", tree)
        assert store.keys("/n") == sorted(keys, key=order_key)
        limit: Any = {"limit_to_last": 3} if last else {"limit_to_first": 3}
        found = store.query("/n", start_at=bound, **limit)
        assert list(found) == (inside[-3:] if last else inside[:3])
        assert store.admin.verify() == []


@pytest.mark.parametrize("pad", ["", "x" * 300])
def test_windows_over_months(pad: str) -> None:
    with ElkynStore(mode="memory") as store:
        store.set("/m", {month: {"n": pad} for month in MONTHS})
        assert list(store.query("/m", limit_to_last=1)) == ["12"]
        assert list(store.query("/m", start_at="08", end_at="11")) == ["08", "09", "10", "11"]
        assert store.keys("/m") == MONTHS


@pytest.mark.parametrize("keys", [["00", "1"], ["01", "1"], ["0", "01"], ["-0", "0"], ["0", "-0"]])
def test_padded_integers_are_no_places_of_a_list(keys: list[str]) -> None:
    value = ordered(dict.fromkeys(keys, True))
    assert present(value) == dict.fromkeys(keys, True)


def mark(folder: Path) -> bytes:
    with lmdb.open(str(folder), max_dbs=1, readonly=True, lock=False) as env:
        meta = env.open_db(b"meta", create=False)
        with env.begin() as txn:
            return txn.get(b"format", db=meta) or b""


@pytest.fixture
def second(tmp_path: Path) -> Path:
    """A store of format 2."""
    folder = tmp_path / "second"
    folder.mkdir()
    (folder / "data.mdb").write_bytes(lzma.decompress(b64decode(SECOND.read_text())))
    assert mark(folder) == b"elkyn 2"
    return folder


def check_moved(store: ElkynStore) -> None:
    months = ["1", *MONTHS, "100", "name"]
    assert store.keys("/months") == sorted(months, key=order_key)
    assert store.query("/months", start_at="08", end_at="11") == {
        "08": 8,
        "09": 9,
        "10": 10,
        "11": 11,
    }
    assert list(store.get("/records/r5").items()) == [("02", 5), ("10", 5), ("b", 1)]
    assert store.keys("/text") == ["a", "\U00010000", "\U0001f600", "\ue000"]
    wide = store.keys("/wide")
    assert wide == sorted(wide, key=order_key)
    assert len(wide) == 9
    assert store.get(f"/wide/{'k' * 500}\U0001f600") == {"v": 1}
    assert store.get("/wide/" + "\U0001f600" * 110) == {"v": 2}
    assert store.keys("/wide/07/deep") == ["09", "10"]
    assert store.get("/wide/07/deep/09/z") == "y" * 1000
    assert store.admin.wait_for_indexes(60)
    by_n = store.query("/hours/d", order_by="n", limit_to_first=2)
    assert list(by_n) == ["5", "23"]
    assert store.get("/hours/d/08/n") == 16
    assert store.admin.verify() == []


@pytest.mark.slow
def test_a_store_of_format_2_is_rewritten_when_it_is_opened(second: Path) -> None:
    assert verify_folder(second) == []
    with ElkynStore(second) as store:
        check_moved(store)
        position = store.position
    assert mark(second) == b"elkyn %d" % CURRENT
    assert verify_folder(second) == []
    with ElkynStore(second) as store:
        check_moved(store)
        assert store.position == position
        store.set("/months/06", None)
        assert store.get("/months/06") is None


OPENER = """
import os, signal, sys
from elkyn import ElkynStore, _failpoints

def stop(reached):
    if reached == sys.argv[2]:
        os.kill(os.getpid(), signal.SIGKILL)

_failpoints.hook = stop
ElkynStore(sys.argv[1]).admin.wait_for_indexes(60)
"""


@pytest.mark.sample(1)
@pytest.mark.crash
@pytest.mark.parametrize("point", ["applied", "committed", "indexed"])
def test_a_process_killed_while_it_rewrites_a_store_loses_nothing(second: Path, point: str) -> None:
    command = [sys.executable, "-c", OPENER, str(second), point]
    killed = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert mark(second) == (b"elkyn 2" if point == "applied" else b"elkyn %d" % CURRENT)
    assert verify_folder(second) == []
    with ElkynStore(second) as store:
        check_moved(store)


def test_a_snapshot_of_format_2_is_rewritten_when_it_is_installed(
    second: Path, tmp_path: Path
) -> None:
    with ElkynStore(tmp_path / "store") as store:
        store.set("/old", 1)
        store.admin.install(second)
        check_moved(store)
        assert store.get("/old") is None


def test_entries_of_a_leader_of_format_2_are_put_in_order(second: Path, tmp_path: Path) -> None:
    shutil.copytree(second, tmp_path / "copy")
    with ElkynStore(tmp_path / "copy") as leader, ElkynStore(tmp_path / "new") as follower:
        follower.admin.replicate([unpack_entry(*row) for row in leader.oplog.rows(0)])
        check_moved(follower)
        assert [follower.oplog.row(at) for at in range(1, 5)] == [
            leader.oplog.row(at) for at in range(1, 5)
        ]
