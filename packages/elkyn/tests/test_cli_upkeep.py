"""`elkyn backup`, `restore`, `archive`, `verify` and `compact`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from elkyn import ElkynStore, open_namespaces
from elkyn.cli import main


def run(verb: str, data: Path, *arguments: object) -> int:
    return main([verb, "--data", str(data), *map(str, arguments)])


@pytest.fixture
def data(tmp_path: Path) -> Path:
    with open_namespaces(tmp_path / "data") as stores:
        for number in range(10):
            stores["default"].set("/n", number)
    return tmp_path / "data"


def test_a_tree_is_backed_up_and_restored_to_any_position(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("backup", data, tmp_path / "copy") == 0
    with open_namespaces(data) as stores:
        stores["default"].set("/n", "later")
        stores["default"].set("/n", "latest")
    assert run("archive", data, tmp_path / "archive") == 0
    new = tmp_path / "new"
    assert run("restore", new, tmp_path / "copy", "--archive", tmp_path / "archive") == 0
    assert run("get", new, "/n") == 0
    other = tmp_path / "other"
    arguments = [tmp_path / "copy", "--archive", tmp_path / "archive", "--position", "11"]
    assert run("restore", other, *arguments) == 0
    assert run("get", other, "/n") == 0
    assert '"latest"' in (shown := capsys.readouterr().out)
    assert '"later"' in shown
    assert run("restore", other, *arguments) == 2
    assert run("restore", tmp_path / "third", tmp_path / "copy", "--time", "soon") == 2


@pytest.mark.slow
def test_a_tree_that_another_process_has_open_is_backed_up(data: Path, tmp_path: Path) -> None:
    code = (
        "import sys; from elkyn import ElkynStore; store = ElkynStore(sys.argv[1])\n"
        "store.set('/n', 'open'); print('ready', flush=True); sys.stdin.readline()\n"
        "store.set('/n', 'after'); store.close()"
    )
    command = [sys.executable, "-c", code, str(data / "default")]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as owner:
        assert owner.stdout is not None
        assert owner.stdout.readline() == "ready\n"
        assert run("backup", data, tmp_path / "copy") == 0
        owner.communicate("go on\n", timeout=60)
    assert owner.returncode == 0
    with ElkynStore(tmp_path / "copy") as copy, ElkynStore(data / "default") as store:
        assert (copy.get("/n"), store.get("/n")) == ("open", "after")


@pytest.mark.slow
def test_a_tree_is_verified_and_compacted(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("verify", data) == 0
    assert run("compact", data) == 0
    assert "bytes before" in capsys.readouterr().out
    with open_namespaces(data) as stores:
        env = stores["default"]._disk._durable
        txn = env.begin_write()
        txn.put(b"\x01\x77\x02lost", b"\x01\x01", db=env.databases["tree"])
        txn.commit()
    assert run("verify", data) == 1
    assert "unreachable from the root" in capsys.readouterr().out
    assert run("verify", data, "--namespace", "nothing") == 1
