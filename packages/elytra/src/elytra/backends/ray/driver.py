"""The driver process: `python -P -m elytra.backends.ray.driver FD`, FD its connection to the node.

It connects to the cluster or starts one, keeps workers in it, and runs the tasks that the node sends.
It ends when the node closes the connection, however the node died, and a cluster that it started ends
with it.
"""

from __future__ import annotations

import os
import secrets
import socket
import sys
import tempfile
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from elytra.backends import TaskSpec
from elytra.backends.attempts import Attempts, Run, WorkerGone
from elytra.backends.ray.files import InputFile, with_sizes
from elytra.backends.ray.options import AUTO, RayOptions
from elytra.backends.ray.wire import Channel, Message
from elytra.backends.sql_task import SqlTask
from emsqrt.spill.area import RunFolder
from sennit_core.errors import Denied, SennitError, Unavailable
from sennit_core.records import Progress

__all__ = ["main"]

_ATTEMPTS_MAX = 256
_CONNECT_SECONDS = 5.0
_START_TRIES = 3


class _Reports:
    """Sends the node what happens; the node may be gone, and this process soon is."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._pids: dict[str, int] = {}

    def send(self, message: Message) -> None:
        with suppress(OSError):
            self._channel.send(message)

    def has_pid(self, worker: str, pid: int) -> None:
        self._pids[worker] = pid

    def joined(
        self,
        worker: str,
        slots: int = 1,
        cached: Sequence[str] = (),
        lease_seconds: float | None = None,
    ) -> None:
        del slots, cached, lease_seconds  # one slot; its end is always noticed
        self.send({"on": "joined", "worker": worker, "pid": self._pids.pop(worker)})

    def discredited(self, token: str) -> None:
        raise AssertionError(f"actors have no token {token}: they run the node's own code")

    def left(self, worker: str) -> None:
        self.send({"on": "left", "worker": worker})


class _TaskReport:
    """Sends the node what happens in one attempt."""

    def __init__(self, send: Callable[[Message], None], task: str) -> None:
        self._send, self._task = send, task
        self._has_started = False

    def started(self) -> None:
        """Only its thread has; the worker's first frame says that it has begun."""

    def progressed(self, progress: Progress) -> None:
        if not self._has_started:
            self._has_started = True
            self._send({"on": "started", "task": self._task})
        self._send({"on": "progressed", "task": self._task, "progress": progress.to_json()})

    def finished(self, result: dict[str, Any]) -> None:
        self._send({"on": "finished", "task": self._task, "result": result})

    def failed(self, error: dict[str, Any], *, retryable: bool) -> None:
        self._send({"on": "failed", "task": self._task, "error": error, "retryable": retryable})

    def gone(self) -> None:
        """Its worker is gone, which was reported: the attempt has no end of its own."""
        self._send({"on": "gone", "task": self._task})


def main(descriptor: int) -> int:
    """Serve the node at the other end of a socket; return an exit status."""
    channel = Channel(socket.socket(fileno=descriptor))
    messages = channel.receive()
    first = next(messages, None)
    if first is None:
        return 0
    folder = Path(first.pop("folder"))
    options = RayOptions(**first)
    reports = _Reports(channel)
    # A short path: that of a socket has at most 107 bytes, and Ray adds 64.
    area = RunFolder(Path(f"{tempfile.gettempdir()}/snr-{os.geteuid()}"))
    try:
        _connect(options, folder, area)
    except SennitError as error:
        reports.send({"on": "failed-open", "error": error.to_json()})
        area.close()
        return 1
    import ray

    from elytra.backends.ray.cluster import Cluster

    reports.send({"on": "up"})
    cluster = Cluster(options, reports)
    threading.Thread(target=_watch, args=(cluster, channel), daemon=True).start()
    attempts = Attempts(_ATTEMPTS_MAX)
    for message in messages:
        if message["do"] == "close":
            break
        if message["do"] == "stop":
            attempts.stop(message["task"])
        elif message["do"] == "query":
            _start_query(cluster, attempts, reports.send, message)
        else:
            _start(cluster, attempts, reports.send, message)
    attempts.close()
    cluster.close()
    ray.shutdown()
    area.close()
    os._exit(0)  # threads may still wait for calls that never return


def _watch(cluster: Any, channel: Channel) -> None:
    try:
        cluster.watch()
    finally:
        channel.shut_down()  # without it no worker would be replaced: the node starts a new driver


