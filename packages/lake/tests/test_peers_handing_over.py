"""Hand-overs between real lakes: who commits, what is kept, and what crashes and lost messages change."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import ExitStack, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from lake.distributed.fork_origins import ForkOrigin
from lake.distributed.forks import fork_dataset
from lake.maintenance.purge import PurgeRequest
from lake.peers.handovers.messages import HandOverRequest
from lake.peers.handovers.rows import OFFERED, SETTLED, SIGNED, STOPPED
from lake.peers.transport.machine import Failed
from sennit_core.errors import Conflict, Denied, NotFound, Unsupported
from sennit_core.ids import new_id

from .hand_over_world import Crash, CrashingTree, HandOverWorld, dataset_of, rows, state, writes
from .peers_exchange import SharingNetwork, SharingNode

Test = Callable[..., Coroutine[Any, Any, None]]


def run(folder: Path, names: str, test: Test) -> None:
    """Run a test with a network and nodes of some names, of which Oslo shares `trips` with all."""

    async def all_of_it() -> None:
        network = SharingNetwork(folder)
        with ExitStack() as stack:
            nodes = [stack.enter_context(network.node(name)) for name in names.split()]
            for node in nodes:
                await node.exchange.start()
            oslo = nodes[0]
            oslo.append("trips", 1)
            oslo.append("trips", 2)
            oslo.share("trips", *nodes[1:])
            await network.until(lambda: all("trips" in each.names() for each in nodes[1:]))
            await test(network, *nodes)
            for node in nodes:
                await node.exchange.end()

    asyncio.run(all_of_it())


async def hand_over(network: SharingNetwork, giver: SharingNode, taker: SharingNode) -> None:
    await giver.exchange.giver.offer(dataset_of(giver), taker.id)
    await taker.exchange.taker.accept(dataset_of(giver), "anna")
    await network.until(lambda: writes(taker))


def test_the_taker_writes_and_all_others_follow(tmp_path: Path) -> None:
    async def test(
        network: SharingNetwork, oslo: SharingNode, rome: SharingNode, bern: SharingNode
    ) -> None:
        dataset = dataset_of(oslo)
        assert not rome.has_all("trips")
        await hand_over(network, oslo, rome)
        assert not writes(oslo)
        with pytest.raises(Denied, match="which node"):
            oslo.append("trips", 7)
        rome.append("trips", 3)
        info = rome.lake.catalog.get("trips")
        assert (info.id, info.owner, info.name) == (dataset, "anna", "trips")
        version = rome.lake.catalog.stored_manifest("trips").snapshot.version
        assert version == 3
        for each in (oslo, bern):
            await network.until(partial(has_rows, each, 3))
            assert each.lake.catalog.get("trips").node == rome.id
        share = rome.shares.get(dataset)
        assert share is not None
        assert set(share.nodes) == {oslo.id, bern.id}
        assert oslo.shares.get(dataset) is None
        assert state(oslo) == state(rome) == state(bern) == SETTLED

    run(tmp_path, "oslo rome bern", test)


def test_versions_that_come_meanwhile_stop_the_giver_until_the_taker_has_them(
    tmp_path: Path,
) -> None:
    async def test(network: SharingNetwork, oslo: SharingNode, rome: SharingNode) -> None:
        states: list[str] = []
        ask = rome.call

        async def call(call: Any) -> Any:
            is_asked = isinstance(call.message, HandOverRequest) and call.message.manifest
            if is_asked and not states:
                oslo.append("trips", 3)
            result = await ask(call)
            if is_asked:
                states.append(state(oslo))
                if state(oslo) == STOPPED:
                    with pytest.raises(Denied):
                        oslo.append("trips", 4)
            return result

        rome.call = call  # type: ignore[method-assign]
        await hand_over(network, oslo, rome)
        assert states[0] == STOPPED
        assert states[-1] == SIGNED
        assert rows(rome) == [1, 2, 3]

    run(tmp_path, "oslo rome", test)


def test_an_offer_is_undone_until_the_statement_is_signed(tmp_path: Path) -> None:
    async def test(network: SharingNetwork, oslo: SharingNode, rome: SharingNode) -> None:
        dataset, giver = dataset_of(oslo), oslo.exchange.giver
        with pytest.raises(Conflict, match="not being handed over"):
            await giver.undo(dataset)
        await giver.offer(dataset, rome.id)
        assert state(oslo) == OFFERED
        await giver.undo(dataset)
        with pytest.raises(NotFound, match="offered to this node"):
            await rome.exchange.taker.accept(dataset, "anna")
        assert state(rome) == SETTLED
        # Of the head of before: it stops, and goes on when that is undone.
        await giver.offer(dataset, rome.id)
        first = oslo.lake.catalog.adopter.newest_manifests(dataset, 8)[-1]
        assert not (await rome.ask(oslo, HandOverRequest(dataset, first))).message.chain  # type: ignore[union-attr]
        assert state(oslo) == STOPPED
        with pytest.raises(Conflict, match="being handed over"):
            oslo.shares.remove(dataset)
        await network.run(rounds=3)
        assert rome.names() == {"trips"}
        await giver.undo(dataset)
        oslo.append("trips", 3)
        assert state(oslo) == SETTLED
        await hand_over(network, oslo, rome)
        await network.until(lambda: state(oslo) == SETTLED)
        with pytest.raises(Conflict, match="not being handed over"):
            await giver.undo(dataset)
        assert not writes(oslo)

    run(tmp_path, "oslo rome", test)


def test_a_signed_hand_over_cannot_be_undone(tmp_path: Path) -> None:
    async def test(network: SharingNetwork, oslo: SharingNode, rome: SharingNode) -> None:
        dataset, giver = dataset_of(oslo), oslo.exchange.giver
        await giver.offer(dataset, rome.id)
        head = oslo.lake.catalog.adopter.newest_manifests(dataset, 1)[0]
        await rome.ask(oslo, HandOverRequest(dataset, head))
        assert state(oslo) == SIGNED
        with pytest.raises(Conflict, match="may write it already"):
            await giver.undo(dataset)
        with pytest.raises(Conflict, match="does not write it yet"):
            giver.check_done()
        await network.run(rounds=5)
        assert oslo.has_all("trips")
        # The taker has not begun to take it; the same request is answered again when it does.
        await rome.exchange.taker.accept(dataset, "anna")
        await network.until(lambda: writes(rome))
        await network.until(lambda: state(oslo) == SETTLED)
        giver.check_done()

    run(tmp_path, "oslo rome", test)


def test_only_the_node_it_was_offered_to_takes_it(tmp_path: Path) -> None:
    async def test(
        network: SharingNetwork, oslo: SharingNode, rome: SharingNode, bern: SharingNode
    ) -> None:
        dataset = dataset_of(oslo)
        await oslo.exchange.giver.offer(dataset, rome.id)
        head = oslo.lake.catalog.adopter.newest_manifests(dataset, 1)[0]
        unknown = await bern.ask(oslo, HandOverRequest("0" * len(dataset), head))
        refused = await bern.ask(oslo, HandOverRequest(dataset, head))
        assert isinstance(refused, Failed)
        assert isinstance(unknown, Failed)
        assert refused.code == unknown.code == "not-found"
        assert state(oslo) == OFFERED
        # A manifest that is none of the dataset's stops nothing.
        await rome.ask(oslo, HandOverRequest(dataset, "f" * 64))
        assert state(oslo) == OFFERED
        assert writes(oslo)
        with pytest.raises(Conflict, match="offered to another node"):
            await oslo.exchange.giver.offer(dataset, bern.id)
        with pytest.raises(Denied, match="another node writes"):
            await rome.exchange.giver.offer(dataset, bern.id)

    run(tmp_path, "oslo rome bern", test)


def test_a_node_that_has_taken_nothing_cannot_publish_it(tmp_path: Path) -> None:
    async def test(
        network: SharingNetwork, oslo: SharingNode, rome: SharingNode, bern: SharingNode
    ) -> None:
        dataset = dataset_of(oslo)
        item = dict(
            oslo.logs.logs[next(k for k in oslo.logs.logs if k.audience == bern.id)].items[dataset]
        )
        rome.put(rome.logs.publish(dataset, item, bern.id, rome.members.alive()))
        await network.run(rounds=4)
        assert bern.lake.catalog.get("trips").node == oslo.id
        # Nor what it wrote before it handed it over.
        await hand_over(network, oslo, rome)
        rome.append("trips", 3)
        await network.until(lambda: bern.lake.catalog.get("trips").node == rome.id)
        oslo.put(oslo.logs.publish(dataset, item, bern.id, oslo.members.alive()))
        await network.run(rounds=4)
        assert bern.lake.catalog.get("trips").node == rome.id
        assert rows_known(bern) == 3

    run(tmp_path, "oslo rome bern", test)


def has_rows(node: SharingNode, count: int) -> bool:
    return rows_known(node) == count


def rows_known(node: SharingNode) -> int:
    return node.lake.catalog.get("trips").rows


def test_the_giver_keeps_and_serves_its_copies_and_late_nodes_follow(tmp_path: Path) -> None:
    async def test(network: SharingNetwork, oslo: SharingNode, rome: SharingNode) -> None:
        with network.node("bern") as bern:
            dataset = dataset_of(oslo)
            oslo.share("trips", rome, bern, copies=3)
            await network.until(lambda: "trips" in bern.names())
        shards = set(oslo.shards("trips"))
        await hand_over(network, oslo, rome)
        rome.append("trips", 3)
        await network.until(lambda: rows_known(oslo) == 3 and oslo.has_all("trips"))
        held = oslo.parts.copies.held
        assert all(held.was_received(dataset, shard) for shard in shards)
        with network.node("bern") as bern:  # it was away all the time
            assert bern.lake.catalog.get("trips").node == oslo.id
            deleted: list[str] = []
            bern.parts.retention.delete_dataset = deleted.append  # type: ignore[method-assign,assignment]
            await bern.exchange.start()
            await network.until(lambda: bern.lake.catalog.get("trips").node == rome.id)
            await network.until(lambda: bern.has_all("trips"))
            assert not deleted
            await bern.exchange.end()

    run(tmp_path, "oslo rome", test)


def test_it_is_handed_over_again_and_back(tmp_path: Path) -> None:
    async def test(
        network: SharingNetwork, oslo: SharingNode, rome: SharingNode, bern: SharingNode
    ) -> None:
        dataset = dataset_of(oslo)
        await hand_over(network, oslo, rome)
        rome.append("trips", 3)
        await network.until(lambda: bern.lake.catalog.get("trips").node == rome.id)
        await network.until(lambda: bern.lake.catalog.get("trips").rows == 3)
        await hand_over(network, rome, bern)
        bern.append("trips", 4)
        await network.until(lambda: oslo.lake.catalog.get("trips").node == bern.id)
        await network.until(lambda: rows_known(oslo) == 4)
        await hand_over(network, bern, oslo)
        oslo.append("trips", 5)
        for each in (rome, bern):
            await network.until(partial(has_rows, each, 5))
            assert each.lake.catalog.get("trips").node == oslo.id
        assert len(oslo.parts.handovers.get(dataset).chain) == 3
        assert not oslo.parts.handovers.get(dataset).audiences
        oslo.shares.remove("trips")
        await network.until(lambda: rome.names() == bern.names() == set())
        await network.run(rounds=3)
        assert not rome.parts.handovers.ids()
        assert not own_moved(rome)

    run(tmp_path, "oslo rome bern", test)


def test_a_tag_of_the_earlier_writer_keeps_no_rows_that_the_next_one_purges(
    tmp_path: Path,
) -> None:
    async def test(network: SharingNetwork, oslo: SharingNode, rome: SharingNode) -> None:
        dataset = dataset_of(oslo)
        oslo.lake.tag("trips", "before", version=1)
        oslo.lake.tag("trips", "closing", version=2)
        await hand_over(network, oslo, rome)
        shards = {each.object for each in rome.lake.catalog.manifest("trips").snapshot.shards}
        await rome.exchange.fetch(shards, dataset)
        await network.until(lambda: not writes(oslo))
        # Oslo sees the newest version only, which was committed after the purge.
        network.away.add(oslo.id)
        report = await asyncio.to_thread(
            rome.lake.purger.purge, PurgeRequest("trips", "id = 1", wait_seconds=0.0)
        )
        assert (report.rows_all, report.still_read) == (1, 0)
        rome.append("trips", 3)
        network.away.discard(oslo.id)
        version = rome.lake.catalog.manifest("trips").snapshot.version
        await network.until(
            lambda: oslo.lake.catalog.stored_manifest("trips").snapshot.version == version
        )
        await network.until(lambda: oslo.lake.catalog.tags("trips") == {})
        kept = oslo.lake.catalog.snapshots("trips")
        assert [each.snapshot.version for each in kept] == [version]
        gone = shards - {s.object for s in rome.lake.catalog.manifest("trips").snapshot.shards}
        assert gone
        assert not any(name in oslo.lake.objects for name in gone)
        assert rows(rome) == [2, 3]
        # And back: the count of purges goes with the dataset.
        assert oslo.lake.catalog.adopter.purge_count(dataset) == 1

    run(tmp_path, "oslo rome", test)


@pytest.mark.nightly
def test_what_a_fork_is_one_of_is_known_at_other_nodes_and_goes_to_the_next_writer(
    tmp_path: Path,
) -> None:
    async def test(network: SharingNetwork, oslo: SharingNode, rome: SharingNode) -> None:
        fork = await asyncio.to_thread(fork_dataset, oslo.lake, "trips", "mine")
        origin = ForkOrigin(dataset_of(oslo), "trips", 2)
        oslo.share("mine", rome)
        await network.until(lambda: "mine" in rome.names())
        assert rome.exchange.origins() == {fork.id: origin}
        await oslo.exchange.giver.offer(fork.id, rome.id)
        await rome.exchange.taker.accept(fork.id, "anna")
        await network.until(lambda: rome.lake.catalog.get("mine").node is None)
        assert rome.lake.storage.forks.get(fork.id) == origin
        rome.append("mine", 3)
        await network.until(lambda: oslo.lake.catalog.get("mine").node == rome.id)
        assert oslo.exchange.origins() == {fork.id: origin}

    run(tmp_path, "oslo rome", test)


def own_moved(node: SharingNode) -> list[str]:
    return [dataset for key, dataset, _ in node.logs.items() if key.publisher == node.id]


def test_a_stopped_giver_that_starts_again_keeps_its_dataset(tmp_path: Path) -> None:
    async def test(network: SharingNetwork, oslo: SharingNode, rome: SharingNode) -> None:
        with network.node("bern") as bern:
            bern.append("plans", 1)
            dataset = bern.share("plans", oslo)
            await network.until(lambda: "plans" in oslo.names())
            # So that Oslo has a log here, in which `plans` is missing.
            oslo.share("trips", rome, bern)
            await network.until(lambda: "trips" in bern.names())
            await bern.exchange.giver.offer(dataset, oslo.id)
            head = bern.lake.catalog.adopter.newest_manifests(dataset, 1)[0]
            await oslo.ask(bern, HandOverRequest(dataset, head))
        with network.node("bern") as bern:
            await bern.exchange.start()
            await network.run(rounds=4)
            assert bern.has_all("plans")
            assert oslo.names() == {"trips", "plans"}
            # Nor are its shards taken for surplus copies.
            bern.parts.copies.drop(bern.shards("plans"))
            assert bern.has_all("plans")
            bern.parts.leave()
            assert bern.has_all("plans")
            assert bern.lake.catalog.get("plans").node is None
            await bern.exchange.end()

    run(tmp_path, "oslo rome", test)


def test_a_giver_restored_from_a_backup_yields_unless_it_has_made_versions(tmp_path: Path) -> None:
    async def test(network: SharingNetwork, oslo: SharingNode, rome: SharingNode) -> None:
        dataset = dataset_of(oslo)
        await hand_over(network, oslo, rome)
        await network.until(lambda: state(oslo) == SETTLED)
        rome.append("trips", 3)
        await network.until(lambda: rows_known(oslo) == 3)
        # As in the backup: it writes, and knows of no hand-over.
        catalog = oslo.lake.catalog

        def restore() -> None:
            oslo.parts.handovers.remove(dataset)
            info = catalog.get(dataset)
            with catalog.writing():
                catalog.adopter.put(replace(info, node=None))
            oslo.share("trips", rome)

        restore()
        oslo.exchange._adoption.expect(rome.id, dataset)
        await network.until(lambda: not writes(oslo))
        assert len(oslo.parts.handovers.get(dataset).chain) == 1
        assert oslo.shares.get(dataset) is None
        restore()
        oslo.append("trips", 9)
        oslo.exchange._adoption.expect(rome.id, dataset)
        await network.run(rounds=3)
        assert writes(oslo)
        assert sorted(rows(oslo)) == [1, 2, 3, 9]
        assert not writes(rome) or rows_known(rome) == 3

    run(tmp_path, "oslo rome", test)


def test_a_dataset_whose_files_are_kept_is_not_handed_over(tmp_path: Path) -> None:
    async def test(network: SharingNetwork, oslo: SharingNode, rome: SharingNode) -> None:
        catalog = oslo.lake.catalog
        newest = catalog.manifest("trips")
        kept = replace(newest.snapshot.shards[0], source_object=newest.snapshot.shards[1].object)
        snapshot = replace(newest.snapshot, id=new_id(), parent=newest.snapshot.id, shards=(kept,))
        catalog.commit(
            catalog.get("trips"), replace(newest, snapshot=snapshot),
            expected_head=newest.snapshot.id,
        )  # fmt: skip
        with pytest.raises(Unsupported, match="files that it was loaded from"):
            await oslo.exchange.giver.offer(dataset_of(oslo), rome.id)
        assert state(oslo) == SETTLED

    run(tmp_path, "oslo rome", test)


def test_a_network_with_a_node_of_an_earlier_version_is_refused(tmp_path: Path) -> None:
    async def test(network: SharingNetwork, oslo: SharingNode, rome: SharingNode) -> None:
        peer = oslo.members.peers[rome.id]
        peer.status = replace(peer.status, features=())
        with pytest.raises(Unsupported, match="earlier version: rome"):
            await oslo.exchange.giver.offer(dataset_of(oslo), rome.id)

    run(tmp_path, "oslo rome", test)


def test_a_damaged_row_withdraws_nothing(tmp_path: Path) -> None:
    async def test(network: SharingNetwork, oslo: SharingNode, rome: SharingNode) -> None:
        dataset = dataset_of(oslo)
        await hand_over(network, oslo, rome)
        await network.until(lambda: state(oslo) == SETTLED)
        await network.run(rounds=2)
        assert dataset in own_moved(oslo)
        oslo.lake.tree.set(f"/peers/handovers/{dataset}/state", "offered")
        oslo.append("plans", 1)
        oslo.share("plans", rome)
        await network.until(lambda: "plans" in rome.names())
        assert dataset in own_moved(oslo)
        assert oslo.parts.handovers.needs_all(dataset)

    run(tmp_path, "oslo rome", test)


async def survives(
    folder: Path, crash: tuple[str, int, bool] | None, lose: Callable[[int], str] = lambda _: ""
) -> bool:
    """Hand over with a crash; return whether there was one."""
    world = HandOverWorld(folder, lose)
    try:
        return await _survives(world, crash)
    finally:
        for name in list(world.nodes):
            await world.close(name)


async def _survives(world: HandOverWorld, crash: tuple[str, int, bool] | None) -> bool:
    oslo, rome = await world.open("oslo"), await world.open("rome")
    crashing = None
    oslo.append("trips", 0)
    world.acknowledged.add(0)
    oslo.share("trips", rome)
    await world.network.until(lambda: "trips" in rome.names())
    if crash is not None:
        crashing = CrashingTree(world.nodes[crash[0]], crash[1], is_after=crash[2])
    is_reopened = False
    for row in range(1, 60):
        await world.ask()
        if row <= 6:  # so that the giver has to stop
            world.commit(row)
        with suppress(Crash):
            await world.network.run()
        if crashing is not None and crashing.has_crashed and not is_reopened:
            assert crash is not None
            await world.close(crash[0])
            await world.open(crash[0])
            is_reopened = True
        oslo, rome = world.nodes["oslo"], world.nodes["rome"]
        assert not (writes(oslo) and writes(rome))
        if row > 6 and writes(rome) and state(oslo) == SETTLED:
            break
    else:
        raise AssertionError("it was not completed")
    world.commit(100)
    assert writes(rome)
    assert 100 in world.acknowledged
    assert set(rows(rome)) == world.acknowledged
    return is_reopened


@pytest.mark.sample(4)
@pytest.mark.slow
@pytest.mark.parametrize("is_after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize(("name", "number"), [
    ("oslo", 1), ("oslo", 2), ("oslo", 3), ("oslo", 4), ("rome", 1), ("rome", 2),
])  # fmt: skip
def test_it_is_completed_after_a_crash_at_any_write(
    tmp_path: Path, name: str, number: int, is_after: bool
) -> None:
    # Starts of real lakes, which take their time.
    assert asyncio.run(survives(tmp_path, (name, number, is_after)))


@pytest.mark.slow
@pytest.mark.parametrize("fate", ["lost", "twice", "unanswered"])
@pytest.mark.parametrize("number", [1, 2, 3])
def test_it_is_completed_whatever_message_is_lost(tmp_path: Path, fate: str, number: int) -> None:
    # Starts of real lakes, which take their time.
    asyncio.run(survives(tmp_path, None, lambda each: fate if each == number else ""))
