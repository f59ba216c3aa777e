"""The Ray backend passes the contract, and survives what a cluster does to it: real clusters, nightly."""

import hashlib
import os
import shlex
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

import psutil
import pyarrow as pa
import pytest

from elytra.backends import NodeParts
from elytra.backends.ray import RayBackend, RayOptions
from elytra.backends.ray.files import InputFile
from elytra.backends.ray.received import DATA, ReceivedFiles
from elytra.testing import BackendContract, BackendWorld, open_world
from sennit_core.errors import Corrupt, Unavailable, Unsupported, UsageError

LOOPBACK = "127.0.0.2"
"""Not 127.0.0.1, which Ray replaces with another address of the machine."""
OPTIONS = RayOptions(workers=2, worker_bytes=512 << 20, object_store_bytes=128 << 20)


def a_worker(backend: RayBackend) -> str:
    wait_until(lambda: len(backend.workers()) == 2)
    return backend.workers()[0]


def open_ray_world(folder: Path, owned: ExitStack, options: RayOptions = OPTIONS) -> BackendWorld:
    def opening(node: NodeParts) -> RayBackend:
        return RayBackend(node, options)

    return open_world(
        folder, owned, "ray", opening, a_worker, busy_count=RayBackend.busy, pids=RayBackend.pids
    )


@pytest.mark.nightly
@pytest.mark.timeout(600)
class TestRay(BackendContract):
    cuts = (1, 3, 7)

    @pytest.fixture(scope="class")
    @classmethod
    def world(cls, tmp_path_factory: pytest.TempPathFactory) -> Iterator[BackendWorld]:
        pytest.importorskip("ray")
        with ExitStack() as owned:
            options = replace(OPTIONS, shuffle_bytes=1)  # all workers run what has two inputs
            yield open_ray_world(tmp_path_factory.mktemp("ray"), owned, options)


@dataclass
class RayNodes:
    """A cluster of this machine, one `ray start` for each node, on the loopback address."""

    folder: Path
    environment: dict[str, str]
    nodes: list[subprocess.Popen[bytes]] = field(default_factory=list)
    address: str = ""

    def start(self, *, hidden: Path | None = None) -> None:
        """Start the head, or another node.

        Args:
            hidden: A folder that this node does not see, as if it were on another machine.
        """
        port = free_port()
        place = ["--head", f"--port={port}"] if not self.address else [f"--address={self.address}"]
        command = [sys.executable, "-m", "ray.scripts.scripts", "start", *place, "--block"]
        command += [
            f"--node-ip-address={LOOPBACK}",
            "--num-cpus=1",
            "--object-store-memory=100000000",
            "--disable-usage-stats",
        ]
        command += ["--include-dashboard=false"] if not self.address else []
        if hidden is not None:
            quoted = shlex.join(command)
            mount = f"mount -t tmpfs none {shlex.quote(str(hidden))} && exec {quoted}"
            command = ["unshare", "--mount", "sh", "-c", mount]
        with (self.folder / f"node-{len(self.nodes)}.log").open("wb") as log:
            node = subprocess.Popen(command, env=self.environment, stdout=log, stderr=log)
        self.nodes.append(node)
        self.address = self.address or f"{LOOPBACK}:{port}"

    def kill(self, index: int) -> None:
        """End all processes of a node at once."""
        node = self.nodes[index]
        if node.poll() is None:
            for process in [*descendants(node.pid), psutil.Process(node.pid)]:
                with suppress(psutil.NoSuchProcess):
                    process.kill()
        node.wait()


def descendants(pid: int) -> list[psutil.Process]:
    while True:
        with suppress(psutil.NoSuchProcess):  # of a child that ended meanwhile
            return psutil.Process(pid).children(recursive=True)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@pytest.fixture
def ray_nodes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RayNodes]:
    pytest.importorskip("ray")
    token = tmp_path / "token"
    token.write_text("0123456789abcdef" * 4)
    folder = Path(tempfile.mkdtemp(prefix="ray-"))  # short, for the paths of sockets
    for name, value in {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(token),
        "RAY_TMPDIR": str(folder),
    }.items():
        monkeypatch.setenv(name, value)
    nodes = RayNodes(tmp_path, dict(os.environ))
    nodes.start()
    wait_until(lambda: is_listening(nodes.address))
    yield nodes
    for index in reversed(range(len(nodes.nodes))):
        nodes.kill(index)
    shutil.rmtree(folder, ignore_errors=True)


