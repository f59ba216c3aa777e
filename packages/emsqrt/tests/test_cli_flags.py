"""Flags of the first EM-√, other words for flags, and text that is not UTF-8."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet

from emsqrt.cli import main

FLOW = """
steps:
  - op: scan
    source: people.csv
    schema: [{name: name, type: Utf8, nullable: false}, {name: age, type: i64, nullable: false}]
  - op: filter
    expr: "age > 25"
  - op: map
    expr: "name AS who, age"
  - op: sink
    destination: older.csv
    format: csv
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "people.csv").write_text("name,age\nAda,36\nKurt,19\n")
    (tmp_path / "flow.yaml").write_text(FLOW)
    (tmp_path / "latin.csv").write_bytes("city,n\nZürich,2\nAarhus,1\nZürich,3\n".encode("latin-1"))
    parquet.write_table(pa.table({"n": [1]}), tmp_path / "n.parquet")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def emsqrt(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "emsqrt.cli", *words], capture_output=True, text=True
    )


@pytest.mark.slow
def test_the_command_of_the_first_em_sqrt_runs_as_it_is(folder: Path) -> None:
    words = [
        "--memory-cap",
        "67108864",
        "--spill-dir",
        str(folder / "spill"),
        "--max-parallel",
        "1",
    ]
    done = emsqrt("run", "--pipeline", "flow.yaml", *words)
    assert (done.returncode, done.stderr) == (0, "")
    assert (folder / "older.csv").read_text() == "who,age\nAda,36\n"
    assert "of 64.0 MiB" in done.stdout


@pytest.mark.slow
def test_validate_and_explain_accept_its_flags_too(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["validate", "-p", "flow.yaml"]) == 0
    assert main(["explain", "--pipeline", "flow.yaml", "--memory-cap", "536870912"]) == 0
    assert "filter age > 25" in capsys.readouterr().out


def test_a_store_to_spill_to_has_a_flag_of_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--spill-aws-region", "eu-west-1", "--spill-retry-max-ms", "500"]
    assert main(["run", "flow.yaml", "--spill-uri", "ftp://host/x", *words]) == 2
    assert "is no place to spill" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["run"], "no document is named"),
        (["run", "flow.yaml", "-p", "flow.yaml"], "two documents"),
        (["run", "flow.yaml", "--max-parallel", "0"], "--max-parallel 0"),
    ],
)
def test_invalid_arguments_are_refused(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["run", "flow.yaml", "--spill-aws-secret-access-key", "x"], "AWS_SECRET_ACCESS_KEY"),
        (["run", "flow.yaml", "--spill-gcs-service-account=key.json"], "GOOGLE_APPLICATION_CRED"),
        (["run", "flow.yaml", "--spill-azure-access-key", "x"], "AZURE_STORAGE_ACCOUNT_KEY"),
        (["run", "flow.yaml", "--spill-retry-max-retries", "3"], "--spill-retry-max-ms"),
        (["run", "flow.yaml", "--manifst", "x"], "did you mean --manifest?"),
        (["sort", "a", "b", "--by", "n", "--desc"], "name:desc"),
        (["sql", "select 1", "--memory-limit", "1GB"], "--mem-cap"),
    ],
)
def test_a_flag_of_another_engine_is_refused_with_ours(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 2
    assert message in capsys.readouterr().err


@pytest.mark.slow
def test_latin_1_is_sorted_and_grouped_when_it_is_named() -> None:
    assert emsqrt("agg", "latin.csv", "-", "--by", "city", "sum(n)", "--quiet").returncode == 5
    named = ("--encoding", "latin-1", "--quiet")
    done = emsqrt("agg", "latin.csv", "-", "--by", "city", "total=sum(n)", *named)
    assert (done.returncode, done.stdout) == (0, "city,total\nAarhus,1\nZürich,5\n"), done.stderr
    done = emsqrt("sort", "latin.csv", "out.csv", "--by", "n", *named)
    assert done.returncode == 0, done.stderr
    assert Path("out.csv").read_text() == "city,n\nAarhus,1\nZürich,2\nZürich,3\n"


@pytest.mark.nightly
def test_every_verb_over_files_accepts_an_encoding() -> None:
    named = ("--encoding", "latin-1")
    done = emsqrt("join", "latin.csv", "latin.csv", "-", "--on", "city,n", *named, "--quiet")
    assert done.stdout == "city,n\nZürich,2\nAarhus,1\nZürich,3\n", done.stderr
    stats = json.loads(emsqrt("stats", "latin.csv", *named, "--json").stdout)
    assert stats["columns"][0]["max"] == "Zürich"
    assert emsqrt("doctor", "latin.csv", *named).returncode == 0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("source", "name", "message"),
    [("n.parquet", "latin-1", "is for CSV"), ("latin.csv", "ebcdic", "is not read")],
)
def test_an_encoding_that_does_not_fit_is_refused(source: str, name: str, message: str) -> None:
    done = emsqrt("sort", source, "-", "--by", "n", "--encoding", name)
    assert done.returncode != 0
    assert message in done.stderr
