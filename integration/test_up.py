"""`platform up` where a node already runs, starts, or has left its traces."""

from __future__ import annotations

import fcntl
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from nodes import RunningNode, platform, quiet_environment
from sennit import run_file

UP = ("up", "--api-only", "--memory", "1GiB", "--port", "0")


@pytest.mark.nightly
def test_up_on_a_running_folder_names_the_node(node: RunningNode) -> None:
    before = (node.data / "logs" / "up.log").exists()
    for words in (("up",), UP, ("up", "--detach", "--port", "0"), ("up", "--nodes", "2")):
        refused = platform(*words, data=node.data, check=False)
        assert refused.returncode == 5, words
        assert f"{node.url} (pid {node.process.pid})" in refused.stderr
        assert "platform down" in refused.stderr
    assert node.process.poll() is None
    assert (node.data / "logs" / "up.log").exists() == before


@pytest.mark.nightly
def test_detaching_twice_is_the_same_as_once(node: RunningNode) -> None:
    again = platform("up", "--detach", data=node.data)
    assert f"already up: {node.url}" in again.stdout
    shown = json.loads(platform("up", "--detach", "--json", data=node.data).stdout)
    assert (shown["url"], shown["pid"]) == (node.url, node.process.pid)


@pytest.mark.nightly
def test_two_that_detach_at_once_have_one_node(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "sennit.cli", "up", "--detach", "--json"]
    started = [
        subprocess.Popen(
            [*command, "--data", str(tmp_path)],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env=quiet_environment() | {"SENNIT_NETWORK__PORT": "0"},
        )
        for _ in range(2)
    ]  # fmt: skip
    try:
        answers = [process.communicate(timeout=100) for process in started]
        running = run_file.read(tmp_path)
        assert running is not None
        for process, (out, err) in zip(started, answers, strict=True):
            # One of them may have looked in the moment in which the other one was starting.
            assert process.returncode == 0 or (process.returncode == 5 and "starting" in err), err
            assert not out or json.loads(out)["url"] == running.url
    finally:
        platform("down", data=tmp_path)


@pytest.mark.nightly
def test_up_while_another_starts_says_so(tmp_path: Path) -> None:
    with (tmp_path / "node.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for words in (UP, (*UP, "--detach"), ("up", "--detach")):
            refused = platform(*words, data=tmp_path, check=False)
            assert refused.returncode == 5
            assert "starting or stopping" in refused.stderr


@pytest.mark.sample(1)
@pytest.mark.parametrize(
    "pid",
    [os.getpid(), 1, 2**31 - 1, -1, 0, 10**400],
    ids=["of another program", "of init", "unused", "negative", "zero", "huge"],
)
def test_a_run_file_of_no_node_of_ours_is_replaced(tmp_path: Path, pid: int) -> None:
    document = {"pid": pid, "startTicks": 1, "url": "http://127.0.0.1:1", "version": "0"}
    (tmp_path / "run.json").write_text(json.dumps(document))
    assert platform("status", data=tmp_path, check=False).returncode == 3
    assert "no node" in platform("down", data=tmp_path).stdout


@pytest.mark.nightly
def test_a_node_starts_over_a_stale_run_file(tmp_path: Path) -> None:
    document = {"pid": os.getpid(), "startTicks": 1, "url": "http://127.0.0.1:1", "version": "0"}
    (tmp_path / "run.json").write_text(json.dumps(document))
    up = json.loads(platform(*UP, "--detach", "--json", data=tmp_path).stdout)
    try:
        assert json.loads(platform("status", "--json", data=tmp_path).stdout)["url"] == up["url"]
    finally:
        platform("down", data=tmp_path)


@pytest.mark.nightly
def test_a_port_in_use_is_named_with_and_without_detaching(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = str(listener.getsockname()[1])
        for words in (("up", "--port", port), ("up", "--detach", "--port", port)):
            refused = platform(*words, data=tmp_path, check=False)
            assert refused.returncode == 5
            assert f"port {port} is in use" in refused.stderr


@pytest.mark.nightly
def test_watching_a_missing_node_is_an_error(node: RunningNode) -> None:
    job = "0" * 26
    for target in ("flights", "/no/such/path", job, "01ARZ3NDEKTSV4RRFFQ69G5FAV"):
        done = platform("watch", target, data=node.data, check=False)
        assert done.returncode == 4, (target, done.stderr)
        assert target in done.stderr
    other = platform("watch", "/a", "--ns", "nowhere", data=node.data, check=False)
    assert other.returncode == 4
