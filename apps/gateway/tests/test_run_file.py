"""run.json and the lock that makes a folder one node's."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from sennit import run_file
from sennit_core.errors import Conflict


def written_by(pid: int, data: Path) -> None:
    ticks = run_file.start_ticks(pid)
    assert ticks is not None
    run_file.RunFile(pid, ticks, "http://127.0.0.1:8600", "0.1.0").write(data)


def test_a_running_node_is_found(tmp_path: Path) -> None:
    written_by(os.getpid(), tmp_path)
    found = run_file.read(tmp_path)
    assert found is not None
    assert found.url == "http://127.0.0.1:8600"


def test_a_file_of_a_dead_process_counts_as_none(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        written_by(child.pid, tmp_path)
        assert run_file.read(tmp_path) is not None
        child.kill()
    assert run_file.read(tmp_path) is None


def test_a_reused_pid_is_not_mistaken_for_the_node(tmp_path: Path) -> None:
    run_file.RunFile(os.getpid(), 1, "http://127.0.0.1:8600", "0.1.0").write(tmp_path)
    assert run_file.read(tmp_path) is None


@pytest.mark.parametrize("text", ["", "{", "[]", '{"pid": "x"}', "null"])
def test_a_damaged_file_counts_as_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "run.json").write_text(text)
    assert run_file.read(tmp_path) is None


def test_remove_leaves_another_nodes_file(tmp_path: Path) -> None:
    written_by(os.getppid(), tmp_path)
    run_file.remove(tmp_path)
    assert (tmp_path / "run.json").exists()


def test_a_second_node_on_the_same_folder_names_the_first(tmp_path: Path) -> None:
    with run_file.sole_owner(tmp_path):
        written_by(os.getpid(), tmp_path)
        with pytest.raises(Conflict, match="already serves"), run_file.sole_owner(tmp_path):
            pass


def test_the_lock_goes_with_its_process(tmp_path: Path) -> None:
    hold = (
        "import sys, pathlib; from sennit import run_file\n"
        "with run_file.sole_owner(pathlib.Path(sys.argv[1])): print('held', flush=True); input()"
    )
    command = [sys.executable, "-c", hold, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"held\n"
        with pytest.raises(Conflict), run_file.sole_owner(tmp_path):
            pass
        child.kill()
    with run_file.sole_owner(tmp_path):
        pass
