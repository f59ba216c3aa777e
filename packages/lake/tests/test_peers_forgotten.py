"""Datasets whose writers were removed from the network: each node may delete them for itself."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from lake.distributed.forks import fork_dataset
from lake.peers.handovers.messages import HandOverRequest
from lake.peers.handovers.rows import SIGNED
from lake.statements.limits import Requester
from sennit_core.errors import Conflict, Denied

from .hand_over_world import dataset_of, state
from .peers_exchange import SharingNetwork, SharingNode
from .real_offices import office
from .served_lake import Client, make_app
from .test_peers_hand_over_refusals import head_of
from .test_peers_service import eventually

pytestmark = pytest.mark.slow  # several lakes each


def run(folder: Path, writer: str, test: Callable[..., Coroutine[Any, Any, None]]) -> None:
    """Run a test with Oslo, which has founded the network, Rome and Bern, of which one shares `trips`."""

    async def all_of_it() -> None:
        network = SharingNetwork(folder)
        with ExitStack() as stack:
            nodes = {
                name: stack.enter_context(network.node(name)) for name in ("oslo", "rome", "bern")
            }
            for node in nodes.values():
                await node.exchange.start()
            nodes[writer].append("trips", 1)
            nodes[writer].append("trips", 2)
            nodes[writer].share("trips", copies=3)
            await network.until(lambda: all("trips" in each.names() for each in nodes.values()))
            await network.until(lambda: all(each.has_all("trips") for each in nodes.values()))
            await test(network, *nodes.values())
            for node in nodes.values():
                await node.exchange.end()

    asyncio.run(all_of_it())


def test_a_dataset_of_a_removed_writer_is_deleted_here_and_does_not_come_back(
    tmp_path: Path,
) -> None:
    async def test(
        network: SharingNetwork, oslo: SharingNode, rome: SharingNode, bern: SharingNode
    ) -> None:
        dataset, shard = dataset_of(rome), rome.shards("trips")[0]
        with pytest.raises(Denied, match="which node rome writes"):
            await bern.exchange.delete("trips")
        network.revoke(rome)
        deleted = await bern.exchange.delete("trips")
        assert (deleted.id, deleted.node) == (dataset, rome.id)
        await bern.exchange.start()  # compares all logs, as a start of the node does
        await network.run(rounds=5)
        assert "trips" not in bern.names()
        assert shard not in bern.lake.objects
        assert oslo.has_all("trips")  # the others keep it
        # What another node publishes under the id counts: a hand-over of before, for instance.
        assert not bern.parts.forgotten.has(dataset, oslo.id)
        bern.parts.leave()
        assert not bern.parts.forgotten.has(dataset, rome.id)

    run(tmp_path, "rome", test)


@pytest.mark.nightly
def test_a_dataset_whose_taker_is_gone_for_ever_is_forked_and_replaced(tmp_path: Path) -> None:
    """The way back from a signature that its taker never acknowledges, as the error of --undo says."""

    async def test(
        network: SharingNetwork, oslo: SharingNode, rome: SharingNode, bern: SharingNode
    ) -> None:
        dataset = dataset_of(oslo)
        await oslo.exchange.giver.offer(dataset, bern.id)
        await bern.ask(oslo, HandOverRequest(dataset, head_of(oslo)))
        network.away.add(bern.id)
        assert state(oslo) == SIGNED
        with pytest.raises(Conflict, match="may write it already") as caught:
            await oslo.exchange.giver.undo(dataset)
        assert "platform net revoke bern, platform fork trips NEW" in str(caught.value.hint)
        with pytest.raises(Denied):
            await oslo.exchange.delete("trips")
        network.revoke(bern)
        oslo.lake.remote.has_written = oslo.parts.handovers.is_frozen  # as `connect` does
        fork_dataset(oslo.lake, "trips", "trips2")
        await oslo.exchange.delete("trips")
        # Rome still took Oslo for the writer, and follows to the new dataset.
        await network.until(lambda: "trips" not in rome.names())
        oslo.lake.catalog.rename(oslo.lake.catalog.get("trips2").id, "trips")
        oslo.append("trips", 3)
        oslo.share("trips", copies=3)
        await network.until(lambda: "trips" in rome.names() and rome.has_all("trips"))
        assert dataset_of(rome) != dataset
        assert rome.lake.catalog.get("trips").rows == 3

    run(tmp_path, "oslo", test)


@pytest.mark.nightly
def test_an_admin_deletes_it_over_http_and_other_users_do_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with office(tmp_path, "oslo") as oslo:
        with office(tmp_path, "rome") as rome:
            rome.peers.join(oslo.peers.invite())
            rome.lake.append("trips", pa.table({"id": [1]}))
            rome.peers.share("trips", None)
            eventually(lambda: "trips" in oslo.names())
        client = Client(make_app(oslo.lake))
        refused = client.delete("/api/datasets/trips")
        assert refused.status_code == 403
        assert "platform net revoke rome" in refused.text
        oslo.peers.revoke("rome")
        with monkeypatch.context() as patched:
            user = Requester("ada", may_write=True, role="writer")
            patched.setattr("lake.routes.datasets.requester_of", lambda _request: user)
            assert "admin" in client.delete("/api/datasets/trips").text
        assert client.delete("/api/datasets/trips").status_code == 200
        assert client.get("/api/datasets/trips").status_code == 404
