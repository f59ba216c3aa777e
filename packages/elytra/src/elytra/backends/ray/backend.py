"""The node's side of the Ray backend: starts the driver process, and sends it tasks."""

from __future__ import annotations

import base64
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, ClassVar

from elytra.backends import NodeFiles, NodeParts, Report, TaskLimits, TaskSpec, Workers
from elytra.backends.foreign_shards import foreign_shards
from elytra.backends.ray.files import InputFile, input_files
from elytra.backends.ray.fragment_outcome import FragmentOutcome
from elytra.backends.ray.options import RayOptions
from elytra.backends.ray.wire import Channel, Message
from elytra.backends.sql_task import SqlTask
from sennit_core.errors import Corrupt, Unavailable, Unsupported, error_from_json
from sennit_core.logs import get_logger
from sennit_core.private_files import make_private_folder
from sennit_core.records import Progress

if TYPE_CHECKING:
    from lake.distributed.fragment_cluster import ClusterFragment
    from lake.peers.transport.stop import Stop

__all__ = ["RayBackend"]

_OPEN_SECONDS = 150.0  # Ray's own processes start in 6 s on an idle machine
_CLOSE_SECONDS = 8.0
_RESTART_SECONDS_MAX = 30.0
_log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class _Task:
    """A task that was started: its report, the ids of its datasets by name, and its worker."""

    report: Report
    datasets: Mapping[str, str]
    worker: str


