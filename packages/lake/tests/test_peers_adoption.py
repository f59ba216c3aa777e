"""What a node adopts of other nodes' datasets: in one write, within limits, and from its writer alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lake.access.rules import PolicyRule
from lake.peers.members.health import Contested
from lake.peers.sharing.metadata import MetadataLimits, MetadataUse
from sennit_core.errors import Denied, StorageFull

from .peers_exchange import SharingNetwork, SharingNode
from .test_peers_exchange import run


def test_only_the_writer_removes_versions_for_its_readers(tmp_path: Path) -> None:
    async def test(network: SharingNetwork, oslo: SharingNode, rome: SharingNode) -> None:
        oslo.append("trips", 1)
        oslo.append("trips", 2)
        oslo.share("trips", copies=2)
        await network.until(lambda: "trips" in rome.names() and rome.has_all("trips"))
        with pytest.raises(Denied, match="writes"):
            rome.lake.expire("trips", keep=1)

    run(tmp_path, "oslo rome", test)


def test_a_dataset_that_becomes_restricted_is_listed_anew_in_one_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def test(network: SharingNetwork, oslo: SharingNode, rome: SharingNode) -> None:
        shard = oslo.append("trips", 1)
        dataset = oslo.share("trips", copies=2)
        await network.until(lambda: "trips" in rome.names() and rome.has_all("trips"))
        seen: list[bool] = []
        tree = rome.lake.tree
        update = tree.update

        def noting(*args: Any, **options: Any) -> None:
            update(*args, **options)
            seen.append(dataset in (tree.get("/datasets") or {}))

        monkeypatch.setattr(tree, "update", noting)
        oslo.lake.policies.set("trips", [PolicyRule("*@*", rows="id = 1")], "ann")
        await network.until(lambda: rome.lake.catalog.get(dataset).head is None)
        await network.until(lambda: shard not in rome.lake.objects)
        assert seen
        assert all(seen)
        assert tree.get(f"/snapshots/{dataset}") is None

    run(tmp_path, "oslo rome", test)


def limit(node: SharingNode, **limits: int) -> None:
    """Let a node adopt so much of one publisher."""
    adoption = node.exchange._adoption
    adoption._metadata = MetadataUse(
        node.lake.objects, lambda _size: None, MetadataLimits(**limits)
    )


def stored_bytes(node: SharingNode) -> int:
    objects = node.lake.objects
    return sum(objects.place(name).stat().st_size for name in objects)


@pytest.mark.parametrize(
    ("limits", "shards"),
    [
        ({"bytes": 4_000}, 200),
        ({"objects": 1}, 200),
        ({"shards": 69}, 70),
        ({"object_bytes": 300}, 2),
    ],
)
def test_a_manifest_that_costs_too_much_is_not_fetched(
    tmp_path: Path, limits: dict[str, int], shards: int
) -> None:
    async def test(network: SharingNetwork, oslo: SharingNode, rome: SharingNode) -> None:
        limit(rome, **limits)
        oslo.commit("big", *(f"{number:064x}" for number in range(shards)))
        oslo.commit("small", "0" * 64)
        oslo.share("big")
        await network.run(rounds=8)
        assert "big" not in rome.names()
        assert stored_bytes(rome) <= limits.get("bytes", 60_000)
        limit(rome)
        await network.until(lambda: "big" in rome.names())

    run(tmp_path, "oslo rome", test)


def test_what_is_fetched_and_not_adopted_counts_for_its_publisher(tmp_path: Path) -> None:
    """Otherwise each manifest with a list that nobody has would cost the limit anew."""

    async def test(network: SharingNetwork, oslo: SharingNode, rome: SharingNode) -> None:
        oslo.commit("big", *(f"{number:064x}" for number in range(4096 + 70)))
        dataset = oslo.share("big")
        stored = oslo.lake.catalog.stored_manifest("big")
        oslo.lake.objects.place(stored.list_objects[-1]).unlink()
        await network.run(rounds=4)
        use = rome.exchange._adoption._metadata._used[dataset]
        assert use.objects == len(list(rome.lake.objects)) >= 2

    run(tmp_path, "oslo rome", test)


def test_the_room_of_the_disk_is_checked_before_each_object(tmp_path: Path) -> None:
    async def test(network: SharingNetwork, oslo: SharingNode, rome: SharingNode) -> None:
        def full(size: int) -> None:
            raise StorageFull("the disk", size, 0)

        rome.exchange._adoption._metadata = MetadataUse(rome.lake.objects, full)
        oslo.append("trips", 1)
        oslo.share("trips")
        await network.run(rounds=4)
        assert list(rome.lake.objects) == []

    run(tmp_path, "oslo rome", test)


@pytest.mark.parametrize("what", ["manifest", "list"])
def test_a_damaged_manifest_of_another_node_is_found_and_fetched_again(
    tmp_path: Path, what: str
) -> None:
    async def test(network: SharingNetwork, oslo: SharingNode, rome: SharingNode) -> None:
        oslo.commit("big", *(f"{number:064x}" for number in range(200)))
        dataset = oslo.share("big")
        await network.until(lambda: "big" in rome.names())
        await network.run()
        known = rome.exchange._index.get(dataset)
        assert known is not None
        [name] = known.versions if what == "manifest" else known.lists
        place = rome.lake.objects.place(name)
        data = place.read_bytes()
        place.chmod(0o600)
        place.write_bytes(bytes((data[0] ^ 1,)) + data[1:])
        *_, report = rome.lake.scrub("big")
        assert any(name in each.problem for each in report.findings)
        assert report.quarantined == 1
        await network.until(lambda: name in rome.lake.objects)
        assert place.read_bytes() == data
        rome.lake.catalog.reload()
        assert len(rome.shards("big")) == 200
        assert rome.lake.catalog.get("big").damaged is None

    run(tmp_path, "oslo rome", test)


@pytest.mark.parametrize("is_revoked", [True, False])
def test_a_dataset_that_two_nodes_publish_is_named_and_the_other_follows(
    tmp_path: Path, *, is_revoked: bool
) -> None:
    """A hostile member may publish an id that it has read before a node joins."""

    async def test(
        network: SharingNetwork, oslo: SharingNode, eve: SharingNode, rome: SharingNode
    ) -> None:
        network.away = {oslo.id}
        oslo.append("trips", 1)
        dataset = oslo.share("trips")
        await network.run(rounds=2)
        info = oslo.lake.catalog.get("trips")
        false = replace(info, name="false", head=None, owner="")
        manifest = oslo.lake.catalog.manifest("trips")
        eve.lake.catalog.commit(false, manifest, expected_head=None)
        eve.share("false")
        await network.until(lambda: "false" in rome.names())
        network.away = set()
        await network.until(rome.exchange.contested)
        assert rome.exchange.contested() == [Contested("false", eve.id, oslo.id)]
        if is_revoked:
            network.revoke(eve)
        else:
            eve.shares.remove("false")
        await network.until(lambda: "trips" in rome.names())
        assert rome.lake.catalog.get(dataset).node == oslo.id
        assert rome.exchange.contested() == []

    run(tmp_path, "oslo eve rome", test)
