"""The command line without a node: help, errors and their exit status."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from sennit.cli import app, run
from sennit.cli.output import report, table
from sennit_core.errors import SqlError

DOCS = Path(__file__).resolve().parents[3] / "docs" / "cli.md"


def verbs() -> Any:
    commands = {
        command.name or getattr(command.callback, "__name__", "").replace("_", "-")
        for command in app.registered_commands
    }
    return commands | {group.name for group in app.registered_groups}


def test_every_verb_is_documented() -> None:
    documented = set(re.findall(r"^\| `platform ([\w-]+)", DOCS.read_text(), re.MULTILINE))
    assert documented == verbs()


@pytest.mark.parametrize("verb", sorted(verbs()))
def test_every_verb_has_help(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([verb, "--help"]) == 0
    assert f"platform {verb}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (["frobnicate"], 2, "frobnicate"),
        (["sql"], 2, "query"),
        (["up", "--nodes", "0"], 2, "--nodes"),
        (["put", "a.csv", "b.csv", "--name", "c"], 2, "--name"),
        (["sql", "select 1"], 3, "no node is running for"),
        (["status"], 3, "platform up"),
        (["logs"], 2, "no log"),
        (["up", "--memory", "12 parsecs"], 2, "parsecs"),
        (["up", "--memory", "1MiB"], 2, "512"),
        (["up", "--host", "0.0.0.0"], 2, "TLS"),
    ],
)
def test_wrong_use_names_the_mistake_and_the_fix(
    arguments: list[str],
    status: int,
    words: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SENNIT_DATA", str(tmp_path))
    monkeypatch.delenv("SENNIT_URL", raising=False)
    assert run(arguments) == status
    assert words in capsys.readouterr().err


def test_errors_are_json_when_json_is_requested(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SENNIT_URL", raising=False)
    assert run(["status", "--json", "--data", str(tmp_path)]) == 3
    assert json.loads(capsys.readouterr().err)["code"] == "unavailable"


def test_down_without_a_node_is_not_an_error(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert run(["down", "--data", str(tmp_path)]) == 0
    assert "no node" in capsys.readouterr().out


def test_doctor_finds_this_machine_fit(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert run(["doctor", "--json", "--data", str(tmp_path)]) == 0
    findings = json.loads(capsys.readouterr().out)
    assert {"python", "disk", "C cores"} <= {finding["subject"] for finding in findings}


def test_doctor_fails_where_something_is_wrong(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sennit.doctor._DISK_MIN_BYTES", 1 << 62)
    assert run(["doctor", "--data", str(tmp_path)]) == 1
    assert "to fix disk" in capsys.readouterr().out


def test_version_names_every_package(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["version", "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)) == 7


def test_the_module_runs_as_the_command() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "sennit.cli", "--help"], capture_output=True, text=True, check=True
    )
    assert "platform" in done.stdout


def test_a_narrow_terminal_leaves_columns_out_and_names_them(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("FORCE_COLOR", "1")
    names = [f"column_{index}" for index in range(9)]

    table("All of them", names, [[12345] * 9])

    printed = re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().out)
    assert "column_2" in printed.splitlines()[2]
    assert "12,345" in printed
    assert "… and 6 more: column_3" in printed
    assert all(len(line) <= 40 for line in printed.splitlines())


def test_a_pipe_gets_every_column(capsys: pytest.CaptureFixture[str]) -> None:
    names = [f"column_{index}" for index in range(15)]

    table(None, names, [[12345] * 15], grouped=False)

    assert capsys.readouterr().out.count("12345") == 15


@pytest.mark.parametrize(("flag", "words"), [([], "info    a: hello"), (["--json"], '"a"')])
def test_logs_are_readable_and_json_on_request(
    flag: list[str], words: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "logs").mkdir()
    entry = {"time": "2026-01-01T00:00:00Z", "level": "info", "logger": "a", "message": "hello"}
    (tmp_path / "logs" / "audit.log").write_text("not json\n" + json.dumps(entry) + "\n")

    assert run(["logs", "--which", "audit", "--data", str(tmp_path), *flag]) == 0
    printed = capsys.readouterr().out
    assert words in printed
    assert "not json" in printed


def test_an_empty_log_is_reported(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "logs").mkdir()
    assert run(["logs", "--data", str(tmp_path)]) == 0
    assert "is empty" in capsys.readouterr().err
    assert run(["logs", "--which", "nope", "--data", str(tmp_path)]) == 2


def test_a_missing_file_is_reported_before_a_request_is_sent(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert run(["put", str(tmp_path / "no.csv"), "--data", str(tmp_path)]) == 2
    assert "no such file" in capsys.readouterr().err


def test_an_absent_node_is_reported_in_one_sentence(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SENNIT_URL", raising=False)
    assert run(["status", "--data", str(tmp_path)]) == 3
    assert capsys.readouterr().err.startswith(f"error: no node is running for {tmp_path}\n")


def test_an_sql_error_names_its_place(capsys: pytest.CaptureFixture[str]) -> None:
    assert report(SqlError("syntax error at WHERE", line=2, column=8), as_json=False) == 2
    assert "syntax error at WHERE (line 2, column 8)" in capsys.readouterr().err
