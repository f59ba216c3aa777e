"""What a node adopts of other nodes' datasets: in one write, within limits, and from its writer alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lake.access import PolicyRule
from sennit_core.errors import Denied

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
