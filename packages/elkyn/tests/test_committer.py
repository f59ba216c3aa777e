"""Group commit: what each queued write reports of its commit."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator

import pytest

from elkyn import ElkynStore
from elkyn.server.committer import Committer
from elkyn.storage.writer import Write, put_write
from elkyn.tree.events import Event


@pytest.fixture
def store() -> Iterator[ElkynStore]:
    with ElkynStore(mode="memory") as store:
        yield store


class BrokenListener:
    def deliver(self, event: Event) -> None:
        raise RuntimeError("the listener")


def commit(store: ElkynStore) -> Write:
    write = put_write(("a",), 1)

    async def queue() -> None:
        committer = Committer()
        await committer.commit(store, write)
        committer.close()

    asyncio.run(queue())
    return write


def test_a_callback_that_fails_after_the_commit_does_not_fail_the_write(
    store: ElkynStore, caplog: pytest.LogCaptureFixture
) -> None:
    seen: list[int] = []

    def broken(position: int, _paths: object) -> None:
        raise RuntimeError(f"the observer at {position}")

    store.admin.observe(broken)
    store.admin.observe(lambda position, _paths: seen.append(position))
    store.admin.attach(("a",), BrokenListener())
    with caplog.at_level(logging.ERROR), store.watch("/a") as events:
        events.poll()
        write = commit(store)
        store.set("/a", 2)
        assert (events.poll(), events.poll()) == (Event("put", "/", 1), Event("put", "/", 2))
    assert (write.error, write.position, seen) == (None, 1, [1, 2])
    assert len(caplog.records) == 4


def test_a_writer_that_fails_leaves_the_writes_that_were_committed(
    store: ElkynStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    admin = store.admin
    commit_all = admin.apply

    def fails_after_commit(writes: list[Write]) -> None:
        commit_all(writes)
        raise RuntimeError("after the commit")

    monkeypatch.setattr(type(admin), "apply", lambda _self, writes: fails_after_commit(writes))
    assert commit(store).error is None
