"""What a node shares, adopts, sends and keeps: real lakes and machines, without connections."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from lake.peers.copies.chunks import Chunk, ChunkRequest, ListRequest
from lake.peers.copies.have_messages import HaveRequest
from lake.peers.copies.transfers import at_most
from lake.peers.queries.fragments import (
    FragmentPiece,
    FragmentRequest,
    FragmentTable,
    serve_fragment,
)
from lake.peers.sharing import adoption
from lake.peers.sharing.publications import EVERYONE, LogKey
from lake.peers.transport.limits import Slots
from lake.peers.transport.machine import Failed, Replied
from lake.peers.transport.session import Piece
from sennit_core.errors import Busy, NotFound, Unavailable
from sennit_core.hashing import CHUNK_BYTES
from sennit_core.records import DatasetInfo

from .peers_exchange import Peer, SharingNetwork, SharingNode

Test = Callable[..., Coroutine[Any, Any, None]]


def run(folder: Path, names: str, test: Test) -> None:
    """Run a test with a network and nodes of some names."""

    async def all_of_it() -> None:
        network = SharingNetwork(folder)
        with ExitStack() as stack:
            nodes = [stack.enter_context(network.node(name)) for name in names.split()]
            for node in nodes:
                await node.exchange.start()
            await test(network, *nodes)
            for node in nodes:
                await node.exchange.end()

    asyncio.run(all_of_it())


def own_items(node: SharingNode, audience: str = EVERYONE) -> set[str]:
    return {dataset for key, dataset, _ in node.logs.items() if key == LogKey(node.id, audience)}


async def can_get(asking: SharingNode, holder: SharingNode, dataset: str, name: str) -> bool:
    """Return whether a node gets an object of a dataset from another; all requests must agree."""
    found = [
        isinstance(await asking.ask(holder, ListRequest(name, dataset)), Replied),
        isinstance(await asking.ask(holder, ChunkRequest(name, 0, dataset)), Replied),
        await claims(asking, holder, dataset, name),
    ]
    assert len(set(found)) == 1
    return found[0]


async def claims(asking: SharingNode, holder: SharingNode, dataset: str, name: str) -> bool:
    reply = await asking.ask(holder, HaveRequest.of([(dataset, name)]))
    assert isinstance(reply, Replied)
    return reply.body == b"\x01"


# Who reads


def test_all_are_the_members_of_now(tmp_path: Path) -> None:
    async def test(network: SharingNetwork, oslo: SharingNode, rome: SharingNode) -> None:
        shard = oslo.append("trips", 1, 2)
        dataset = oslo.share("trips")
        await network.until(lambda: "trips" in rome.names())
        with network.node("bern") as bern:
            await network.until(lambda: "trips" in bern.names())
            await bern.exchange.fetch([shard])
            assert bern.has_all("trips")
            assert await can_get(rome, oslo, dataset, shard)
            network.revoke(rome)
            assert not oslo.exchange._index.may_send(rome.id, dataset, shard)

    run(tmp_path, "oslo rome", test)


# Publishing


def test_a_share_that_is_narrowed_is_withdrawn_from_the_others(tmp_path: Path) -> None:
    async def test(
        network: SharingNetwork, oslo: SharingNode, rome: SharingNode, bern: SharingNode
    ) -> None:
        oslo.append("trips", 1)
        dataset = oslo.share("trips", copies=3)
        await network.until(
            lambda: rome.names() == bern.names() == {"trips"} and rome.has_all("trips")
        )
        oslo.share("trips", rome, copies=3)
        await network.until(lambda: bern.names() == set())
        assert own_items(oslo) == set()
        assert own_items(oslo, rome.id) == {dataset}
        await network.run(rounds=3)
        assert rome.names() == {"trips"}
        assert rome.has_all("trips")

    run(tmp_path, "oslo rome bern", test)


def test_a_dataset_that_moves_to_another_log_is_never_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def test(network: SharingNetwork, oslo: SharingNode, rome: SharingNode) -> None:
        oslo.append("trips", 1)
        oslo.share("trips")
        await network.until(lambda: "trips" in rome.names())
        forgotten: list[str] = []
        delete = rome.parts.retention.delete_dataset

        def noted(dataset: str) -> DatasetInfo:
            forgotten.append(dataset)
            return delete(dataset)

        monkeypatch.setattr(rome.parts.retention, "delete_dataset", noted)
        for nodes in ((rome,), (), (rome,)):
            oslo.share("trips", *nodes)
            await network.run(rounds=3)
        assert forgotten == []
        assert "trips" in rome.names()

    run(tmp_path, "oslo rome", test)


def test_a_withdrawal_is_not_lost_when_the_node_stops(tmp_path: Path) -> None:
    async def test(network: SharingNetwork, oslo: SharingNode) -> None:
        oslo.append("trips", 1)
        with network.node("rome") as rome:
            dataset = rome.append("plans", 1) and rome.share("plans")
            await network.until(lambda: "plans" in oslo.names())
            rome.shares.remove("plans")  # and it stops before the next look
        with network.node("rome") as rome:
            await network.until(lambda: "plans" not in oslo.names())
            assert dataset not in own_items(rome)

    run(tmp_path, "oslo", test)


def test_a_damaged_dataset_stays_published_and_holds_up_no_other(tmp_path: Path) -> None:
    async def test(network: SharingNetwork, oslo: SharingNode) -> None:
        with network.node("rome") as rome:
            for name in ("damaged", "other", "new"):
                rome.append(name, 1)
            damaged, other = rome.share("damaged"), rome.share("other")
            await network.until(lambda: oslo.names() == {"damaged", "other"})
            row = rome.lake.tree.get(f"/datasets/{damaged}")
            rome.lake.tree.set(f"/datasets/{damaged}", {**row, "name": "demaged"})
            rome.shares.remove("other")
            new = rome.share("new")
            await network.until(lambda: oslo.names() == {"damaged", "new"})
            assert own_items(rome) == {damaged, new} != {damaged, other}

    run(tmp_path, "oslo", test)


def test_what_is_published_is_not_published_again(tmp_path: Path) -> None:
    async def test(network: SharingNetwork, oslo: SharingNode) -> None:
        oslo.append("trips", 1)
        oslo.share("trips")
        await network.run(rounds=5)
        assert oslo.logs.logs[LogKey(oslo.id)].number == 1

    run(tmp_path, "oslo", test)


def test_after_leaving_nothing_is_shared_and_nothing_of_others_is_here(tmp_path: Path) -> None:
    async def test(network: SharingNetwork, oslo: SharingNode, rome: SharingNode) -> None:
        shard = oslo.append("trips", 1, 2)
        oslo.share("trips", copies=2)
        rome.append("plans", 7)
        rome.share("plans")
        await network.until(lambda: "trips" in rome.names() and rome.has_all("trips"))
        rome.parts.leave()
        assert rome.names() == {"plans"}
        assert rome.shares.all() == {}
        assert shard not in rome.lake.objects
        assert rome.has_all("plans")

    run(tmp_path, "oslo rome", test)


# Adopting


def test_a_dataset_of_a_node_that_is_away_is_adopted_when_it_is_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def test(network: SharingNetwork, oslo: SharingNode, rome: SharingNode) -> None:
        oslo.append("trips", 1)
        oslo.share("trips")
        monkeypatch.setattr(oslo, "serve", refuse)
        await network.run(rounds=5)
        assert rome.names() == set()
        assert own_items(oslo)
        monkeypatch.undo()
        await network.until(lambda: rome.names() == {"trips"})

    run(tmp_path, "oslo rome", test)


async def refuse(_peer: str, _message: object) -> None:
    raise Unavailable("the disk")


def test_what_a_crash_has_interrupted_is_adopted_at_the_start(tmp_path: Path) -> None:
    async def test(network: SharingNetwork, oslo: SharingNode) -> None:
        with network.node("rome") as rome:
            oslo.append("trips", 1)
            oslo.share("trips")
            rome.exchange._adoption.expect = lambda *_: None  # type: ignore[method-assign]
            await network.run(rounds=5)
            assert rome.names() == set()
        with network.node("rome") as rome:
            await rome.exchange.start()
            await network.until(lambda: rome.names() == {"trips"})

    run(tmp_path, "oslo", test)


@pytest.mark.parametrize("is_damaged", [False, True])
def test_what_no_log_publishes_is_forgotten_at_the_start(
    tmp_path: Path, *, is_damaged: bool
) -> None:
    async def test(network: SharingNetwork, oslo: SharingNode) -> None:
        with network.node("rome") as rome:
            oslo.append("trips", 1)
            oslo.share("trips")
            await network.until(lambda: rome.names() == {"trips"})
            # The withdrawal is stored, and then the process ends.
            rome.exchange._adoption.expect = lambda *_: None  # type: ignore[method-assign]
            oslo.shares.remove("trips")
            await network.until(lambda: not rome.logs.logs[LogKey(oslo.id)].items)
            if is_damaged:
                path = f"/peers/logs/{oslo.id}_all"
                [key, *_] = rome.lake.tree.keys(path)
                rome.lake.tree.set(f"{path}/{key}/text", "{}")
        network.away.add(oslo.id)
        with network.node("rome") as rome:
            await rome.exchange.start()
            await network.run(rounds=5)
            # A log that cannot be read does not say that the dataset was withdrawn.
            assert rome.names() == ({"trips"} if is_damaged else set())

    run(tmp_path, "oslo", test)


def test_a_node_is_no_more_than_so_many_datasets_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A writer refuses to share more; another program may publish as many as fit into its log."""
    monkeypatch.setattr(adoption, "_OF_NODE_MAX", 2)

    async def test(network: SharingNetwork, oslo: SharingNode, rome: SharingNode) -> None:
        for number in range(3):
            oslo.append(f"d{number}", number)
            oslo.share(f"d{number}")
        await network.until(lambda: len(rome.names()) == 2)
        await network.run(rounds=5)
        assert len(rome.names()) == 2

    run(tmp_path, "oslo rome", test)


