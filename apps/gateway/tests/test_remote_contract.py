"""Workers that connect to a real gateway pass the contract of backends."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from opened_node import OpenNode, open_node

from elytra.testing import BackendContract, BackendWorld
from elytra.testing.scripted_worker import ScriptedWorker

WORKERS = 2


class Fleet:
    """A number of workers, each replaced by a new one when it is killed."""

    def __init__(self, node: OpenNode) -> None:
        self._url = node.url
        self._token = node.node.tokens.issue("fleet", "worker")
        self._lock = threading.Lock()
        self.workers = [self._one() for _ in range(WORKERS)]

    def _one(self) -> ScriptedWorker:
        return ScriptedWorker(self._url, self._token).start()

    def busy_count(self) -> int:
        return sum(worker.running_count for worker in self.workers)

    def kill(self) -> None:
        with self._lock:
            killed, self.workers = self.workers, [self._one() for _ in range(WORKERS)]
        for worker in killed:
            worker.die()
            worker.ended.wait()

    def stop(self) -> None:
        for worker in self.workers:
            worker.stop()


@pytest.mark.nightly
class TestRemoteWorkers(BackendContract):
    @pytest.fixture(scope="class")
    @classmethod
    def world(cls, tmp_path_factory: pytest.TempPathFactory) -> Iterator[BackendWorld]:
        with ExitStack() as owned:
            folder: Path = tmp_path_factory.mktemp("remote")
            opened = owned.enter_context(open_node(folder, {"emsqrt.executors": 2}))
            node = opened.node
            fleet = Fleet(opened)
            owned.callback(fleet.stop)
            yield BackendWorld(
                node.jobs, node.lake, node.stores["sys"], folder, "browser", node.jobs.remote,
                fleet.workers[0].wait().id, fleet.busy_count, fleet.kill,
            )  # fmt: skip
