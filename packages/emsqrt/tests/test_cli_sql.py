"""`emsqrt sql`: a statement over files, its rows on the terminal, as text, or in a file."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet

COMMAND = [sys.executable, "-m", "emsqrt.cli", "sql"]
QUERY = "select city, count(*) as n from 'people.parquet' group by city order by city"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    people = pa.table({"city": ["Brno", "London", "London", None], "age": [19, 36, 41, 7]})
    parquet.write_table(people, tmp_path / "people.parquet")
    (tmp_path / "people.csv").write_text("city,age\nBrno,19\nLondon,36\nLondon,41\n,7\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def ask(*words: str, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*COMMAND, *words], capture_output=True, text=True, input=stdin)


@pytest.mark.nightly
def test_rows_go_to_a_pipe_as_csv_and_nothing_else_is_printed() -> None:
    done = ask(QUERY)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "city,n\nBrno,1\nLondon,2\n,1\n"


@pytest.mark.nightly
def test_rows_go_to_a_terminal_as_a_table() -> None:
    leader, follower = pty.openpty()
    with os.fdopen(leader, "rb") as screen:
        command = [*COMMAND, QUERY, "--quiet"]
        process = subprocess.Popen(command, stdout=follower, stderr=subprocess.PIPE)
        os.close(follower)
        shown = b""
        while piece := _read(screen.fileno()):
            shown += piece
        _, errors = process.communicate()
    assert (process.returncode, errors) == (0, b"")
    text = shown.decode().replace("\r\n", "\n")
    assert "│ London  │      2 │\n│ NULL    │      1 │\n" in text
    assert text.endswith("(3 rows)\n")


def _read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 4096)
    except OSError:  # the other end of the terminal was closed
        return b""


@pytest.mark.nightly
@pytest.mark.parametrize("source", ["people.csv", "people.parquet"])
def test_a_table_says_when_there_are_more_rows(source: str) -> None:
    done = ask(f"select age from '{source}'", "--format", "table", "--rows", "2")
    assert done.returncode == 0, done.stderr
    assert "│     36 │" in done.stdout
    assert "41" not in done.stdout
    assert "the first 2 rows; there are more" in done.stdout


@pytest.mark.slow
def test_a_statement_in_a_file_is_answered_in_the_requested_format(folder: Path) -> None:
    (folder / "query.sql").write_text("select city, age + 1 as next from people where age < 20")
    done = ask("-f", "query.sql", "--table", "people=people.csv", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout) == [{"city": "Brno", "next": 20}, {"city": None, "next": 8}]


@pytest.mark.nightly
def test_each_format_has_the_same_rows(folder: Path) -> None:
    wanted = [{"city": "Brno", "n": 1}, {"city": "London", "n": 2}, {"city": None, "n": 1}]
    assert json.loads(ask(QUERY, "--json").stdout) == wanted
    lines = ask(QUERY, "--jsonl").stdout.splitlines()
    assert [json.loads(line) for line in lines] == wanted
    assert ask(QUERY, "--format", "tsv").stdout == "city\tn\nBrno\t1\nLondon\t2\n\t1\n"
    assert ask(QUERY, "-o", "out.parquet").returncode == 0
    assert parquet.read_table(folder / "out.parquet").to_pylist() == wanted
    assert ask(QUERY, "-o", "out.json", "--quiet").stdout == ""
    assert json.loads((folder / "out.json").read_text()) == wanted


@pytest.mark.nightly
def test_an_array_of_no_rows_is_json() -> None:
    assert json.loads(ask("select age from 'people.csv' where age > 99", "--json").stdout) == []


@pytest.mark.nightly
def test_statements_come_from_files_and_standard_input_and_so_do_tables(folder: Path) -> None:
    (folder / "query.sql").write_text("select sum(age) as s from people")
    done = ask("-f", "query.sql", "--table", "people=people.csv")
    assert done.stdout == "s\n103\n", done.stderr
    assert ask("-", stdin="select 6 * 7 as n").stdout == "n\n42\n"
    rows = ask("select count(*) as n from '/dev/stdin'", stdin="a\n1\n2\n")
    assert rows.stdout == "n\n2\n", rows.stderr


@pytest.mark.sample(1)
@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        (("selec 1",), 2, "line 1"),
        (("select nope from 'people.csv'",), 2, "no column nope"),
        (("select * from 'nope.csv'",), 5, "nope.csv"),
        ((), 2, "one statement"),
        (("select 1", "-f", "a.sql"), 2, "one statement"),
        (("-f", "a.sql"), 5, "a.sql"),
        (("select 1", "-o", "out.xyz"), 2, "use --format"),
        (("select 1", "-o", "out.csv", "--format", "table"), 2, "cannot be written to a file"),
        (("select 1", "--table", "people"), 2, "--table NAME=FILE"),
        (("select 1", "--rows", "-1", "--format", "table"), 2, "not a number of rows"),
    ],
)
def test_impossible_requests_are_reported_with_their_status(
    words: tuple[str, ...], status: int, message: str
) -> None:
    done = ask(*words)
    assert (done.returncode, done.stdout) == (status, "")
    assert message in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.nightly
@pytest.mark.parametrize("source", ["people.csv", "people.parquet"])
def test_a_cap_that_is_too_small_is_refused_with_one_that_is_enough(source: str) -> None:
    query = f"select city, count(*) as n from '{source}' group by city"
    refused = ask(query, "--mem-cap", "20MiB")
    assert refused.returncode == 3
    (least,) = re.findall(r"at least ([0-9.]+ MiB)", refused.stderr)
    done = ask(query, "--mem-cap", least.replace(" ", ""), "--manifest", "manifest.json")
    assert done.returncode == 0, done.stderr
    assert done.stdout == "city,n\nBrno,1\nLondon,2\n,1\n"
    manifest = json.loads(Path("manifest.json").read_text())
    assert manifest["peakBytes"] <= manifest["capBytes"]