def test_what_is_listed_can_be_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def test(network: SharingNetwork, oslo: SharingNode, rome: SharingNode) -> None:
        shard = oslo.append("trips", 1)
        adopt, known = rome.lake.catalog.adopt, []

        def noted(*arguments: Any) -> None:
            known.append(rome.exchange._index.named(shard))  # when the row appears
            adopt(*arguments)

        monkeypatch.setattr(rome.lake.catalog, "adopt", noted)
        oslo.share("trips")
        await network.until(lambda: rome.names() == {"trips"})
        assert [len(each) for each in known] == [1]

    run(tmp_path, "oslo rome", test)


def test_a_slow_publisher_delays_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def test(
        network: SharingNetwork, oslo: SharingNode, rome: SharingNode, bern: SharingNode
    ) -> None:
        stopped = asyncio.Event()

        async def wait(_peer: str, _message: object) -> None:
            await stopped.wait()

        oslo.append("slow", 1)
        oslo.share("slow")
        monkeypatch.setattr(oslo, "serve", wait)
        bern.append("trips", 1)
        bern.share("trips")
        await network.until(lambda: rome.names() == {"trips"})
        stopped.set()

    run(tmp_path, "oslo rome bern", test)


# What is sent


def test_a_manifest_of_another_node_opens_no_private_object(tmp_path: Path) -> None:
    async def test(network: SharingNetwork, oslo: SharingNode, rome: SharingNode) -> None:
        secret = oslo.append("secret", 42)
        shared = oslo.append("trips", 1)
        trips = oslo.share("trips", rome)
        rome.commit("bait", secret)
        bait = rome.share("bait", copies=2)
        await network.until(lambda: "bait" in oslo.names() and "trips" in rome.names())
        await network.run(rounds=5)
        assert not await can_get(rome, oslo, bait, secret)
        assert not await can_get(rome, oslo, trips, secret)
        assert not await can_get(rome, oslo, oslo.lake.catalog.get("secret").id, secret)
        assert not await can_get(rome, oslo, "", secret)
        assert await can_get(rome, oslo, trips, shared)
        assert await can_get(rome, oslo, "", shared)  # as a node of an earlier version asks

    run(tmp_path, "oslo rome", test)