def _start(
    cluster: Any, attempts: Attempts, send: Callable[[Message], None], message: Message
) -> None:
    from elytra.backends.ray.attempt import Attempt
    from elytra.backends.ray.shuffle import ShuffledAttempt
    from elytra.backends.ray.shuffle_plan import shuffles

    task = TaskSpec.from_json(message["task"])
    inputs = [InputFile.from_json(each) for each in message["inputs"]]
    parts = cluster, message["worker"], task, inputs, Path(message["output"])
    size = sum(each.size or 0 for each in with_sizes(inputs))
    is_large = len(inputs) > 1 and size >= cluster.options.shuffle_bytes
    attempt = ShuffledAttempt(*parts) if is_large and shuffles(task.plan) else Attempt(*parts)
    _submit(attempts, attempt, _TaskReport(send, task.id), task.id)


def _start_query(
    cluster: Any, attempts: Attempts, send: Callable[[Message], None], message: Message
) -> None:
    from elytra.backends.ray.attempt import Attempt

    task = SqlTask.from_json(message["task"])
    inputs = [InputFile.from_json(each) for each in message["inputs"]]
    attempt = Attempt(cluster, message["worker"], task, inputs, Path(message["output"]))
    _submit(attempts, attempt, _TaskReport(send, task.id), task.id)


def _submit(attempts: Attempts, attempt: Any, report: _TaskReport, task_id: str) -> None:
    def work(run: Run) -> dict[str, Any]:
        try:
            found: dict[str, Any] = attempt.run(run, report)
        except WorkerGone:
            report.gone()
            raise
        return found

    attempts.submit(task_id, report, work)


def _connect(options: RayOptions, folder: Path, area: RunFolder) -> None:
    """Connect to the cluster, or start one; called on the main thread, which Ray's processes end with.

    Raises:
        Denied: The cluster has no token authentication, or another token.
        Unavailable: There is no cluster at the address, or Ray does not start.
    """
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    if os.environ.setdefault("RAY_AUTH_MODE", "token") != "token":
        raise Denied(
            "using a Ray cluster without token authentication",
            hint="unset RAY_AUTH_MODE, and start the cluster with RAY_AUTH_MODE=token",
        )
    address = _running_cluster() if options.address == AUTO else options.address
    own: dict[str, Any] = {}
    if address is None:
        _use_own_token(folder)
        # Ray then listens on the loopback address alone.
        os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
        own = {
            "num_cpus": options.workers or os.cpu_count(),
            "include_dashboard": False,
            "object_store_memory": options.object_store_bytes,
            "_temp_dir": str(area.folder),
        }
    else:
        _check_reachable(*replace(options, address=address).host_and_port())
    import ray

    quiet = {"configure_logging": False, "log_to_driver": False, "namespace": "sennit"}
    # Ray gives a new cluster 30 s to start, which a busy machine exceeds.
    for tries_left in reversed(range(1 if address else _START_TRIES)):
        try:
            ray.init(address=address or "local", **quiet, **own)
        except Exception as problem:
            ray.shutdown()
            if tries_left:
                continue
            reason = f"{type(problem).__name__}: {str(problem).strip().splitlines()[0]}"
            raise Unavailable(
                "Ray",
                message=f"Ray at {address or 'this machine'} cannot be used: {reason}",
                hint=f"try again, and see {folder}/driver.log"
                if address is None
                else "the cluster needs the same versions of Ray and Python, and the same token: "
                "RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH",
            ) from problem
        return


def _running_cluster() -> str | None:
    """Return the cluster that Ray's own variable names; not one that merely runs on this machine."""
    return os.environ.pop("RAY_ADDRESS", None) or None


def _use_own_token(folder: Path) -> None:
    """Let the cluster that this process starts accept a new token alone."""
    path = folder / "token"
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(secrets.token_hex(32))
    os.environ.pop("RAY_AUTH_TOKEN", None)
    os.environ["RAY_AUTH_TOKEN_PATH"] = str(path)


def _check_reachable(host: str, port: int) -> None:
    """Fail soon where Ray would try for a minute, and then end the process."""
    try:
        socket.create_connection((host, port), _CONNECT_SECONDS).close()
    except OSError as error:
        raise Unavailable(
            "Ray",
            message=f"there is no Ray cluster at {host}:{port}: {error.strerror or error}",
            hint="start one there (ray start --head), or use --ray auto",
        ) from error


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1])))
