"""Which Node builds a checkout's playground, and that one installs at a time."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sennit import playground


def program(folder: Path, name: str, text: str) -> None:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


@pytest.mark.parametrize(
    ("version", "has_npm", "chosen"),
    [
        ("v24.1.0", True, "machine"),
        ("v20.9.0", True, "machine"),
        ("v20.8.9", True, "lock"),
        ("v24.1.0", False, "lock"),
        ("what?", True, "lock"),
    ],
)
def test_the_machines_node_is_used_when_it_is_new_enough_and_has_npm(
    version: str, has_npm: bool, chosen: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine, lock = tmp_path / "machine", tmp_path / "lock"
    for folder in (machine, lock):
        folder.mkdir()
    program(machine, "node", f"echo '{version}'")
    program(lock, "node", "echo v24.0.0")
    program(lock, "npm", "true")
    if has_npm:
        program(machine, "npm", "true")
    monkeypatch.setenv("PATH", str(machine))
    monkeypatch.setattr(playground, "_venv_node", lambda: str(lock / "node"))

    assert playground._node_folder() == tmp_path / chosen


INSTALLING = """
import sys
from pathlib import Path
from sennit import playground
playground._TREE = Path(sys.argv[1])
with playground._build_lock():
    playground._run(["sh", "-c", "echo $$ > installer; exec sleep 60"], {}, None)
"""


def test_an_installer_whose_starter_was_killed_is_not_joined_by_another(tmp_path: Path) -> None:
    starter = subprocess.Popen([sys.executable, "-c", INSTALLING, str(tmp_path)])
    pid_file = tmp_path / "installer"
    while not (pid_file.is_file() and pid_file.read_text().strip()):
        assert starter.poll() is None
        time.sleep(0.01)
    starter.kill()
    starter.wait()
    with (tmp_path / ".platform" / "playground.lock").open("w") as lock:
        with pytest.raises(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.kill(int(pid_file.read_text()), signal.SIGKILL)
        fcntl.flock(lock, fcntl.LOCK_EX)  # is free now
