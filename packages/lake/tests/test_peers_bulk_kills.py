"""A node that is killed while it sends chunks by a stream: another one sends the rest, and nothing twice."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest

from lake.peers.copies.chunks import Chunk, ChunkRequest
from lake.peers.copies.transfers import WriteChunk

from .real_offices import office
from .test_peers_bulk import network
from .test_peers_service import eventually

CHUNKS = 60
SENDER = """
import os, sys, pyarrow as pa
from pathlib import Path
from lake import Lake
from lake.peers.copies.placement import Placement
from lake.peers.data import data_parts
from lake.peers.service import PeerOptions, PeerService
from lake.peers.transport.identity import Identity

with Lake(Path(sys.argv[1]), memory_bytes="256 MiB") as lake:
    values = memoryview(os.urandom(int(sys.argv[2]) << 20)).cast("q")
    lake.append("big", pa.table({"value": pa.array(values)}))
    options = PeerOptions("oslo", capacity=0)
    with PeerService(Identity(lake.storage.node_key), lake.tree, options, data=data_parts(lake)) as peers:
        for _ in range(2):
            print(peers.invite(), flush=True)
        peers.share("big", None, Placement(2))
        sys.stdin.read()
"""


@pytest.mark.nightly  # a process of its own, and 60 MB at three nodes
def test_a_killed_sender_is_replaced_and_no_chunk_comes_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = [sys.executable, "-c", SENDER, str(tmp_path / "oslo"), str(CHUNKS)]
    with (
        subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as sender,
        ExitStack() as stack,
    ):
        stack.callback(sender.kill)
        assert sender.stdout is not None
        bern = stack.enter_context(office(tmp_path, "bern"))
        rome = stack.enter_context(office(tmp_path, "rome", capacity=0))
        for each in (bern, rome):
            each.peers.join(sender.stdout.readline().strip())
        eventually(lambda: all("big" in each.names() for each in (bern, rome)))
        eventually(lambda: bern.has_all("big"))
        (shard,) = rome.lake.catalog.manifest("big").snapshot.shards

        written: list[int] = []
        asked: list[tuple[int, set[int]]] = []
        received = network(rome).exchange._downloads.copies  # type: ignore[union-attr]
        sent = network(bern).exchange.chunks._copies  # type: ignore[union-attr]
        write, chunk = received.write, sent.chunk

        def killing_write(effect: WriteChunk) -> bool:
            is_right = write(effect)
            written.append(effect.index)
            if len(written) == 20:
                os.kill(sender.pid, signal.SIGKILL)
            return is_right

        def noted_chunk(request: ChunkRequest) -> tuple[Chunk, bytes]:
            asked.append((request.index, set(written)))
            return chunk(request)

        monkeypatch.setattr(received, "write", killing_write)
        monkeypatch.setattr(sent, "chunk", noted_chunk)
        rome.peers.fetch([shard.object])
        rome.lake.objects.verify(shard.object)
        assert sender.wait() == -signal.SIGKILL
        assert network(rome).bulk_client.answers > 0
        assert sorted(set(written)) == list(range(len(set(written))))
        # What was written is asked of nobody, except by a request that was under way.
        assert sum(index in before for index, before in asked) <= 4
