"""`firebase-admin`, unchanged, against a served tree: its whole database surface."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import firebase_admin  # type: ignore[import-untyped]  # it ships no types
import pytest
from firebase_admin import db, exceptions


@pytest.fixture(scope="module")
def app(emulator: Any) -> Iterator[firebase_admin.App]:
    options = {"databaseURL": f"{emulator.url}/?ns=admin"}
    app = firebase_admin.initialize_app(options=options, name="elkyn")
    yield app
    firebase_admin.delete_app(app)


@pytest.fixture
def root(app: firebase_admin.App) -> Any:
    reference = db.reference("/t", app)
    reference.set({"ann": {"height": 3}, "bob": {"height": 1}, "cat": {"height": 2}})
    return reference


def test_values_are_set_read_updated_pushed_and_deleted(root: Any) -> None:
    assert root.child("ann/height").get() == 3
    assert root.get(shallow=True) == {"ann": True, "bob": True, "cat": True}
    root.update({"ann/height": 4, "bob": None, "log": {}})
    assert root.get() == {"ann": {"height": 4}, "cat": {"height": 2}}
    pushed = root.child("log").push({"x": 1})
    assert (len(pushed.key), pushed.get()) == (20, {"x": 1})
    assert root.child("log").push().get() == ""
    pushed.delete()
    assert pushed.get() is None


def test_etags_guard_writes(root: Any) -> None:
    ann = root.child("ann")
    value, tag = ann.get(etag=True)
    assert ann.get_if_changed(tag) == (False, None, None)
    assert ann.get_if_changed("other") == (True, value, tag)
    assert ann.set_if_unchanged("wrong", 1) == (False, value, tag)
    done, new, new_tag = ann.set_if_unchanged(tag, {"height": 9})
    assert (done, new, ann.get(etag=True)) == (True, {"height": 9}, ({"height": 9}, new_tag))


def test_transactions_count_without_loss(root: Any) -> None:
    threads = [
        threading.Thread(target=root.child("n").transaction, args=(lambda n: (n or 0) + 1,))
        for _ in range(5)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert root.child("n").get() == 5


def test_queries(root: Any) -> None:
    def by_height() -> Any:
        return root.order_by_child("height")

    assert list(by_height().get()) == ["bob", "cat", "ann"]
    assert list(by_height().limit_to_last(1).get()) == ["ann"]
    assert list(by_height().start_at(2).end_at(2).get()) == ["cat"]
    assert list(by_height().equal_to(1).get()) == ["bob"]
    assert list(root.order_by_key().start_at("b").limit_to_first(1).get()) == ["bob"]
    root.set({"x": 2, "y": 1, "z": "text"})
    assert list(root.order_by_value().get()) == ["y", "x", "z"]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_listener_gets_every_event_and_can_be_closed(root: Any) -> None:
    seen: list[Any] = []
    enough = threading.Event()

    def listen(event: Any) -> None:
        seen.append((event.event_type, event.path, event.data))
        if len(seen) == 3:
            enough.set()
        if len(seen) == 1:
            threading.Thread(target=write).start()

    def write() -> None:
        root.child("bob/height").set(7)
        root.update({"ann": None, "dan": 1})

    registration = root.listen(listen)
    assert enough.wait(20)
    assert seen[1:] == [
        ("put", "/bob/height", 7),
        ("patch", "/", {"ann": None, "dan": 1}),
    ]
    registration.close()  # returns with the next keep-alive


def test_an_override_is_checked_by_rules(emulator: Any) -> None:
    emulator.rules("override", {"$uid": {".read": "auth.uid === $uid", ".write": "auth != null"}})
    options = {
        "databaseURL": f"{emulator.url}/?ns=override",
        "databaseAuthVariableOverride": {"uid": "ann"},
    }
    app = firebase_admin.initialize_app(options=options, name="ann")
    try:
        db.reference("/bob", app).set(1)
        assert db.reference("/ann", app).get() is None
        with pytest.raises(exceptions.UnauthenticatedError, match="Permission denied"):
            db.reference("/bob", app).get()
    finally:
        firebase_admin.delete_app(app)


def test_mistakes_are_raised_as_its_own_errors(root: Any, emulator: Any) -> None:
    emulator.rules("index", {".read": True})
    with pytest.raises(exceptions.InvalidArgumentError):
        root.child("a").set({"b.c": 1})
    app = firebase_admin.initialize_app(
        options={"databaseURL": f"{emulator.url}/?ns=index"}, name="index"
    )
    try:
        with pytest.raises(exceptions.InvalidArgumentError, match="Index not defined"):
            db.reference("/q", app).order_by_child("n").get()
    finally:
        firebase_admin.delete_app(app)