def is_listening(address: str) -> bool:
    host, port = address.split(":")
    try:
        socket.create_connection((host, int(port)), 1).close()
    except OSError:
        return False
    return True


def wait_until(look: Callable[[], object]) -> None:
    deadline = time.monotonic() + 120
    while not look():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.02)


@pytest.mark.nightly
@pytest.mark.timeout(600)
def test_a_machine_that_is_lost_during_a_job_does_not_change_the_answer(
    ray_nodes: RayNodes, tmp_path: Path
) -> None:
    with ExitStack() as owned:
        world_folder, scratch = tmp_path / "world", tmp_path / "scratch"
        objects = world_folder / "lake" / "objects"
        objects.mkdir(parents=True, mode=0o700)
        ray_nodes.start(hidden=objects)
        options = RayOptions(ray_nodes.address, worker_bytes=512 << 20, scratch=str(scratch))
        world = open_ray_world(world_folder, owned, options)
        assert isinstance(world.backend, RayBackend)
        rows = 150_000
        for start in range(0, 6 * rows, rows):
            world.lake.append("long", pa.table({"n": range(start, start + rows)}))
        job = world.submit(world.long())

        # The second machine has no file of the lake, so it was sent what it reads.
        wait_until(lambda: world.busy_count() == 2)
        assert [path for path in scratch.glob("*/received/*/*") if len(path.name) == 64]
        before = world.backend.workers()
        ray_nodes.kill(1)

        expected = world.jobs.submit(world.long().plan, engine="local")
        assert world.rows(job) == world.rows(expected)
        assert set(before) - set(world.backend.workers())
        tasks = world.tree.get(f"/jobs/{job.id}/tasks")
        assert max(task["attempts"] for task in tasks.values()) == 2


@pytest.mark.nightly
@pytest.mark.timeout(600)
def test_a_driver_that_is_killed_is_started_again(tmp_path: Path) -> None:
    pytest.importorskip("ray")
    with ExitStack() as owned:
        world = open_ray_world(tmp_path, owned)
        job = world.submit(world.long())
        wait_until(lambda: world.busy_count() == 1)
        (driver,) = [
            child
            for child in psutil.Process().children()
            if "elytra.backends.ray.driver" in child.cmdline()
        ]
        driver.kill()

        (row,) = world.rows(job)
        assert "'n': 400000" in row
        assert world.task_of(job)["attempts"] == 2


def test_a_node_without_ray_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("elytra.backends.ray.backend.find_spec", lambda _: None)
    with ExitStack() as owned, pytest.raises(Unsupported, match="Ray is not installed") as caught:
        open_ray_world(tmp_path, owned)
    assert "packages/elytra[ray]" in (caught.value.hint or "")


@pytest.mark.parametrize("address", ["", "nowhere", "host:0", "host:70000", "a b:1", "host:1/x"])
def test_an_address_that_is_none_is_refused(address: str) -> None:
    with pytest.raises(UsageError, match="--ray"):
        RayOptions(address)


@pytest.mark.nightly  # the nightly installs Ray
def test_a_cluster_that_is_not_there_is_named(tmp_path: Path) -> None:
    address = f"127.0.0.1:{free_port()}"
    with ExitStack() as owned, pytest.raises(Unavailable, match=address):
        open_ray_world(tmp_path, owned, RayOptions(address))


def test_a_received_file_is_compared_with_its_hash(tmp_path: Path) -> None:
    (tmp_path / "node").write_bytes(b"rows")
    asked = InputFile("partial-0", str(tmp_path / "gone"), 4, None)
    files = ReceivedFiles(tmp_path / "received", 1 << 20)
    assert files.find(asked) is None
    files.write("task-1", DATA, 0, b"ro")
    files.write("task-1", DATA, 2, b"xx")

    with pytest.raises(Corrupt, match="partial-0"):
        files.accept("task-1", asked, hashlib.sha256(b"rows").hexdigest())
    with pytest.raises(Corrupt, match="on this machine"), files.held([asked]):
        pass
    files.write("task-2", DATA, 0, b"rows")
    files.accept("task-2", asked, hashlib.sha256(b"rows").hexdigest())
    with files.held([asked]) as paths:
        assert Path(paths["partial-0"]).read_bytes() == b"rows"
    for part in ("../x", "other"):
        with pytest.raises(UsageError):
            files.write("task-3", part, 0, b"")