def test_a_manifest_opens_no_object_that_another_node_shares_with_this_one_alone(
    tmp_path: Path,
) -> None:
    async def test(
        network: SharingNetwork, oslo: SharingNode, rome: SharingNode, bern: SharingNode
    ) -> None:
        secret = oslo.append("secret", 42)
        oslo.share("secret", bern, copies=2)
        rome.commit("bait", secret)
        bait = rome.share("bait", copies=3)
        await network.until(lambda: bern.names() == {"secret", "bait"} and bern.has_all("secret"))
        await network.run(rounds=5)
        assert not await can_get(rome, bern, bait, secret)
        assert secret not in rome.lake.objects

    run(tmp_path, "oslo rome bern", test)


def test_an_equal_object_of_a_private_dataset_is_fetched_once_and_then_sent(tmp_path: Path) -> None:
    async def test(
        network: SharingNetwork, oslo: SharingNode, rome: SharingNode, bern: SharingNode
    ) -> None:
        shard = oslo.append("trips", 1, 2)
        rome.commit("mine", shard)
        rome.lake.objects.put_bytes(b"".join(oslo.lake.objects.read(shard)))
        dataset = oslo.share("trips", copies=2)
        rome.parts.copies.held.refresh()
        holders = {rome.id, bern.id}
        await network.until(lambda: holders & set(oslo.exchange.holders(shard)))
        [holder] = holders & set(oslo.exchange.holders(shard))
        node = rome if holder == rome.id else bern
        assert await can_get(bern if node is rome else rome, node, dataset, shard)

    run(tmp_path, "oslo rome bern", test)


