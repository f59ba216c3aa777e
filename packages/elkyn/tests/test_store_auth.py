"""Rules and tokens of the embedded store: permissions, and how rules persist."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from elkyn_server import until

from elkyn import BadRules, ElkynStore
from elkyn.auth.authorizer import Authorizer
from elkyn.auth.principal import ADMIN, Principal
from elkyn.storage.transactions import ReadTransaction
from elkyn.storage.writer import Write, put_write
from sennit_core.errors import Closed, Denied, Unauthenticated, UsageError
from sennit_core.testing import ManualClock

RULES: dict[str, Any] = {
    "rules": {
        "users": {
            "$uid": {
                ".read": "$uid === auth.uid || auth.admin === true",
                ".write": "$uid === auth.uid",
                "age": {".validate": "newData.isNumber()"},
            }
        },
        "open": {".read": True, ".write": "newData.parent().child('users').exists()"},
    }
}


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def store(tmp_path: Path, clock: ManualClock) -> Iterator[ElkynStore]:
    with ElkynStore(tmp_path / "tree", clock=clock) as store:
        store.set("/", {"users": {"ann": {"age": 31}}, "secret": 1})
        store.set_rules(RULES)
        store.enable_auth("a secret")
        yield store


def test_the_original_example_works(tmp_path: Path) -> None:
    with ElkynStore(tmp_path / "t") as store:
        store.enable_auth("secret")
        store.setup_default_rules()
        token = store.create_token("user123")
        store.set("/users/user123/profile", {"name": "Alice"}, token=token)
        assert store.get("/users/user123/profile/name", token=token) == "Alice"


def test_rules_limit_reads_and_writes_of_users(store: ElkynStore) -> None:
    ann, bob = store.create_token("ann"), store.create_token("bob")
    store.update("/users/ann", {"age": 32, "name": "Ann"}, token=ann)
    assert store.transaction("/users/ann/age", lambda n: n + 1, token=ann) == 33
    assert store.get("/users/ann", token=ann) == {"age": 33, "name": "Ann"}
    assert store.keys("/users/ann", token=ann) == ["age", "name"]
    key = store.push("/users/ann/log", "x", token=ann)
    store.delete(f"/users/ann/log/{key}", token=ann)
    position = store.position
    for refused in (
        lambda: store.get("/users/ann", token=bob),
        lambda: store.keys("/users", token=ann),
        lambda: store.set("/users/ann/age", 5, token=bob),
        lambda: store.set("/users/ann/age", "old", token=ann),
        lambda: store.update("/users", {"ann/age": 1, "bob/age": 1}, token=ann),
        lambda: store.push("/users/ann/log", "x", token=bob),
        lambda: store.delete("/users/ann", token=bob),
        lambda: store.transaction("/users/ann/age", lambda n: n, token=bob),
        lambda: store.set("/users/ann/age", 5, token=bob, ephemeral=True),
        lambda: store.watch("/users/ann", token=bob),
        lambda: store.on("/users/ann", "value", print, token=bob),
        lambda: store.query("/users/ann", token=bob),
        lambda: store.get("/users/ann"),
        lambda: store.set("/anything", 1),
    ):
        with pytest.raises(Denied):
            refused()
    assert (store.get("/users/ann/age", token=ann), store.position) == (33, position)


def test_claims_are_seen_by_the_rules(store: ElkynStore) -> None:
    boss = store.create_token("boss", admin=True)
    assert store.get("/users/ann/age", token=boss) == 31


def test_rules_see_the_tree_as_it_will_be(store: ElkynStore) -> None:
    store.set("/open", 1, token=store.create_token("any user"))
    assert store.get("/open") == 1
    with pytest.raises(Denied):
        store.get("/secret")


def test_a_token_that_is_forged_or_expired_is_refused(
    store: ElkynStore, clock: ManualClock
) -> None:
    token = store.create_token("ann", expires_seconds=60)
    assert store.get("/users/ann/age", token=token) == 31
    with pytest.raises(Unauthenticated):
        store.get("/users/ann/age", token=token[:-2] + "xx")
    clock.advance(3600)
    with pytest.raises(Unauthenticated):
        store.get("/users/ann/age", token=token)


def test_bad_rules_are_refused_and_the_old_ones_stay(store: ElkynStore) -> None:
    with pytest.raises(BadRules):
        store.set_rules('{"rules": {".read": "undefined()"}}')
    assert store.get("/users/ann/age", token=store.create_token("ann")) == 31


def test_rules_are_kept_in_the_store_and_in_its_log(tmp_path: Path) -> None:
    with ElkynStore(tmp_path / "t") as store:
        store.set("/a", 1)
        assert store.rules is None
        store.set_rules({"rules": {"a": {".read": True}}})
        assert store.position == 2
        store.admin.backup(tmp_path / "copy")
    for folder in ("t", "copy"):
        with ElkynStore(tmp_path / folder) as store:
            assert store.get("/a") == 1  # rules are not applied until auth is enabled
            store.enable_auth("s")
            assert store.get("/a") == 1
            with pytest.raises(Denied):
                store.set("/a", 2)


def test_rules_follow_the_log_to_other_stores(store: ElkynStore) -> None:
    with ElkynStore(mode="memory") as follower:
        notified: list[int] = []
        follower.admin.on_rules(lambda: notified.append(1))
        follower.admin.replicate(store.oplog.read(0))
        follower.enable_auth("another secret")
        assert follower.get("/users/ann/age", token=follower.create_token("ann")) == 31
        with pytest.raises(Denied):
            follower.get("/")
        assert notified == [1]


def test_without_rules_nothing_is_allowed_but_to_admins(tmp_path: Path) -> None:
    with ElkynStore(tmp_path / "t") as store:
        store.enable_auth("s")
        with pytest.raises(Denied):
            store.get("/")
        assert store.admin.authorizer(ADMIN).write_check() is None
        assert store.admin.authorizer(Principal("ann")).write_check() is not None


def write_as(store: ElkynStore, authorizer: Authorizer) -> Write:
    """Return a write as a server queues it."""
    write = put_write(("a",), 1)
    write.authorize = authorizer.write_check()
    return write


def test_an_authorizer_without_rules_refuses_the_writes_of_a_user() -> None:
    with ElkynStore(mode="memory") as store:
        write = write_as(store, Authorizer(Principal("ann")))
        store.admin.apply([write])
    assert isinstance(write.error, Denied)


def test_a_write_queued_before_the_first_rules_is_checked_by_them() -> None:
    with ElkynStore(mode="memory") as store:
        open_store = store.admin.authorizer(Principal("ann"), open_without_rules=True)
        before, after = write_as(store, open_store), write_as(store, open_store)
        store.admin.apply([before])
        store.set_rules(RULES)
        store.admin.apply([after])
    assert before.error is None
    assert isinstance(after.error, Denied)


def test_rules_read_while_others_are_applied_are_not_kept(
    store: ElkynStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ElkynStore(mode="memory") as follower:
        follower._auth.listeners = ()  # the thread that builds indexes reads the rules as well
        follower.admin.replicate(store.oplog.read(0))
        newer = '{"rules": {".read": true}}'
        position = store.position
        store.set_rules(newer)
        snapshot = follower._disk.snapshot

        @contextmanager
        def overtaken(rows_max: int | None = None) -> Iterator[ReadTransaction]:
            monkeypatch.undo()
            with snapshot(rows_max) as view:
                # The leader's next rules arrive after this snapshot.
                follower.admin.replicate(store.oplog.read(position))
                yield view

        monkeypatch.setattr(follower._disk, "snapshot", overtaken)
        assert follower._auth.rules is not None
        assert follower._auth.rules.source == newer


def test_tokens_need_a_secret(tmp_path: Path) -> None:
    with ElkynStore(tmp_path / "t") as store, pytest.raises(UsageError, match="secret"):
        store.create_token("ann")


def test_a_subscriber_is_notified_of_new_rules_until_it_unsubscribes(store: ElkynStore) -> None:
    notified: list[int] = []
    end = store.admin.on_rules(lambda: notified.append(1))
    store.set_rules(RULES)
    end()
    store.set_rules(RULES)
    assert notified == [1]


CHANGES: dict[str, Callable[[ElkynStore], object]] = {
    "rules": lambda store: store.set_rules({"rules": {".read": False}}),
    "data": lambda store: store.delete(
        "/members/ann", token=store.create_token("boss", admin=True)
    ),
}
MEMBERS = {
    "rules": {
        ".write": "auth.admin === true",
        "room": {".read": "root.child('members').child(auth.uid).exists()"},
    }
}


@pytest.fixture
def room() -> Iterator[ElkynStore]:
    with ElkynStore(mode="memory") as store:
        store.update("/", {"members": {"ann": True, "bob": True}, "room": "text"})
        store.set_rules(MEMBERS)
        store.enable_auth("secret")
        yield store


@pytest.mark.parametrize("change", CHANGES)
def test_a_silent_feed_ends_when_reading_is_forbidden(room: ElkynStore, change: str) -> None:
    bob = room.watch("/room", token=room.create_token("bob"))
    assert bob.poll(20) is not None
    calls: list[Any] = []
    called = room.on("/room", "value", calls.append, token=room.create_token("ann"))
    with room.watch("/room", token=room.create_token("ann")) as feed:
        assert feed.poll(20) is not None
        until(lambda: calls == ["text"])
        CHANGES[change](room)
        with pytest.raises(Denied, match="/room"):
            feed.poll(20)
        with pytest.raises(Closed):
            feed.poll(20)
    called._thread.join(20)
    assert not called._thread.is_alive()
    assert calls == ["text"]
    if change == "data":
        assert bob.poll(0) is None  # still a member
        bob.close()
    else:
        with pytest.raises(Denied):
            bob.poll(20)


def test_queued_events_are_not_sent_after_a_permission_is_lost(room: ElkynStore) -> None:
    boss = room.create_token("boss", admin=True)
    with room.watch("/room", token=room.create_token("ann")) as feed:
        feed.poll(20)
        room.update("/", {"members/ann": None, "room": "hidden"}, token=boss)
        with pytest.raises(Denied):
            feed.poll(20)


@pytest.mark.slow
def test_a_silent_feed_ends_with_its_token(room: ElkynStore) -> None:
    token = room.create_token("ann", expires_seconds=-58)  # a minute is granted for clocks
    with room.watch("/room", token=token) as feed:
        assert feed.poll(20) is not None
        with pytest.raises(Unauthenticated):
            feed.poll(20)


def test_an_awaited_feed_is_notified_too(room: ElkynStore) -> None:
    async def follow() -> None:
        feed = room.watch("/room", token=room.create_token("ann"))
        assert await feed.next(20) is not None
        asyncio.get_running_loop().call_later(0.1, CHANGES["rules"], room)
        with pytest.raises(Denied):
            await feed.next(20)

    asyncio.run(follow())


def test_the_authorizing_thread_ends_with_the_last_feed(room: ElkynStore) -> None:
    feed = room.watch("/room", token=room.create_token("ann"))
    thread = room._authorizer._thread
    assert thread is not None
    feed.close()
    thread.join(20)
    assert not thread.is_alive()
    assert room._writer.observers == ()
