"""Nodes of a network in this process, each with a lake, executors and jobs."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from elkyn import ElkynStore, open_namespaces
from elytra.backends import NodeParts
from elytra.backends.peer_tasks import PeerTasks
from elytra.backends.peers import PeersBackend
from elytra.backends.table import BACKENDS
from elytra.pipelines.pipeline import Pipeline
from elytra.service.job_service import JobService
from emsqrt.executor import ExecutorPool
from lake import Lake
from lake.peers.copies.copies import CopyOptions
from lake.peers.copies.replication import ReplicationOptions
from lake.peers.data import DataParts, data_parts
from lake.peers.lake_connection import connect
from lake.peers.members.membership import MembershipOptions
from lake.peers.service import PeerOptions, PeerService
from lake.peers.transport.identity import Identity
from sennit_core.records import JobInfo, is_terminal

COPIES = CopyOptions(ReplicationOptions(plan_seconds=0.3, confirm_seconds=3.0, loss_seconds=1.0))
FAST = MembershipOptions(
    period_seconds=0.4, answer_seconds=0.3, compare_seconds=0.5, settled_seconds=1.0
)
WAIT_SECONDS = 60.0


def eventually(condition: Callable[[], object]) -> None:
    """Wait until a condition holds; fail after a time that only a broken protocol needs."""
    end = time.monotonic() + WAIT_SECONDS
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.02)  # polls other threads; not a wait for a fixed time


@dataclass
class PeerNode:
    """A node of a network."""

    name: str
    folder: Path
    tree: ElkynStore
    lake: Lake
    pool: ExecutorPool
    peers: PeerService
    jobs: JobService
    backend: PeersBackend

    def dataset(self, name: str) -> Any:
        """Return a dataset's record, as pipelines need it."""
        return self.lake.catalog.find(name)

    def pipeline(self, name: str) -> Pipeline:
        return Pipeline.over(self, name)  # type: ignore[arg-type]

    def ended(self, job: JobInfo) -> JobInfo:
        eventually(lambda: is_terminal("job", self.jobs.get(job.id).state))
        return self.jobs.get(job.id)

    def rows(self, job: JobInfo) -> list[dict[str, Any]]:
        ended = self.ended(job)
        assert ended.state == "done", ended.error
        return [row for path in self.jobs.result(job.id) for row in pq.read_table(path).to_pylist()]

    def kill_executors(self) -> None:
        for pid in self.pool.stats().pids:
            os.kill(pid, signal.SIGKILL)


@contextmanager
def peer_node(
    folder: Path,
    name: str,
    *,
    capacity: int = 0,
    executors: int = 1,
    change: Callable[[DataParts], DataParts] = lambda data: data,
    runs_tasks: bool = True,
) -> Iterator[PeerNode]:
    with ExitStack() as owned:
        stores = open_namespaces(folder / name / "elkyn")
        owned.callback(stores.close)
        pool = owned.enter_context(
            ExecutorPool(executors, memory_bytes=256 << 20, spill_dir=folder / name / "spill")
        )
        tree = stores["sys"]
        lake = owned.enter_context(Lake(folder / name, tree=tree, pool=pool))
        data = change(data_parts(lake, COPIES, tasks=PeerTasks(lake) if runs_tasks else None))
        options = PeerOptions(name, capacity=capacity, membership=FAST)
        peers = owned.enter_context(
            PeerService(
                Identity(lake.storage.node_key), tree, options, duckdb=version("duckdb"), data=data
            )
        )
        connect(lake, peers)
        opened: list[PeersBackend] = []

        def opening(node: NodeParts) -> PeersBackend:
            opened.append(PeersBackend(node))
            return opened[-1]

        backends = {**BACKENDS, PeersBackend.name: opening}
        jobs = JobService(tree, lake, pool, workers=executors, whole_bytes=0, backends=backends)
        owned.callback(jobs.close)
        yield PeerNode(name, folder, tree, lake, pool, peers, jobs, opened[0])


@contextmanager
def joined(*nodes: PeerNode) -> Iterator[None]:
    """Let nodes form a network."""
    first, *others = nodes
    for node in others:
        node.peers.join(first.peers.invite())
    eventually(lambda: all(len(each.peers.nodes()) == len(nodes) for each in nodes))
    yield


def share(writer: PeerNode, name: str, *readers: PeerNode, placement: Any = None) -> None:
    """Share a dataset with all, and wait until the readers see its newest version."""
    writer.peers.share(name, None, placement)
    head = writer.lake.catalog.get(name).head
    eventually(lambda: all(getattr(node.dataset(name), "head", None) == head for node in readers))