def test_received_objects_are_known_after_a_restart(tmp_path: Path) -> None:
    async def test(network: SharingNetwork, oslo: SharingNode, bern: SharingNode) -> None:
        shard = oslo.append("trips", 1, 2)
        dataset = oslo.share("trips", copies=3)
        with network.node("rome") as rome:
            await network.until(lambda: "trips" in rome.names() and rome.has_all("trips"))
        with network.node("rome") as rome:
            await rome.exchange.start()
            network.away.add(oslo.id)
            await network.run(rounds=3)
            assert await can_get(bern, rome, dataset, shard)

    run(tmp_path, "oslo bern", test)


@pytest.mark.parametrize("by_name", [False, True])
def test_a_fragment_reads_no_dataset_that_is_not_shared(tmp_path: Path, *, by_name: bool) -> None:
    async def test(network: SharingNetwork, oslo: SharingNode, rome: SharingNode) -> None:
        oslo.append("secret", 42)
        oslo.append("trips", 1)
        oslo.share("trips")
        await network.run()
        info = oslo.lake.catalog.get("secret")
        assert info.head is not None
        table = FragmentTable("t", "secret" if by_name else info.id, info.head, ())
        assert await pieces(oslo, rome, table) is None
        shared = oslo.lake.catalog.get("trips")
        assert shared.head is not None
        trips = FragmentTable("t", shared.id, shared.head, ())
        assert await pieces(oslo, rome, trips) == [b"rows"]
        assert await pieces(oslo, rome, trips, replace(table, name="s")) is None
        assert await pieces(oslo, rome, FragmentTable("t", shared.id, info.head, ())) is None

    run(tmp_path, "oslo rome", test)


class Runner:
    def run(self, _request: FragmentRequest, _stop: object, _body: bytes) -> list[bytes]:
        return [b"rows"]


