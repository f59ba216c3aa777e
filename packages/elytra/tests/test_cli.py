"""The command `elytra`, as users run it."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner, Result

from elytra.cli.program import app
from emsqrt.plan import DatasetRef, Scan, plan_to_json

DOCS = Path(__file__).resolve().parents[3] / "docs" / "elytra-cli.md"
FAR = """
def pipeline(local):
    return local.dataset("trips.csv").filter(lambda r: r.miles > 10).select("city")
"""


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EMSQRT_SPILL_DIR", str(tmp_path / "spill"))
    Path("trips.csv").write_text("city,miles\nRome,12\nOslo,3\n")
    Path("far.py").write_text(FAR)


def elytra(*words: str) -> Result:
    return CliRunner().invoke(app, list(words))


def test_a_python_file_is_run() -> None:
    done = elytra("run", "--local", "far.py")

    assert (done.exit_code, done.stdout) == (0, "city\nRome\n")


def test_rows_are_written_to_a_file() -> None:
    assert elytra("run", "far.py", "--output", "far.csv").exit_code == 0
    assert Path("far.csv").read_text() == "city\nRome\n"
    assert elytra("run", "far.py", "-o", "far.xls").exit_code == 2


def test_steps_and_their_sink_are_run() -> None:
    Path("far.yaml").write_text(
        "config: {mem_cap: 64MiB}\nsteps: [scan: trips.csv, filter: miles > 10, sink: out.jsonl]\n"
    )

    assert elytra("run", "far.yaml").exit_code == 0
    assert json.loads(Path("out.jsonl").read_text()) == {"city": "Rome", "miles": 12}
    explained = elytra("explain", "far.yaml").stdout
    assert "under 64.0 MiB" in explained
    assert "writes out.jsonl" in explained


def test_explain_runs_nothing() -> None:
    done = elytra("explain", "far.py", "--mem-cap", "64MiB")

    assert done.exit_code == 0
    assert "under 64.0 MiB" in done.stdout
    assert "filter miles > 10" in done.stdout


@pytest.mark.parametrize(
    ("name", "text", "status", "says"),
    [
        ("none.py", None, 4, 'there is no file "none.py"'),
        ("empty.py", "", 2, "has no function pipeline"),
        ("wrong.py", "def pipeline(local):\n    return 5\n", 2, "returns none"),
        ("fails.py", "def pipeline(local):\n    return 1 / 0\n", 2, "fails.py, line 2: ZeroDivi"),
        ("bad.py", "def pipeline(:\n", 2, "bad.py, line 1"),
        ("bad.json", "{", 2, "not JSON"),
        ("unknown.py", FAR.replace("r.miles", "r.mils"), 2, 'did you mean "miles"'),
        (
            "node.json",
            json.dumps(plan_to_json(Scan(DatasetRef("trips")))),
            2,
            "the dataset 'trips', which is on a node",
        ),
        ("more.yaml", "config: {seed: 5}\nsteps: [scan: trips.csv]\n", 2, "sets seed"),
    ],
    ids=["missing", "empty", "wrong", "fails", "syntax", "json", "column", "node", "setting"],
)
def test_mistakes_are_reported(name: str, text: str | None, status: int, says: str) -> None:
    if text is not None:
        Path(name).write_text(text)

    done = elytra("run", name)

    assert (done.exit_code, done.stdout) == (status, "")
    assert says in done.stderr
    assert "Traceback" not in done.stderr


def test_the_page_names_every_verb() -> None:
    verbs = set(typer.main.get_group(app).commands)

    assert set(re.findall(r"^\| `elytra (\w+)", DOCS.read_text(), re.MULTILINE)) == verbs


def test_it_is_a_program() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "elytra.cli", "run", "far.py"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "city\nRome\n", "")
