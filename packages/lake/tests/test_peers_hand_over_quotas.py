"""Who owns a dataset after a hand-over needs room for it, unless its giver may have signed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lake.access.quotas import UserQuota
from lake.peers.handovers.messages import HandOverRequest
from lake.peers.handovers.rows import SETTLED, SIGNED
from lake.peers.transport.machine import Call, Failed
from sennit_core.errors import StorageFull

from .hand_over_world import dataset_of, rows, state, writes
from .peers_exchange import SharingNetwork, SharingNode
from .test_peers_handing_over import run


def test_an_owner_without_room_gets_no_dataset_unless_the_giver_may_have_signed(
    tmp_path: Path,
) -> None:
    async def test(network: SharingNetwork, oslo: SharingNode, rome: SharingNode) -> None:
        dataset, quotas = dataset_of(oslo), rome.lake.quotas
        size = quotas.stored.bytes_of(rome.lake.catalog.get(dataset))
        await oslo.exchange.giver.offer(dataset, rome.id)
        quotas.set(UserQuota("anna", disk_bytes=size - 1))
        with pytest.raises(StorageFull, match="1 B too many"):
            await rome.exchange.taker.accept(dataset, "anna")
        assert state(rome) == SETTLED
        # Room that is used up after the acceptance ends it before the giver stops.
        quotas.set(UserQuota("anna", disk_bytes=size))
        await rome.exchange.taker.accept(dataset, "anna")
        quotas.set(UserQuota("anna", disk_bytes=size - 1))
        await network.until(lambda: state(rome) == state(oslo) == SETTLED)
        assert writes(oslo)
        assert not writes(rome)
        # But not once the giver has signed: then no node would write.
        quotas.set(UserQuota("anna", disk_bytes=size * 2))
        await oslo.exchange.giver.offer(dataset, rome.id)
        ask = rome.call
        lost: list[Call] = []

        async def call(call: Any) -> Any:
            result = await ask(call)
            if isinstance(call.message, HandOverRequest) and state(oslo) == SIGNED and not lost:
                lost.append(call)
                quotas.set(UserQuota("anna", disk_bytes=1))
                return Failed(call.id, "unavailable", "the answer is lost")
            return result

        rome.call = call  # type: ignore[method-assign]
        await rome.exchange.taker.accept(dataset, "anna")
        await network.until(lambda: writes(rome))
        assert lost
        assert rows(rome) == [1, 2]

    run(tmp_path, "oslo rome", test)
