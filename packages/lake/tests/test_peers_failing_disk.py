"""A real node whose disk fails for a while: nothing is told that is not stored, and its loops go on."""

from __future__ import annotations

from pathlib import Path

import pytest

from lake.peers import joined
from lake.peers.machine import Effect, Send
from lake.peers.publications import LogKey, StoreLog
from lake.peers.roster import RosterHead

from .real_offices import office
from .test_peers_floods import network_of
from .test_peers_service import Office, eventually


def test_what_follows_an_entry_waits_until_that_is_stored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(joined, "_STORE_SECONDS", 0.01)
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