class RayBackend:
    """Runs tasks on the workers of a Ray cluster, through a driver process.

    If the driver ends, all its workers have left; it is started again.

    Args:
        node: The node's lake.
        options: The cluster.
    """

    name: ClassVar[str] = "ray"

    def __init__(self, node: NodeParts, options: RayOptions) -> None:
        self._lake = node.lake
        self._folder = node.lake.folder / "ray"
        limits = None if node.functions is None else node.functions.to_json()
        self._options = replace(options, functions=limits)
        self._lock = threading.Lock()
        # Guarded by the lock: the tasks that were started and have not ended; the workers that have
        # joined; the driver.
        self._tasks: dict[str, _Task] = {}
        self._joined: dict[str, int] = {}  # with the pids of their processes
        self._running: set[str] = set()  # the tasks that a worker has begun
        self._channel: Channel | None = None
        self._workers: Workers | None = None
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None

    def open(self, workers: Workers) -> None:
        """Start the driver, which connects to the cluster; see `Backend.open`.

        Raises:
            Unsupported: Ray is not installed.
            Unavailable: There is no cluster at the address, or Ray does not start.
        """
        if find_spec("ray") is None:
            raise Unsupported(
                "a node with --ray where Ray is not installed",
                hint="pip install './packages/elytra[ray]'; its pinned versions are in lock/ray.txt",
            )
        make_private_folder(self._folder)
        self._workers = workers
        first: list[Message] = []
        is_up = threading.Event()

        def on_first(message: Message) -> None:
            first.append(message)
            is_up.set()

        self._thread = threading.Thread(
            target=self._keep_driver, args=(on_first,), name="elytra-ray", daemon=True
        )
        self._thread.start()
        is_up.wait(_OPEN_SECONDS)
        if not first or first[0]["on"] != "up":
            self.close()
            if first and "error" in first[0]:
                raise error_from_json(first[0]["error"])
            raise Unavailable(
                "Ray",
                message=f"Ray did not start within {_OPEN_SECONDS:.0f} s",
                hint=f"see {self._folder}",
            )

    def start(self, task: TaskSpec, files: NodeFiles, report: Report, worker: str) -> None:
        """Send a task to a worker; see `Backend.start`.

        Raises:
            Unsupported: It reads a view or an encrypted dataset, which only this node may, or
                shards that are not here.
        """
        if files.secret is not None or files.sources or files.memory:
            raise Unsupported(f"task {task.id} reads what only this node may read")
        if foreign_shards(self._lake, files):
            raise Unsupported(
                "Ray cannot read shards that only other nodes have",
                hint='use the engine "peers", or "local", which fetches them',
            )
        message = {
            "do": "start",
            "task": task.to_json(functions=self._options.functions is not None),
            "inputs": [each.to_json() for each in input_files(files)],
            "output": str(files.output),
            "worker": worker,
        }
        with self._lock:
            if worker not in self._joined:
                return  # `Workers.left` has been called, so the attempt counts as lost
            self._tasks[task.id] = _Task(report, files.datasets, worker)
        try:
            self._send(message)
        except BaseException:
            with self._lock:
                self._tasks.pop(task.id, None)
            raise

    def run_fragment(self, worker: str, fragment: ClusterFragment, stop: Stop) -> None:
        """Run a fragment of a query at a worker; see `lake.distributed.fragment_cluster.FragmentCluster`."""
        limits = TaskLimits(seconds=fragment.seconds)
        task = SqlTask(fragment.id, fragment.request, limits, fragment.user)
        message = {
            "do": "query",
            "task": json.dumps(task.to_json()),
            "inputs": [InputFile.of(each).to_json() for each in fragment.inputs],
            "output": str(fragment.output),
            "worker": worker,
        }
        outcome = FragmentOutcome(worker)
        with self._lock:
            if worker not in self._joined:
                raise outcome.lost()
            self._tasks[task.id] = _Task(outcome, {}, worker)
        try:
            self._send(message)
            stop.attach(lambda: self.stop(task.id))
            outcome.wait()
        finally:
            with self._lock:
                self._tasks.pop(task.id, None)

    def stop(self, task_id: str) -> None:
        """Cancel a task; its end is still reported."""
        self._send({"do": "stop", "task": task_id})

    def close(self) -> None:
        """Stop all tasks and the driver, and with it a cluster that it has started."""
        self._closing.set()
        self._send({"do": "close"})
        if self._thread is not None:
            self._thread.join(_CLOSE_SECONDS * 2)

    def pids(self) -> tuple[int, ...]:
        """Return the processes of the workers that have joined, as their machines number them."""
        with self._lock:
            return tuple(self._joined.values())

    def workers(self) -> tuple[str, ...]:
        """Return the workers that have joined."""
        with self._lock:
            return tuple(self._joined)

    def busy(self) -> int:
        """Return how many tasks workers run at the moment."""
        with self._lock:
            return len(self._running)

    def _send(self, message: Message) -> None:
        with self._lock:
            channel = self._channel
        if channel is None:
            return  # all workers have left, or will in a moment
        with suppress(OSError):  # the driver is gone, so its workers leave in a moment
            channel.send(message)

    def _keep_driver(self, on_first: Any) -> None:
        """Run the driver, and start it again while the backend is open."""
        pause = 1.0
        while not self._closing.is_set():
            was_up = self._run_driver(on_first)
            on_first({"on": "ended"})
            if self._closing.is_set():
                return
            pause = 1.0 if was_up else min(pause * 2, _RESTART_SECONDS_MAX)
            _log.warning("Ray's driver ended; it is started again in %.0f s", pause)
            self._closing.wait(pause)

    def _run_driver(self, on_first: Any) -> bool:
        """Run the driver until it ends; return whether it was connected to the cluster."""
        ours, theirs = socket.socketpair()
        command = [sys.executable, "-P", "-m", "elytra.backends.ray.driver", str(theirs.fileno())]
        with (self._folder / "driver.log").open("ab") as log, theirs:
            os.fchmod(log.fileno(), 0o600)
            driver = subprocess.Popen(
                command,
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C is for the node, which then closes it
            )
        channel, was_up = Channel(ours), False
        with self._lock:
            self._channel = channel
        try:
            self._send({**self._options.to_json(), "folder": str(self._folder)})
            if self._closing.is_set():
                self._send({"do": "close"})
            for message in channel.receive():
                was_up = was_up or message["on"] == "up"
                if message["on"] in ("up", "failed-open"):
                    on_first(message)
                else:
                    self._on(message)
        finally:
            self._drop_driver(driver, channel)
        return was_up

    def _drop_driver(self, driver: subprocess.Popen[bytes], channel: Channel) -> None:
        with self._lock:
            self._channel = None
            busy = {task.worker for task in self._tasks.values()}
            # The idle ones first: no task is then assigned to another lost one.
            lost = sorted(self._joined, key=busy.__contains__)
        channel.shut_down()
        channel.close()
        try:
            driver.wait(_CLOSE_SECONDS)
        except subprocess.TimeoutExpired:
            driver.kill()
            driver.wait()
        for worker in lost:
            self._left(worker)
        with self._lock:
            tasks = [*self._tasks.values()]
            self._tasks.clear()
            self._running.clear()
        for task in tasks:
            _note_gone(task.report)

    def _left(self, worker: str) -> None:
        assert self._workers is not None, "set by `open`"
        with self._lock:
            pid = self._joined.pop(worker, None)
        if pid is not None:
            self._workers.left(worker)

    def _on(self, message: Message) -> None:
        assert self._workers is not None, "set by `open`"
        match message["on"]:
            case "joined":
                with self._lock:
                    self._joined[message["worker"]] = message["pid"]
                self._workers.joined(message["worker"])
            case "left":
                self._left(message["worker"])
            case "started" | "progressed" | "finished" | "failed" | "gone":
                self._on_task(message)

    def _on_task(self, message: Message) -> None:
        task, kind = message["task"], message["on"]
        is_end = kind in ("finished", "failed", "gone")
        with self._lock:
            found = self._tasks.pop(task, None) if is_end else self._tasks.get(task)
            if is_end:
                self._running.discard(task)
            elif kind == "started" and found is not None:
                self._running.add(task)
        if found is None:
            return
        if kind == "failed":
            error = error_from_json(message["error"])
            if isinstance(error, Corrupt):
                self._lake.catalog.note_damage(found.datasets, error)
        _pass_on(message, found.report)


def _pass_on(message: Message, report: Report) -> None:
    """Report what the driver says of a task."""
    match message["on"]:
        case "started":
            report.started()
        case "progressed":
            report.progressed(Progress.from_json(message["progress"]))
        case "finished":
            result = dict(message["result"])
            if "rows" in result:
                result["rows"] = base64.b64decode(result["rows"])
            report.finished(result)
        case "failed":
            report.failed(message["error"], retryable=bool(message["retryable"]))
        case "gone":
            _note_gone(report)


def _note_gone(report: Report) -> None:
    """Say that a fragment's worker is gone; the scheduler of jobs knows it from `Workers.left`."""
    if isinstance(report, FragmentOutcome):
        report.gone()
