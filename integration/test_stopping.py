"""A node stops within seconds with any clients, and leaves nothing behind."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from nodes import RunningNode, platform, running_node
from sennit import run_file


def listen(node: RunningNode, path: str, ready: Any) -> None:
    """Hold an event stream open until the node ends it."""
    headers = {**node.headers, "accept": "text/event-stream"}
    try:
        with httpx.stream("GET", f"{node.url}{path}", headers=headers, timeout=30) as stream:
            for _line in stream.iter_lines():
                ready.set()
    except httpx.HTTPError:
        ready.set()


def segments() -> Any:
    """Names in shared memory that are ours."""
    return {
        path.name
        for path in Path("/dev/shm").glob("*")
        if "strand" in path.name or "sennit" in path.name
    }


@pytest.mark.nightly
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_a_node_with_open_streams(number: signal.Signals, tmp_path: Path) -> None:
    before = segments()
    with running_node(tmp_path, "--api-only", "--memory", "1GiB") as node:
        with node.session() as session:
            assert [tuple(row) for row in session.sql("select 1 as a").rows] == [(1,)]
        family = psutil.Process(node.process.pid).children(recursive=True)
        assert family, "an executor was at work"
        ready = threading.Event()
        listener = threading.Thread(target=listen, args=(node, "/jobs.json?ns=sys", ready))
        listener.start()
        assert ready.wait(10)
        node.process.send_signal(number)
        began = time.monotonic()
        status = node.process.wait(timeout=5)
        listener.join(5)
    assert status == 0, f"stopped with {status} after {time.monotonic() - began:.1f} s"
    assert not any(process.is_running() for process in family)
    assert segments() == before
    assert not (tmp_path / "run.json").exists()
    assert list((tmp_path / "spill").glob("[!.]*")) == []


def test_down_stops_a_detached_node(tmp_path: Path) -> None:
    platform("up", "--detach", "--api-only", "--port", "0", "--memory", "1GiB", data=tmp_path)
    running = run_file.read(tmp_path)
    assert running is not None
    platform("down", data=tmp_path)
    assert not psutil.pid_exists(running.pid) or psutil.Process(running.pid).status() == "zombie"
    assert run_file.read(tmp_path) is None


@pytest.mark.nightly
def test_three_nodes_start_and_stop_together(tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    arguments = ("--nodes", "3", "--detach", "--api-only", "--memory", "512MiB")
    platform("up", *arguments, "--port", str(port), data=tmp_path)
    try:
        folders = [tmp_path, tmp_path / "nodes" / "1", tmp_path / "nodes" / "2"]
        found = [run_file.read(folder) for folder in folders]
        urls = [one.url for one in found if one is not None]
        assert urls == [f"http://127.0.0.1:{port + 10 * index}" for index in range(3)]
        assert all(httpx.get(f"{url}/healthz").status_code == 200 for url in urls)
    finally:
        platform("down", data=tmp_path)
    assert all(run_file.read(folder) is None for folder in folders)


@pytest.mark.nightly
def test_a_port_in_use_is_reported(tmp_path: Path) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        done = platform("up", "--port", str(port), "--api-only", data=tmp_path, check=False)
    assert done.returncode == 5
    assert f"port {port} is in use" in done.stderr
    assert "--port" in done.stderr


@pytest.mark.nightly
def test_a_stale_run_file_does_not_keep_a_node_from_starting(tmp_path: Path) -> None:
    run_file.RunFile(os.getpid(), 1, "http://127.0.0.1:1", "0.0.0").write(tmp_path)
    with running_node(tmp_path, "--api-only", "--memory", "1GiB") as node:
        assert httpx.get(f"{node.url}/healthz").text == "ok\n"
        found = run_file.read(tmp_path)
        assert found is not None
        assert found.url == node.url


@pytest.mark.nightly
def test_an_idle_node_is_small(tmp_path: Path) -> None:
    with running_node(tmp_path, "--api-only", "--memory", "1GiB") as node:
        httpx.get(f"{node.url}/api/stats", headers=node.headers)
        processes = [psutil.Process(node.process.pid)]
        processes += processes[0].children(recursive=True)
        resident = sum(process.memory_full_info().pss for process in processes)
    assert resident <= 250 << 20, f"{resident >> 20} MiB"
