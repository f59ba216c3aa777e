"""A real node whose disk fails for a while: nothing is told that is not stored, and its loops go on."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from lake.peers import joined
from lake.peers.members.roster import RosterHead
from lake.peers.sharing.publications import LogKey, StoreLog
from lake.peers.transport import effect_queue
from lake.peers.transport.machine import Effect, Send

from .real_offices import office
from .test_peers_floods import network_of
from .test_peers_service import Office, eventually


def test_what_follows_an_entry_waits_until_that_is_stored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(effect_queue, "_RETRY_SECONDS", (0.01, 0.01))
    with Office(tmp_path, "oslo").running() as oslo:
        oslo.invite()
        network = network_of(oslo)
        done: list[str] = []
        failures = [OSError("no space left on device"), ValueError("a defect")]

        def store(_: StoreLog) -> None:
            if failures:
                raise failures.pop()
            done.append("stored")

        monkeypatch.setattr(network._store, "store_log", store)
        monkeypatch.setattr(network.outbox, "put", lambda *_: done.append("told"))
        effects: list[Effect] = [
            StoreLog(LogKey(oslo.identity.id), (), 0),
            Send("0" * 64, RosterHead("")),
        ]

        async def put() -> None:
            network.put(effects)

        oslo._call(put())
        eventually(lambda: "told" in done)
        assert done[0] == "stored"


def test_an_unexpected_error_does_not_end_the_copying_of_datasets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(joined, "TICK_SECONDS", 0.01)
    with office(tmp_path, "oslo") as oslo:
        oslo.peers.invite()
        exchange, ticks = network_of(oslo.peers).exchange, []
        assert exchange is not None

        async def tick() -> None:
            ticks.append(1)
            raise OSError("no space left on device")

        monkeypatch.setattr(exchange, "tick", tick)
        eventually(lambda: len(ticks) > 1)


def test_a_full_queue_drops_what_is_repeated_and_keeps_what_is_to_be_stored() -> None:
    async def test() -> None:
        async def perform(_: Effect) -> None:
            raise AssertionError("it does not run")

        queue = effect_queue.EffectQueue(perform)
        entry = StoreLog(LogKey("a" * 64), (), 0)
        for _ in range(3 * effect_queue.EFFECTS_MAX):  # a peer that connects again and again
            queue.put([Send("0" * 64, RosterHead(""))])
        assert len(queue) == effect_queue.EFFECTS_MAX
        assert queue.is_full
        queue.put([entry])
        assert len(queue) == effect_queue.EFFECTS_MAX + 1

    asyncio.run(test())


def test_a_store_that_fails_is_repeated_more_and_more_rarely_and_named() -> None:
    async def test() -> None:
        waits: list[float] = []
        problems: list[str] = []
        failures = [OSError("no space left on device") for _ in range(9)]

        async def sleep(seconds: float) -> None:
            waits.append(seconds)
            problems.append(queue.problem)

        async def perform(_: Effect) -> None:
            if failures:
                raise failures.pop()
            raise asyncio.CancelledError

        # Not by replacing asyncio.sleep, which loops of other threads use too.
        queue = effect_queue.EffectQueue(perform, sleep)
        queue.put([StoreLog(LogKey("a" * 64), (), 0)])
        with pytest.raises(asyncio.CancelledError):
            await queue.run()
        assert waits == [1, 2, 4, 8, 16, 32, 60, 60, 60]
        assert set(problems) == {"OSError: no space left on device"}

    asyncio.run(test())