async def pieces(
    node: SharingNode, peer: SharingNode, *tables: FragmentTable
) -> list[bytes] | None:
    request = FragmentRequest("SELECT 1", tables, "ann", 5.0)
    served = serve_fragment(Runner(), node.exchange._index, Peer(peer.id), request, b"")  # type: ignore[arg-type]
    try:
        return [bytes(body) async for _, body in served]
    except NotFound:
        return None


# Room


def test_a_peer_that_reads_nothing_leaves_room_for_parts_of_others(tmp_path: Path) -> None:
    async def pieces() -> AsyncGenerator[Piece, None]:
        yield FragmentPiece(), b""

    async def test(_network: SharingNetwork, oslo: SharingNode) -> None:
        exchange = oslo.exchange
        exchange._fragments = Slots("parts", of_peer=1)
        slow = exchange._limited("a", pieces())
        await anext(slow)
        with pytest.raises(Busy):
            await anext(exchange._limited("a", pieces()))
        assert await anext(exchange._limited("b", pieces())) == (FragmentPiece(), b"")
        await slow.aclose()
        await anext(exchange._limited("a", pieces()))

    run(tmp_path, "oslo", test)


def test_all_versions_and_unfinished_files_count_as_copies(tmp_path: Path) -> None:
    async def test(network: SharingNetwork, oslo: SharingNode, rome: SharingNode) -> None:
        first = oslo.append("trips", 1, 2)
        oslo.share("trips", copies=2)
        await network.until(lambda: "trips" in rome.names() and rome.has_all("trips"))
        second = oslo.replace("trips", 5)
        await network.until(lambda: second in rome.lake.objects)
        unfinished = rome.lake.folder / "lake" / "incoming-copies" / "unfinished"
        unfinished.write_bytes(bytes(1000))
        await network.run(rounds=10)
        sizes = [rome.lake.objects.path(each).stat().st_size for each in (first, second)]
        assert rome.exchange.copied_bytes == sum(sizes) + 1000

    run(tmp_path, "oslo rome", test)


def test_a_failed_request_is_not_found(tmp_path: Path) -> None:
    async def test(_network: SharingNetwork, oslo: SharingNode, rome: SharingNode) -> None:
        reply = await rome.ask(oslo, ListRequest("a" * 64, ""))
        assert isinstance(reply, Failed)
        assert reply.code == "not-found"

    run(tmp_path, "oslo rome", test)


def test_what_nobody_waits_for_any_more_is_forgotten(tmp_path: Path) -> None:
    async def test(network: SharingNetwork, oslo: SharingNode, rome: SharingNode) -> None:
        shard = oslo.append("trips", 1)
        dataset = oslo.share("trips")
        await network.until(lambda: "trips" in rome.names())
        downloads = rome.exchange._downloads
        two = [
            asyncio.create_task(downloads.obtain(dataset, shard, [oslo.id], at_most(1 << 20)))
            for _ in range(2)
        ]
        await asyncio.sleep(0)
        assert len(downloads._waiting[dataset, shard]) == 2
        for task in two:
            task.cancel()
        await asyncio.wait(two)
        assert not downloads._waiting

    run(tmp_path, "oslo rome", test)


