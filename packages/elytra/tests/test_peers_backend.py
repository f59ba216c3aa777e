"""The backend `peers` passes the contract: a node runs jobs over shards that only another one has."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from peer_nodes import PeerNode, eventually, joined, peer_node

from elytra.testing import BackendContract, BackendWorld


class WrittenElsewhere:
    """A lake whose new datasets another node writes, and shares: this one has none of their shards."""

    def __init__(self, reader: PeerNode, writer: PeerNode) -> None:
        self._reader, self._writer = reader, writer

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reader.lake, name)

    def append(self, name: str, table: Any) -> None:
        self._writer.lake.append(name, table)
        self._writer.peers.share(name, None)
        snapshot = self._writer.dataset(name).head
        eventually(lambda: getattr(self._reader.dataset(name), "head", None) == snapshot)


def open_world(folder: Path, owned: ExitStack) -> BackendWorld:
    writer = owned.enter_context(peer_node(folder, "oslo", executors=2))
    reader = owned.enter_context(peer_node(folder, "rome"))
    owned.enter_context(joined(writer, reader))

    def kill() -> None:
        writer.kill_executors()
        reader.kill_executors()

    return BackendWorld(
        reader.jobs,
        WrittenElsewhere(reader, writer),  # type: ignore[arg-type]
        reader.tree,
        folder,
        "peers",
        reader.backend,
        "network",
        lambda: writer.pool.stats().busy + reader.pool.stats().busy,
        kill,
    )


@pytest.mark.nightly
class TestPeers(BackendContract):
    @pytest.fixture(scope="class")
    @classmethod
    def world(cls, tmp_path_factory: pytest.TempPathFactory) -> Iterator[BackendWorld]:
        with ExitStack() as owned:
            yield open_world(tmp_path_factory.mktemp("peers"), owned)


class TestPeersAtMoreCuts(TestPeers):
    cuts = (1, 2, 7, 40)
