"""Reports of `verify` about damaged stores: the position, and the disagreement."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ormsgpack
import pytest

from elkyn import ElkynStore, open_namespaces
from elkyn.cli import main
from elkyn.storage import index_rows, rows
from elkyn.storage.environment import Txn

RULES = {
    "rules": {
        "users": {".indexOn": ["age", "name/last"]},
        "rooms": {"$room": {".indexOn": ".value"}},
    }
}


@pytest.fixture
def store(tmp_path: Path) -> Iterator[ElkynStore]:
    """A store with indexes over small and large children, long keys and long texts."""
    with ElkynStore(tmp_path / "data" / "default") as store:
        store.set_rules(RULES)
        store.set(
            "/users", {f"u{n}": {"age": n % 7, "name": {"last": "x" * n}} for n in range(300)}
        )
        store.set("/users/large", {"age": 3, "pad": ["y" * 900] * 9})
        store.update("/rooms", {"a/k": 1, "a/" + "l" * 400: "text" * 90, "b/x": True, "b/y": None})
        store.set("/at", {".value": "z" * 5000, ".priority": 1})
        store.set("/map", {"a": 1, ".priority": "p"})
        store.admin.wait_for_indexes(20)
        yield store


@contextmanager
def raw(store: ElkynStore) -> Iterator[tuple[Txn, dict[str, Any]]]:
    env: Any = store._disk._durable
    txn = env.begin_write()
    yield txn, env.databases
    txn.commit()


def found(store: ElkynStore) -> str:
    problems = store.admin.verify()
    assert problems
    return "\n".join(problems)


@pytest.mark.slow
def test_a_store_after_many_changes_is_as_it_should_be(store: ElkynStore) -> None:
    for number in range(60):
        store.set(f"/users/u{number * 3}/age", number)
        store.update("/", {f"users/u{number * 5}": None, f"rooms/c{number}/k": number})
    store.set("/users/u7", None)
    store.delete("/rooms/a")
    store.set("/map/.priority", None)
    store.admin.compact()
    assert store.admin.verify() == []


def row_of(path: tuple[str, ...], value: Any, number: int = 1) -> bytes:
    return index_rows.row(index_rows.head(number, path[:-1]), value, path[-1])[0]


def test_a_child_without_its_row_is_named(store: ElkynStore) -> None:
    with raw(store) as (txn, databases):
        assert txn.delete(row_of(("users", "u8"), 1), db=databases["index"])
    assert found(store) == "/users/u8: the index by age below /users has no row for it"


def test_a_row_without_its_child_is_named(store: ElkynStore) -> None:
    with raw(store) as (txn, databases):
        txn.put(row_of(("users", "unknown"), 1), b"", db=databases["index"])
        txn.put(row_of(("users", "u8"), 2), b"", db=databases["index"])
        txn.put(row_of(("other", "x"), 2), b"", db=databases["index"])
        txn.put(row_of(("users", "u8"), 2, 99), b"", db=databases["index"])
    text = found(store)
    assert (
        text.count("/users: the index by age below /users has a row that belongs to no child") == 2
    )
    assert "the index by age below /users: a row for a path that does not exist" in text
    assert "index 99: rows of an undeclared index" in text
    assert len(text.splitlines()) == 4


def put_value(store: ElkynStore, path: str, value: Any, replacement: Any) -> None:
    """Change the row that holds `value` at `path` without changing index or log."""
    with raw(store) as (txn, databases), txn.cursor(db=databases["tree"]) as cursor:
        for key, data in cursor:
            if ormsgpack.packb(value) in bytes(data):
                old, new = ormsgpack.packb(value), ormsgpack.packb(replacement)
                txn.put(bytes(key), bytes(data).replace(old, new), db=databases["tree"])
                return
        raise AssertionError(f"{path} was not found")


@pytest.mark.slow
def test_a_value_that_its_write_did_not_make_is_named(store: ElkynStore) -> None:
    store.set("/marked", "a text to be found")
    put_value(store, "/marked", "a text to be found", "a text to be faked")
    assert (
        found(store)
        == f"/marked: differs from the value that the log's entry {store.position} wrote"
    )


@pytest.mark.parametrize(
    ("path", "priority", "wrong"), [("/map", "p", True), ("/map2", 77777, [1, 2])]
)
def test_a_priority_that_is_none_is_named(
    store: ElkynStore, path: str, priority: Any, wrong: Any
) -> None:
    store.set(path, {"a": 1, ".priority": priority})
    before = ormsgpack.packb(".priority") + ormsgpack.packb(priority)
    with raw(store) as (txn, databases), txn.cursor(db=databases["tree"]) as cursor:
        changed = 0
        for key, data in cursor:
            if before in bytes(data):
                after = ormsgpack.packb(".priority") + ormsgpack.packb(wrong)
                txn.put(bytes(key), bytes(data).replace(before, after), db=databases["tree"])
                changed += 1
    assert changed
    assert f"{path}: its priority is neither a number nor text" in found(store)


def change_entry(store: ElkynStore, position: int, change: Callable[[list[Any]], Any]) -> None:
    with raw(store) as (txn, databases):
        key = position.to_bytes(8, "big")
        entry = ormsgpack.unpackb(txn.get(key, db=databases["oplog"]))
        made = change(entry)
        txn.put(key, made if type(made) is bytes else ormsgpack.packb(made), db=databases["oplog"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda entry: b"\xc1", "the log's entry 3 cannot be read"),
        (lambda entry: [9, *entry[1:]], "the log's entry 4 has term 1, after one of term 9"),
        (lambda entry: [*entry[:2], "odd", *entry[3:]], "the log's entry 3 is of an unknown kind"),
    ],
)
def test_a_damaged_entry_of_the_log_is_named(
    store: ElkynStore, change: Callable[[list[Any]], Any], message: str
) -> None:
    change_entry(store, 3, change)
    assert message in found(store).splitlines()


def test_a_log_with_a_hole_is_named(store: ElkynStore) -> None:
    with raw(store) as (txn, databases):
        txn.delete((3).to_bytes(8, "big"), db=databases["oplog"])
    assert "the log jumps from 2 to 4" in found(store)


def verify(data: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    code = main(["verify", "--data", str(data)])
    return code, capsys.readouterr().out


@pytest.mark.slow
def test_the_verb_says_where_a_file_is_damaged(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "data"
    with open_namespaces(data) as stores:
        store = stores["default"]
        for number in range(40):
            store.set(f"/rooms/r{number}", {f"k{n}": f"room {number} {n}" * 9 for n in range(40)})
    assert verify(data, capsys) == (0, "default is undamaged\n")
    file = data / "default" / "data.mdb"
    good = file.read_bytes()
    pages = {match.start() // 4096 * 4096 for match in re.finditer(b"room 17 3room 17 3", good)}
    output = ""
    for page in pages:  # of the tree and of the log
        for damage in (bytes(4096), b"\xff" * 4096, good[page : page + 16] + b"\xc1" * 4080):
            file.write_bytes(good[:page] + damage + good[page + 4096 :])
            code, text = verify(data, capsys)
            assert (code, "is undamaged" in text) == (1, False), text
            output += text
    assert "/rooms/r17" in output
    assert "the log" in output
    file.write_bytes(good)
    assert verify(data, capsys)[0] == 0


def test_the_rows_of_a_branch_are_those_of_its_children(store: ElkynStore) -> None:
    with store.admin.snapshot() as view:
        node = view.tree._find(("users",))
    assert isinstance(node, bytes)
    with raw(store) as (txn, databases):
        txn.put(rows.child_row(node, "u1000"), b"\x01\xc1", db=databases["tree"])
    assert "/users/u1000: cannot be read" in found(store)


def test_nothing_in_the_folder_of_the_caller_is_run(
    store: ElkynStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.close()
    (tmp_path / "lmdb.py").write_text("raise SystemExit('not this one')")
    monkeypatch.chdir(tmp_path)
    assert main(["verify", "--data", str(tmp_path / "data")]) == 0