def test_a_copy_goes_on_where_it_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def test(network: SharingNetwork, oslo: SharingNode, rome: SharingNode) -> None:
        values = pa.array(memoryview(os.urandom(400_000 * 8)).cast("q"))
        oslo.lake.append("big", pa.table({"id": values}))
        dataset = oslo.share("big", copies=1)
        await network.until(lambda: "big" in rome.names())
        [shard] = oslo.shards("big")
        data = b"".join(oslo.lake.objects.read(shard))
        place = rome.lake.folder / "lake" / "incoming-copies" / f"{shard}.{dataset}"
        place.write_bytes(data[: 2 * CHUNK_BYTES])
        asked: list[int] = []
        send = oslo.parts.copies.chunk

        def chunk(request: ChunkRequest) -> tuple[Chunk, bytes]:
            asked.append(request.index)
            return send(request)

        monkeypatch.setattr(oslo.parts.copies, "chunk", chunk)
        oslo.share("big", copies=2)
        await network.until(lambda: rome.has_all("big"))
        assert sorted(asked) == list(range(2, -(-len(data) // CHUNK_BYTES)))
        assert list(place.parent.iterdir()) == []

    run(tmp_path, "oslo rome", test)


def test_lists_and_their_summaries_are_adopted(tmp_path: Path) -> None:
    async def test(network: SharingNetwork, oslo: SharingNode, rome: SharingNode) -> None:
        oslo.commit("big", *(f"{number:064x}" for number in range(400)))
        oslo.share("big")
        await network.until(lambda: rome.names() == {"big"})
        stored = rome.lake.catalog.stored_manifest("big")
        assert len(stored.list_objects) == 2
        assert all(name in rome.lake.objects for name in stored.list_objects)

    run(tmp_path, "oslo rome", test)


# Versions that the writer has no more


def test_a_version_that_the_writer_has_expired_is_gone_for_readers(tmp_path: Path) -> None:
    async def test(network: SharingNetwork, oslo: SharingNode, rome: SharingNode) -> None:
        old = oslo.append("trips", 1)
        oslo.share("trips", copies=2)
        await network.until(lambda: "trips" in rome.names() and rome.has_all("trips"))
        new = oslo.replace("trips", 2)
        await network.until(lambda: new in rome.lake.objects)
        assert old in rome.lake.objects
        oslo.lake.expire("trips", keep=1)
        await network.until(lambda: old not in rome.lake.objects)
        assert [m.snapshot.version for m in rome.lake.catalog.snapshots("trips")] == [2]
        with pytest.raises(NotFound, match="version"):
            rome.lake.catalog.manifest_at("trips", version=1)

    run(tmp_path, "oslo rome", test)


def test_rows_that_the_writer_has_purged_are_gone_for_readers(tmp_path: Path) -> None:
    async def test(network: SharingNetwork, oslo: SharingNode, rome: SharingNode) -> None:
        first, second = oslo.append("trips", 1), oslo.append("trips", 2)
        dataset = oslo.share("trips", copies=2)
        await network.until(lambda: "trips" in rome.names() and rome.has_all("trips"))
        oslo.forget_shard("trips", first)  # as a purge does: the snapshots keep their ids
        await network.until(lambda: first not in rome.lake.objects)
        await network.until(lambda: second in rome.lake.objects)
        assert rome.shards("trips") == [second]
        assert len(rome.lake.catalog.snapshots("trips")) == 1
        assert rome.exchange._index.get(dataset) is not None

    run(tmp_path, "oslo rome", test)


def test_a_version_that_was_just_published_is_sent_though_many_are_newer(tmp_path: Path) -> None:
    async def test(network: SharingNetwork, oslo: SharingNode, rome: SharingNode) -> None:
        shard = oslo.append("trips", 0)
        dataset = oslo.share("trips")
        await network.until(lambda: "trips" in rome.names())
        for number in range(1, 10):
            oslo.replace("trips", number)
        await network.run(rounds=2)
        assert len(oslo.lake.catalog.snapshots("trips")) == 10
        assert await can_get(rome, oslo, dataset, shard)

    run(tmp_path, "oslo rome", test)


def test_a_shard_that_its_writer_has_no_more_says_so(tmp_path: Path) -> None:
    async def test(network: SharingNetwork, oslo: SharingNode, rome: SharingNode) -> None:
        shard = oslo.append("trips", 1)
        oslo.share("trips")
        await network.until(lambda: "trips" in rome.names())
        oslo.lake.objects.delete(shard)
        with pytest.raises(Unavailable) as caught:
            await rome.exchange.fetch([shard])
        assert "have them no more" in (caught.value.hint or "")
        network.away.add(oslo.id)
        rome.members.forget(oslo.id)
        with pytest.raises(Unavailable) as caught:
            await rome.exchange.fetch([shard])
        assert "can be reached" in (caught.value.hint or "")

    run(tmp_path, "oslo rome", test)
