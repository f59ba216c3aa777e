"""A node that does not want a dataset which was offered to it: its writer learns why, and writes on."""

from __future__ import annotations

from pathlib import Path

import pytest

from lake.access.quotas import UserQuota
from lake.peers.handovers.giving import _STOPPED_SECONDS
from lake.peers.handovers.messages import HandOverRefusal, HandOverRequest
from lake.peers.handovers.rows import ACCEPTING, OFFERED, REFUSED, SETTLED, SIGNED, STOPPED
from lake.peers.transport.machine import Failed
from sennit_core.errors import Conflict, Denied

from .hand_over_world import dataset_of, rows, state, writes
from .peers_exchange import SharingNetwork, SharingNode
from .test_peers_handing_over import hand_over, run


def head_of(node: SharingNode) -> str:
    return node.lake.catalog.adopter.newest_manifests(dataset_of(node), 1)[0]


def refusal(node: SharingNode) -> str:
    return node.parts.handovers.get(dataset_of(node)).refusal


async def stopped(network: SharingNetwork, oslo: SharingNode, rome: SharingNode) -> None:
    """Let Oslo stop, while Rome is accepting."""
    await oslo.exchange.giver.offer(dataset_of(oslo), rome.id)
    await rome.exchange.taker.accept(dataset_of(rome), "anna")
    oslo.append("trips", 3)
    second = oslo.lake.catalog.adopter.newest_manifests(dataset_of(oslo), 8)[1]
    await rome.ask(oslo, HandOverRequest(dataset_of(oslo), second))
    assert state(oslo) == STOPPED
    with pytest.raises(Denied):
        oslo.append("trips", 4)


@pytest.mark.slow
def test_a_writer_that_has_stopped_writes_on_when_the_other_node_refuses(tmp_path: Path) -> None:
    async def test(network: SharingNetwork, oslo: SharingNode, rome: SharingNode) -> None:
        await stopped(network, oslo, rome)
        network.away.add(oslo.id)
        assert await rome.exchange.taker.undo(dataset_of(rome))
        assert await rome.exchange.taker.undo(dataset_of(rome))
        await network.run(rounds=2)
        # The reason waits until the writer can be reached.
        assert (state(rome), state(oslo)) == (REFUSED, STOPPED)
        network.away.clear()
        await network.until(lambda: state(rome) == SETTLED)
        assert writes(oslo)
        oslo.append("trips", 4)
        assert refusal(oslo) == "node rome: its administrator does not accept the dataset any more"
        assert "administrator" in refusal(rome)
        # A new offer is a new attempt.
        await hand_over(network, oslo, rome)
        assert not refusal(rome)
        await network.until(lambda: state(oslo) == SETTLED)
        assert not refusal(oslo)

    run(tmp_path, "oslo rome", test)


@pytest.mark.nightly
def test_a_full_quota_is_said_at_the_writer(tmp_path: Path) -> None:
    async def test(network: SharingNetwork, oslo: SharingNode, rome: SharingNode) -> None:
        dataset, giver = dataset_of(oslo), oslo.exchange.giver
        await giver.offer(dataset, rome.id)
        await rome.exchange.taker.accept(dataset, "anna")
        rome.lake.quotas.set(UserQuota("anna", disk_bytes=1))
        await network.until(lambda: state(oslo) == SETTLED)
        assert refusal(oslo).startswith("node rome: ")
        assert "user 'anna' may store 1 B" in refusal(oslo)
        assert writes(oslo)
        await giver.undo(dataset)  # it was read
        assert not refusal(oslo)
        with pytest.raises(Conflict, match="not being handed over"):
            await giver.undo(dataset)

    run(tmp_path, "oslo rome", test)


@pytest.mark.nightly
def test_what_is_signed_is_completed_by_a_node_that_refuses(tmp_path: Path) -> None:
    async def test(network: SharingNetwork, oslo: SharingNode, rome: SharingNode) -> None:
        dataset = dataset_of(oslo)
        await oslo.exchange.giver.offer(dataset, rome.id)
        await rome.exchange.taker.accept(dataset, "anna")
        await rome.ask(oslo, HandOverRequest(dataset, head_of(oslo)))
        assert state(oslo) == SIGNED
        await rome.exchange.taker.undo(dataset)
        await network.until(lambda: writes(rome))
        await network.until(lambda: state(oslo) == SETTLED)
        assert not writes(oslo)
        rome.append("trips", 3)
        assert not refusal(rome)

    run(tmp_path, "oslo rome", test)


@pytest.mark.nightly
def test_only_the_node_it_was_offered_to_refuses_it(tmp_path: Path) -> None:
    async def test(
        network: SharingNetwork, oslo: SharingNode, rome: SharingNode, bern: SharingNode
    ) -> None:
        dataset = dataset_of(oslo)
        await oslo.exchange.giver.offer(dataset, rome.id)
        for unknown in (dataset, "0" * len(dataset)):
            answer = await bern.ask(oslo, HandOverRefusal(unknown, "no"))
            assert isinstance(answer, Failed)
            assert answer.code == "not-found"
        assert state(oslo) == OFFERED
        # One line of limited length, whatever the other node sends.
        await rome.ask(oslo, HandOverRefusal(dataset, "no\x1b[2J\n" + "x" * 10_000))
        assert state(oslo) == SETTLED
        assert refusal(oslo).isprintable()
        assert len(refusal(oslo)) <= 400

    run(tmp_path, "oslo rome bern", test)


@pytest.mark.nightly
def test_a_writer_that_has_stopped_writes_on_when_the_other_node_is_silent(tmp_path: Path) -> None:
    async def test(network: SharingNetwork, oslo: SharingNode, rome: SharingNode) -> None:
        await stopped(network, oslo, rome)
        network.away.add(rome.id)
        await oslo.exchange.giver.tick(network.now + _STOPPED_SECONDS - 1)
        assert state(oslo) == STOPPED
        await oslo.exchange.giver.tick(network.now + _STOPPED_SECONDS + 1)
        assert state(oslo) == OFFERED
        oslo.append("trips", 4)
        # The offer is still open: it goes on when that node is there again.
        network.away.clear()
        assert state(rome) == ACCEPTING
        await network.until(lambda: writes(rome))
        await network.until(lambda: state(oslo) == SETTLED)
        assert rows(rome) == [1, 2, 3, 4]

    run(tmp_path, "oslo rome", test)


@pytest.mark.nightly
def test_a_writer_that_has_stopped_writes_on_when_the_other_node_is_removed(tmp_path: Path) -> None:
    async def test(network: SharingNetwork, oslo: SharingNode, rome: SharingNode) -> None:
        await stopped(network, oslo, rome)
        network.away.add(rome.id)
        network.revoke(rome)
        await network.until(lambda: state(oslo) == SETTLED)
        oslo.append("trips", 4)
        assert "not in the network any more" in refusal(oslo)

    run(tmp_path, "oslo rome", test)
