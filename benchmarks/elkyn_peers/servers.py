"""The servers: each starts in a process of its own, on a folder of its own, and is told apart."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil

__all__ = ["OWNER", "SERVERS", "Running", "Server", "elkyn", "running"]

OWNER = {"Authorization": "Bearer owner"}
HERE = Path(__file__).resolve().parent


@dataclass(frozen=True)
class Server:
    """A kind of server.

    Args:
        name: what tables call it.
        note: what it promises of a write that it has answered.
        command: how to start it on a port and a folder.
        suffix: what follows a key in its paths.
        environment: what it is told besides.
        missing: says what it lacks here, None when it can run.
    """

    name: str
    note: str
    command: Callable[[int, Path], list[str]]
    suffix: str = ""
    environment: Callable[[Path], dict[str, str]] = lambda _folder: {}
    missing: Callable[[], str | None] = lambda: None


@dataclass
class Running:
    """A server that answers."""

    server: Server
    port: int
    process: psutil.Process

    @property
    def url(self) -> str:
        """Where it is."""
        return f"http://127.0.0.1:{self.port}"

    def cpu_seconds(self) -> float:
        """What the server and its children have used so far."""
        family = [self.process, *self.process.children(recursive=True)]
        return sum(sum(member.cpu_times()[:2]) for member in family)

    def anon_mib(self) -> float:
        """What it holds in memory now, without pages of files (RssAnon, from outside)."""
        family = [self.process, *self.process.children(recursive=True)]
        return sum(_anon_kib(member.pid) for member in family) / 1024

    def metrics(self) -> dict[str, float]:
        """What Elkyn tells Prometheus."""
        page = httpx.get(f"{self.url}/metrics", headers=OWNER, timeout=60).raise_for_status().text
        rows = (line.split() for line in page.splitlines() if not line.startswith("#"))
        return {name: float(value) for name, value in rows}


def _anon_kib(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("RssAnon"))


def elkyn(*options: str) -> Server:
    """Return Elkyn as its command starts it, with more options."""

    def command(port: int, folder: Path) -> list[str]:
        serve = [sys.executable, "-m", "elkyn.cli", "serve", "--data", str(folder), "--emulator"]
        return [*serve, "--port", str(port), *options]

    return Server("Elkyn", "synced before the answer", command, ".json")


def _sqlite(port: int, _folder: Path) -> list[str]:
    command = [sys.executable, "-m", "uvicorn", "sqlite_app:app", "--app-dir", str(HERE)]
    return [*command, "--port", str(port), "--log-level", "warning"]


def _redis(port: int, folder: Path) -> list[str]:
    command = ["redis-server", "--port", str(port), "--dir", str(folder), "--save", ""]
    return [*command, "--appendonly", "yes", "--appendfsync", "always", "--bind", "127.0.0.1"]


def _without_npm() -> str | None:
    if (HERE / "node_modules" / "firebase-server").is_dir():
        return None
    return f"npm ci --prefix {HERE.relative_to(HERE.parents[1])}"


def _without_redis() -> str | None:
    if shutil.which("redis-server") and shutil.which("redis-benchmark"):
        return None
    return "apt-get install redis-server"


SERVERS = (
    elkyn(),
    Server(
        "firebase-server 1.1",
        "in memory",
        lambda port, _folder: ["node", str(HERE / "firebase_server.cjs"), str(port)],
        ".json",
        missing=_without_npm,
    ),
    Server(
        "FastAPI + SQLite",
        "WAL, synchronous=FULL",
        _sqlite,
        environment=lambda folder: {"TREE_DB": str(folder / "tree.db")},
    ),
    Server("Redis", "appendfsync always", _redis, missing=_without_redis),
)


@contextmanager
def running(server: Server, folder: Path) -> Iterator[Running]:
    """Start a server on an empty folder and end it after the block."""
    folder.mkdir(parents=True, exist_ok=True)
    port = _free_port()
    with (folder / "log.txt").open("w") as log:
        environment = {**os.environ, **server.environment(folder)}
        process = subprocess.Popen(
            server.command(port, folder), stdout=log, stderr=log, env=environment
        )
    try:
        _wait_for(port, process, folder / "log.txt")
        yield Running(server, port, psutil.Process(process.pid))
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        shutil.rmtree(folder, ignore_errors=True)


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def _wait_for(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        if process.poll() is not None:
            break
        with socket.socket() as probe:
            probe.settimeout(1)
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise SystemExit(f"a server did not start: {log.read_text()[-2000:]}")
