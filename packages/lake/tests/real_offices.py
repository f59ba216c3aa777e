"""Offices with a lake each, whose nodes are in one network in this process."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import pyarrow as pa
import pytest

from lake import Lake
from lake.peers.copies.copies import CopyOptions
from lake.peers.copies.replication import ReplicationOptions
from lake.peers.data import DataParts, data_parts
from lake.peers.lake_connection import connect
from lake.peers.service import PeerOptions, PeerService
from lake.peers.transport.identity import Identity

from .test_peers_service import FAST, eventually

COPIES = CopyOptions(ReplicationOptions(plan_seconds=0.3, confirm_seconds=3.0, loss_seconds=1.0))
TABLE = pa.table({"id": [1, 2, 3], "name": ["a", "b", None]})


@dataclass
class Office:
    lake: Lake
    peers: PeerService

    def names(self) -> set[str]:
        return {info.name for info in self.lake.catalog.list()}

    def query(self, sql: str) -> list[tuple[object, ...]]:
        return self.lake.sql(sql).rows

    def has_all(self, dataset: str) -> bool:
        shards = self.lake.catalog.manifest(dataset).snapshot.shards
        return all(shard.object in self.lake.objects for shard in shards)


@contextmanager
def office(
    folder: Path,
    name: str,
    capacity: int = 1 << 30,
    copies: CopyOptions = COPIES,
    passphrase: str | None = None,
    duckdb: str = version("duckdb"),
    change: Callable[[DataParts], DataParts] = lambda data: data,
) -> Iterator[Office]:
    with Lake(folder / name, memory_bytes="256 MiB", passphrase=passphrase) as lake:
        options = PeerOptions(name, capacity=capacity, membership=FAST)
        identity = Identity(lake.storage.node_key)
        data = change(data_parts(lake, copies))
        with PeerService(identity, lake.tree, options, duckdb=duckdb, data=data) as peers:
            connect(lake, peers)
            yield Office(lake, peers)


@contextmanager
def joined_offices(folder: Path, copies: CopyOptions = COPIES) -> Iterator[dict[str, Office]]:
    """Three offices, of which Oslo has founded the network and has a dataset."""
    with ExitStack() as stack:
        found = {
            name: stack.enter_context(office(folder, name, copies=copies))
            for name in ("oslo", "rome", "bern")
        }
        for name in ("rome", "bern"):
            found[name].peers.join(found["oslo"].peers.invite())
        eventually(lambda: all(len(each.peers.nodes()) == 3 for each in found.values()))
        found["oslo"].lake.append("trips", TABLE)
        yield found


@pytest.fixture
def offices(tmp_path: Path) -> Iterator[dict[str, Office]]:
    with joined_offices(tmp_path) as found:
        yield found


def big(offices: dict[str, Office]) -> None:
    """A dataset of three shards at Oslo, which Rome sees."""
    oslo = offices["oslo"]
    for part in range(3):
        rows = range(part * 1000, (part + 1) * 1000)
        oslo.lake.append(
            "big",
            pa.table(
                {
                    "k": [n % 7 for n in rows],
                    "v": [n * 3 for n in rows],
                    "s": [str(n) for n in rows],
                }
            ),
        )
    oslo.peers.share("big", None)
    eventually(lambda: "big" in offices["rome"].names())
    eventually(lambda: offices["rome"].lake.catalog.get("big").shards == 3)
