"""What a node does with objects that it has fetched."""

from __future__ import annotations

from pathlib import Path

import pytest

from lake.peers.copies.transfers import ObjectComplete
from sennit_core.errors import Unavailable

from .peers_exchange import SharingNetwork, SharingNode
from .test_peers_exchange import run


def test_a_query_is_told_that_a_shard_cannot_be_stored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lost(_effect: ObjectComplete) -> None:
        raise FileNotFoundError("its file")

    async def test(network: SharingNetwork, oslo: SharingNode, rome: SharingNode) -> None:
        oslo.append("big", 3)
        oslo.share("big", copies=1)
        await network.until(lambda: "big" in rome.names())
        with monkeypatch.context() as failing:
            failing.setattr(rome.parts.copies, "complete", lost)
            with pytest.raises(Unavailable):
                await rome.exchange.fetch(oslo.shards("big"))
        await rome.exchange.fetch(oslo.shards("big"))
        assert rome.has_all("big")

    run(tmp_path, "oslo rome", test)
