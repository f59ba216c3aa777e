"""Copies of shared datasets from bundles: real lakes and machines, without connections."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Collection, Coroutine
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from lake import Lake
from lake.bundles import (
    Bundle,
    BundleReport,
    ExportRequest,
    ImportRequest,
    export_bundle,
    import_bundle,
)
from lake.bundles import format as bundle_format
from lake.bundles.format import BundleDataset, BundleHead, BundleWriter
from lake.distributed.forks import fork_dataset
from lake.peers.copies.chunks import ChunkRequest, ListRequest
from lake.peers.copies.placement import Placement
from lake.peers.sharing import seeding
from lake.peers.sharing.seeding import Seeder
from lake.peers.transport.machine import Call, Failed, Replied
from lake.statements.limits import Requester
from sennit_core.errors import Conflict, Corrupt, Denied, SennitError, StorageFull, Unavailable
from sennit_core.ids import new_id
from sennit_core.records import ShardInfo

from .peers_exchange import SharingNetwork, SharingNode

PASSPHRASE = "correct horse battery"


@pytest.fixture(autouse=True)
def _cheap_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    """Derive keys by one hash instead of scrypt."""
    monkeypatch.setattr(
        bundle_format, "_key_of", lambda p, salt: hashlib.sha256(p.encode() + salt).digest()
    )


def run(folder: Path, names: str, test: Callable[..., Coroutine[Any, Any, None]]) -> None:
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


def exported(node: SharingNode, file: Path, *names: str) -> Path:
    node.lake.remote.was_received = node.parts.copies.held.was_received
    list(export_bundle(node.lake, ExportRequest(names, file, PASSPHRASE, Requester())))
    return file


async def imported(network: SharingNetwork, node: SharingNode, file: Path) -> BundleReport:
    """Import a bundle in a thread, as the route does, while time passes for the network."""
    loop = asyncio.get_running_loop()
    seeder = Seeder(lambda work: asyncio.run_coroutine_threadsafe(work, loop), lambda: node)
    request = ImportRequest(file, PASSPHRASE, "ann")
    work = asyncio.create_task(
        asyncio.to_thread(lambda: list(import_bundle(node.lake, request, seeder)))
    )
    while not work.done():
        await network.run()
        await asyncio.wait((work,), timeout=0.01)
    return work.result()[-1]


def answer_by(
    node: SharingNode, call: Callable[[Call], Coroutine[Any, Any, Replied | Failed]]
) -> None:
    """Replace how a node calls others; `del node.call` ends it."""
    vars(node)["call"] = call


def without_transfers(node: SharingNode) -> list[str]:
    """Let no object reach a node; return the ids that it asks for."""
    asked: list[str] = []
    call = node.call

    async def refuse(request: Call) -> Replied | Failed:
        if isinstance(request.message, ListRequest | ChunkRequest):
            asked.append(request.message.object)
            return Failed(request.id, "unavailable", "the line is too slow")
        return await call(request)

    answer_by(node, refuse)
    return asked


def test_a_bundle_makes_a_copy_without_a_transfer(tmp_path: Path) -> None:
    async def test(
        network: SharingNetwork, oslo: SharingNode, rome: SharingNode, bern: SharingNode
    ) -> None:
        asked = without_transfers(rome)
        shard = oslo.append("trips", 1, 2)
        dataset = oslo.share("trips", copies=3)
        await network.until(lambda: asked)  # the manifest, in vain
        assert rome.names() == set()

        report = await imported(network, rome, exported(oslo, tmp_path / "b", "trips"))

        assert (report.seeded, report.datasets, report.node) == (True, ("trips",), oslo.id)
        assert rome.lake.catalog.get("trips").node == oslo.id
        assert rome.has_all("trips")
        assert shard not in asked
        # It counts as a copy for others.
        await network.until(lambda: bern.has_all("trips") if "trips" in bern.names() else False)
        reply = await bern.ask(rome, ChunkRequest(shard, 0, dataset))
        assert isinstance(reply, Replied)
        assert rome.lake.sql("SELECT sum(id) FROM trips").value == 3
        # And a node that has only copies can export them.
        with Bundle(exported(rome, tmp_path / "c", "trips"), PASSPHRASE) as bundle:
            assert bundle.node == rome.id
            assert shard in bundle

    run(tmp_path, "oslo rome bern", test)


def test_what_is_of_an_older_version_is_used_for_the_newer_one(tmp_path: Path) -> None:
    async def test(network: SharingNetwork, oslo: SharingNode, rome: SharingNode) -> None:
        shard = oslo.append("trips", 1)
        file = exported(oslo, tmp_path / "b", "trips")
        for row in range(2, 12):  # more versions than readers have
            oslo.append("trips", row)
        asked: list[str] = []
        call = rome.call

        async def only_metadata(request: Call) -> Replied | Failed:
            if isinstance(request.message, ListRequest) and request.message.object in set(
                oslo.shards("trips")
            ):
                asked.append(request.message.object)
                return Failed(request.id, "unavailable", "the line is too slow")
            return await call(request)

        answer_by(rome, only_metadata)
        dataset = oslo.share("trips", copies=2)
        await network.until(lambda: "trips" in rome.names())
        await imported(network, rome, file)
        held = rome.parts.copies.held
        assert held.was_received(dataset, shard)
        assert rome.lake.catalog.manifest("trips").snapshot.version == 11
        # The old manifest is of no version that is here, and gone.
        with Bundle(file, PASSPHRASE) as bundle:
            assert [name for name in bundle if name in rome.lake.objects] == [shard]

    run(tmp_path, "oslo rome", test)


def test_only_what_is_shared_with_a_node_is_imported(tmp_path: Path) -> None:
    async def test(
        network: SharingNetwork, oslo: SharingNode, rome: SharingNode, bern: SharingNode
    ) -> None:
        without_transfers(rome)
        oslo.append("trips", 1)
        oslo.append("plans", 2)
        file = exported(oslo, tmp_path / "b", "trips", "plans")
        oslo.share("trips", copies=3)
        oslo.share("plans", bern, copies=3)
        await network.until(lambda: bern.names() == {"trips", "plans"})
        with pytest.raises(Denied, match="'plans', which is not shared with this node"):
            await imported(network, rome, file)
        oslo.share("plans", rome, bern, copies=1)
        await network.run(rounds=4)
        with pytest.raises(Conflict, match="would drop them"):
            await imported(network, rome, file)
        with pytest.raises(Conflict, match="this node writes"):
            await imported(network, oslo, exported(bern, tmp_path / "c", "trips"))
        rome.members.own = replace(rome.members.own, capacity=10)
        oslo.share("plans", rome, bern, copies=3)
        await network.run(rounds=4)
        with pytest.raises(StorageFull, match="offers for copies"):
            await imported(network, rome, file)
        assert list(rome.lake.objects) == []

    run(tmp_path, "oslo rome bern", test)


def test_a_bundle_of_a_stranger_makes_datasets_of_ones_own(tmp_path: Path) -> None:
    async def test(network: SharingNetwork, oslo: SharingNode, rome: SharingNode) -> None:
        rome.append("trips", 1)
        file = exported(rome, tmp_path / "b", "trips")
        network.revoke(rome)
        report = await imported(network, oslo, file)
        assert not report.seeded
        info = oslo.lake.catalog.get("trips")
        assert (info.node, info.owner) == (None, "ann")

    run(tmp_path, "oslo rome", test)


def test_a_version_that_is_newer_than_the_bundle_needs_its_writer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(seeding, "_LOOK_SECONDS", 0.01)
    monkeypatch.setattr(seeding, "_ADOPT_LOOKS", 5)

    async def test(network: SharingNetwork, oslo: SharingNode, rome: SharingNode) -> None:
        asked = without_transfers(rome)
        oslo.append("trips", 1)
        file = exported(oslo, tmp_path / "b", "trips")
        oslo.append("trips", 2)
        oslo.share("trips", copies=2)
        await network.until(lambda: asked)
        with pytest.raises(Unavailable, match="newest version") as raised:
            await imported(network, rome, file)
        assert "newer than the bundle" in str(raised.value.hint)
        assert rome.names() == set()
        assert list(rome.lake.objects) == []

    run(tmp_path, "oslo rome", test)


def forged(liar: Lake, file: Path, dataset: BundleDataset, objects: dict[str, bytes]) -> Path:
    """A bundle that a member has signed, with other bytes than the ids say."""
    with file.open("wb") as sink:
        writer = BundleWriter(sink.write, PASSPHRASE)
        sizes = {name: len(data) for name, data in objects.items()}
        head = BundleHead(1, (dataset,), 0, "", "", 1.0)
        writer.start(head, sizes, liar.storage.node_key)
        for name in sorted(objects):
            writer.write(objects[name])
        writer.finish()
    return file


def claim(oslo: SharingNode, dataset: str, name: str, size: int) -> str:
    """Let a writer commit a version that lists an object which it does not have; return its manifest."""
    catalog = oslo.lake.catalog
    newest = catalog.manifest(dataset)
    shards = (*newest.snapshot.shards, ShardInfo(name, 1, size, {}, {}))
    snapshot = replace(newest.snapshot, id=new_id(), parent=newest.snapshot.id, shards=shards)
    changed = replace(newest, snapshot=snapshot, created_at=newest.created_at + 1e-3)
    info = catalog.commit(catalog.get(dataset), changed, expected_head=newest.snapshot.id)
    assert info.head is not None
    return catalog.adopter.manifest_of(info, info.head)[0]


def test_a_bundle_makes_no_node_send_what_is_private(tmp_path: Path) -> None:
    """Its author knows the hash of an object, and not its content."""

    async def test(network: SharingNetwork, oslo: SharingNode, rome: SharingNode) -> None:
        private = rome.append("secret", 42)
        size = rome.lake.objects.path(private).stat().st_size
        oslo.append("trips", 1)
        manifest = claim(oslo, "trips", private, size)
        dataset = oslo.share("trips", copies=2)
        await network.until(lambda: "trips" in rome.names())
        info = oslo.lake.catalog.get("trips")
        with pytest.raises(SennitError):
            exported(oslo, tmp_path / "b", "trips")
        objects = {
            name: b"".join(oslo.lake.objects.read(name))
            for name in (manifest, oslo.shards("trips")[0])
        } | {private: bytes(size)}
        lie = BundleDataset(dataset, "trips", info.head or "", 2, manifest)
        with pytest.raises(Corrupt, match=private):
            await imported(network, rome, forged(oslo.lake, tmp_path / "lie", lie, objects))
        assert not rome.parts.copies.held.was_received(dataset, private)
        assert private in rome.lake.objects
        asked: list[tuple[set[str], str | None]] = []

        def fetch(names: Collection[str], /, *, dataset: str | None = None, **_: object) -> None:
            asked.append((set(names), dataset))
            raise Unavailable("a shard")

        rome.lake.remote.was_received = rome.parts.copies.held.was_received
        rome.lake.remote.fetch = fetch
        with pytest.raises(Unavailable):
            fork_dataset(rome.lake, "trips", "fork")  # which could be shared
        assert private in asked[0][0]
        assert asked[0][1] == dataset
        reply = await oslo.ask(rome, ChunkRequest(private, 0, dataset))
        assert isinstance(reply, Failed)

    run(tmp_path, "oslo rome", test)


def test_an_object_counts_for_the_dataset_of_which_the_bundle_has_it(tmp_path: Path) -> None:
    """An honest bundle of two datasets, one of whose writers lists an object of the other one."""

    async def test(
        network: SharingNetwork, oslo: SharingNode, rome: SharingNode, bern: SharingNode
    ) -> None:
        without_transfers(rome)
        oslo.append("trips", 1)
        trips = oslo.share("trips", copies=3)
        hidden = bern.append("plans", 42)
        plans = bern.shares.set("plans", [rome.id], Placement(2), read_only=True).dataset
        await network.until(lambda: "trips" in bern.names() and bern.has_all("trips"))
        file = exported(bern, tmp_path / "b", "trips", "plans")
        size = bern.lake.objects.path(hidden).stat().st_size
        claim(oslo, "trips", hidden, size)
        await network.until(lambda: bern.lake.catalog.get("trips").shards == 2)
        del rome.call  # the line is fast again: it adopts that version
        await network.until(lambda: "trips" in rome.names())
        assert hidden in rome.shards("trips")

        await imported(network, rome, file)

        held = rome.parts.copies.held
        assert held.was_received(plans, hidden)
        assert not held.was_received(trips, hidden)
        assert isinstance(await oslo.ask(rome, ChunkRequest(hidden, 0, trips)), Failed)

    run(tmp_path, "oslo rome bern", test)


def test_a_node_exports_no_object_that_it_was_not_sent(tmp_path: Path) -> None:
    async def test(network: SharingNetwork, oslo: SharingNode, rome: SharingNode) -> None:
        private = rome.append("secret", 42)
        size = rome.lake.objects.path(private).stat().st_size
        oslo.append("trips", 1)
        claim(oslo, "trips", private, size)
        oslo.share("trips", copies=2)
        await network.until(lambda: "trips" in rome.names() and rome.has_all("trips"))
        with pytest.raises(Unavailable, match="1 shards"):  # the others were sent
            exported(rome, tmp_path / "b", "trips")
        assert not (tmp_path / "b").exists()

    run(tmp_path, "oslo rome", test)


def test_a_lake_without_a_network_imports_what_it_exports(tmp_path: Path) -> None:
    """Such as a copy of a dataset that was deleted."""
    alone = Seeder(lambda _work: pytest.fail("there is no network"), lambda: None)
    with Lake(tmp_path / "lake", memory_bytes="256 MiB") as lake:
        lake.append("trips", pa.table({"id": [1]}))
        request = ExportRequest(("trips",), tmp_path / "b", PASSPHRASE, Requester())
        list(export_bundle(lake, request))
        lake.delete("trips")
        list(import_bundle(lake, ImportRequest(tmp_path / "b", PASSPHRASE), alone))
        assert lake.sql("SELECT id FROM trips").value == 1
