"""The commands that work without a server."""

from __future__ import annotations

import io
import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from elkyn import ElkynStore
from elkyn.cli import main


@pytest.fixture
def data(tmp_path: Path) -> str:
    return str(tmp_path / "data")


def test_written_values_can_be_read(data: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["set", "--data", data, "/a", '{"b": [1, "é"]}']) == 0
    assert main(["get", "--data", data, "/a/b"]) == 0
    assert capsys.readouterr().out == '[\n  1,\n  "é"\n]\n'


def test_an_export_goes_in_again(data: str, tmp_path: Path) -> None:
    file, other = tmp_path / "tree.json", str(tmp_path / "other")
    main(["set", "--data", data, "/", '{"a": {"b": 1}, "c": [true]}'])
    assert main(["export", "--data", data, str(file)]) == 0
    assert main(["import", "--data", other, str(file)]) == 0
    assert main(["import", "--data", other, "--path", "/under", str(file)]) == 0
    with ElkynStore(Path(other) / "default") as store:
        tree = json.loads(file.read_text(encoding="utf-8"))
        assert store.get("/") == {**tree, "under": tree}


def test_values_come_from_standard_input_too(
    data: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO('"piped"'))
    assert main(["set", "--data", data, "/a", "-"]) == 0
    assert main(["export", "--data", data]) == 0
    assert json.loads(capsys.readouterr().out) == {"a": "piped"}


def test_a_reader_that_has_seen_enough_is_no_error(data: str) -> None:
    tree = json.dumps({f"key {number}": "x" * 100 for number in range(10_000)})
    assert main(["set", "--data", data, "/", tree]) == 0
    command = [sys.executable, "-m", "elkyn.cli", "get", "--data", data, "/"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == b"{\n"
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 128 + signal.SIGPIPE


def test_mistakes_are_reported_with_a_hint_and_exit_code_2(
    data: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["set", "--data", data, "/a", "text"]) == 2
    assert "hint: a JSON string needs its own quotes" in capsys.readouterr().err
    assert main(["set", "--data", data, "/a.b", "1"]) == 2
    assert "must not hold" in capsys.readouterr().err


def test_reading_makes_no_namespace(data: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["get", "--data", data, "--namespace", "nope"]) == 1
    assert 'there is no namespace "nope"' in capsys.readouterr().err
    assert list(Path(data).iterdir()) == []


def test_a_store_in_use_is_named_with_its_process(
    data: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with ElkynStore(Path(data) / "default"):
        assert main(["get", "--data", data, "/"]) == 1
    assert "is open in process" in capsys.readouterr().err
