"""Nodes of a network, each a process of its own, which obey the benchmark.

    with Nodes(folder, ["oslo", "rome"]) as nodes:
        nodes["rome"].call("sql", sql="FROM trips", place="/tmp/rows.arrow")

A request is a line of JSON on the process's standard input, its answer one on the standard output.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psutil
import pyarrow as pa

from lake import Lake
from lake.peers.copies.copies import CopyOptions
from lake.peers.copies.placement import Placement
from lake.peers.data import data_parts
from lake.peers.lake_connection import connect
from lake.peers.members.membership import MembershipOptions
from lake.peers.service import PeerOptions, PeerService
from lake.peers.transport.identity import Identity

__all__ = ["NodeProcess", "Nodes", "wait_until"]

_MEMORY = "2 GiB"
_CAPACITY = 64 << 30
_WAIT_SECONDS = 300.0


class NodeProcess:
    """A node; its executors are children of its process."""

    def __init__(self, folder: Path, name: str, copy_rate_bytes: int) -> None:
        command = [
            sys.executable, "-m", "lake_peers.nodes", str(folder / name), name, str(copy_rate_bytes)
        ]  # fmt: skip
        place = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
        self.folder = folder / name
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=place
        )

    def call(self, verb: str, **arguments: Any) -> Any:
        """Let the node do something; return its answer."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(json.dumps([verb, arguments]), file=self._process.stdin, flush=True)
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the node could not do {verb}: see its error above")
        return json.loads(line)

    @property
    def cpu_seconds(self) -> float:
        """The CPU time so far, with that of executors, ended ones too."""
        own = psutil.Process(self._process.pid)
        found = 0.0
        for process in (own, *own.children(recursive=True)):
            with suppress(psutil.NoSuchProcess):
                found += sum(process.cpu_times()[:4])
        return found

    def kill(self) -> None:
        """End the node, and its executors, without warning."""
        children = psutil.Process(self._process.pid).children(recursive=True)
        self._process.kill()
        for child in children:
            with suppress(psutil.NoSuchProcess):
                child.kill()
        self.close()

    def close(self) -> None:
        """End the node and wait for it."""
        for stream in (self._process.stdin, self._process.stdout):
            assert stream is not None
            with suppress(BrokenPipeError):
                stream.close()
        self._process.wait()


class Nodes:
    """The nodes of one network, by name; a context manager.

    Args:
        folder: For their data.
        names: The first one founds the network.
        copy_rate_bytes: As the setting `network.copy_rate_bytes`.
    """

    def __init__(self, folder: Path, names: Sequence[str], copy_rate_bytes: int = 0) -> None:
        self._running = {name: NodeProcess(folder, name, copy_rate_bytes) for name in names}

    def __enter__(self) -> Self:
        first, *others = self._running.values()
        for node in others:
            node.call("join", invite=first.call("invite"))
        count = len(self._running)
        wait_until(lambda: all(each.call("alive") == count for each in self))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for node in self:
            node.close()

    def __iter__(self) -> Iterator[NodeProcess]:
        return iter(list(self._running.values()))

    def __getitem__(self, name: str) -> NodeProcess:
        return self._running[name]

    def kill(self, name: str) -> None:
        """End a node without warning, and wait until all others know."""
        self._running.pop(name).kill()
        count = len(self._running)
        wait_until(lambda: all(each.call("alive") == count for each in self))

    @property
    def cpu_seconds(self) -> float:
        """The CPU time of all nodes so far."""
        return sum(node.cpu_seconds for node in self)


def wait_until(condition: Callable[[], object]) -> None:
    """Wait until a condition holds.

    Raises:
        TimeoutError: It does not within five minutes.
    """
    end = time.monotonic() + _WAIT_SECONDS
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError("the nodes do not do what they should")
        time.sleep(0.1)


class _Node:
    """What the benchmark may ask of a node."""

    def __init__(self, lake: Lake, peers: PeerService) -> None:
        self._lake, self._peers = lake, peers
        self.verbs: Mapping[str, Callable[..., object]] = {
            "invite": peers.invite,
            "join": peers.join,
            "alive": self._alive,
            "append": self._append,
            "share": self._share,
            "copies": self._copies,
            "shards": self._shards,
            "drop": self._drop,
            "sql": self._sql,
            "explain": self._explain,
            "repair": peers.repairs.repair,
        }

    def _alive(self) -> int:
        # One that is suspected may be alive: it is not counted as lost yet.
        return sum(node.state in ("alive", "suspect") for node in self._peers.nodes())

    def _append(self, dataset: str, file: str, **options: Any) -> None:
        self._lake.append(dataset, Path(file), **options)

    def _share(self, dataset: str, copies: int) -> None:
        self._peers.share(dataset, None, Placement(factor=copies))

    def _copies(self) -> dict[str, Any]:
        self._peers.repairs.ask_for_copies()
        states = [each.state for each in self._peers.shared.copies().values()]
        return {
            "datasets": len(states),
            "lacking": sum(s.under_replicated + s.unavailable + s.missing_here for s in states),
            "unavailable": sum(state.unavailable for state in states),
            "isPlaced": all(state.is_placed for state in states),
        }

    def _shards(self, dataset: str) -> list[tuple[str, int, bool]]:
        if self._lake.catalog.find(dataset) is None:  # nothing was heard of it yet
            return []
        shards = self._lake.catalog.manifest(dataset).snapshot.shards
        return [(self._file(s.object), s.bytes, s.object in self._lake.objects) for s in shards]

    def _drop(self, files: list[str]) -> None:
        # The asked node has no datasets of its own.
        self._lake.retention.drop_copies([Path(file).name for file in files], set)

    def _file(self, name: str) -> str:
        return str(self._lake.objects.place(name).relative_to(self._lake.folder))

    def _sql(self, sql: str, place: str) -> None:
        table = self._lake.sql(sql).to_arrow()
        with pa.OSFile(place, "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
            writer.write_table(table)

    def _explain(self, sql: str) -> list[list[str]]:
        return [list(row) for row in self._lake.sql(f"EXPLAIN (ANALYZE, FORMAT json) {sql}").rows]


def _main(folder: Path, name: str, copy_rate_bytes: int) -> None:
    copies = CopyOptions(bytes_per_second=copy_rate_bytes)
    with Lake(folder, memory_bytes=_MEMORY) as lake:
        identity = Identity(lake.storage.node_key)
        # Copies are placed at once, and not moved when a node has been there for a while.
        settled = MembershipOptions(settled_seconds=0.0)
        options = PeerOptions(name, capacity=_CAPACITY, membership=settled)
        parts = data_parts(lake, copies)
        with PeerService(
            identity, lake.tree, options, duckdb=version("duckdb"), data=parts
        ) as peers:
            connect(lake, peers)
            verbs = _Node(lake, peers).verbs
            for line in sys.stdin:
                verb, arguments = json.loads(line)
                print(json.dumps(verbs[verb](**arguments)), flush=True)


if __name__ == "__main__":
    _main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
