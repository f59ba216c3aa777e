from __future__ import annotations

import json
import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet

from emsqrt.cli import main
from emsqrt.executor import EntryContext
from emsqrt.pipeline import scan
from emsqrt.plan import plan_to_json
from emsqrt.steps import plan_from_steps
from sennit_core.errors import Unsupported, UsageError
from sennit_core.schema import Schema

STEPS: list[dict[str, Any]] = [
    {
        "scan": {
            "source": "logs.csv",
            "schema": [{"name": "uid", "type": "Utf8"}, {"name": "amount", "type": "Float64"}],
        }
    },
    {"filter": {"expr": "amount > 1000"}},
    {"aggregate": {"group_by": ["uid"], "aggs": ["COUNT(*)", "SUM(amount)"]}},
    {"sink": {"destination": "summary.csv", "format": "csv"}},
]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "logs.csv").write_text("uid,amount\na,1500\nb,20\na,2000.5\n")
    (tmp_path / "plan.json").write_text(json.dumps({"steps": STEPS}))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.sample(1)
@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "text"), [("in.tsv", "n\tt\n1\ta,b\n"), ("in.jsonl", '{"n":1,"t":"a,b"}\n')]
)
def test_standard_output_has_the_format_of_the_source(name: str, text: str, folder: Path) -> None:
    (folder / name).write_text(text)
    words = [sys.executable, "-m", "emsqrt.cli", "sort", name, "-", "--by", "n", "--quiet"]
    assert subprocess.run(words, check=True, stdout=subprocess.PIPE).stdout.decode() == text


def test_a_document_of_steps_is_the_same_plan_as_a_pipeline() -> None:
    schema = Schema.of(uid="Utf8", amount="Float64")
    pipeline = (
        scan("logs.csv", schema=schema)
        .filter("amount > 1000")
        .group_by("uid")
        .agg("count(*)", "sum(amount)")
        .sink("summary.csv")
    )
    assert plan_to_json(plan_from_steps(STEPS)) == plan_to_json(pipeline.plan)


def emsqrt(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "emsqrt.cli", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_run_writes_the_output_and_prints_a_summary(folder: Path) -> None:
    done = emsqrt("run", "plan.json", "--mem-cap", "64MiB", "--spill-dir", "spill")
    assert (done.returncode, done.stderr) == (0, "")
    assert (folder / "summary.csv").read_text() == "uid,count,sum_amount\na,2,3500.5\n"
    assert done.stdout.startswith("summary.csv: 1 rows, ")
    assert "of 64.0 MiB" in done.stdout


@pytest.mark.slow
def test_the_summary_names_the_operators_that_spilled(folder: Path) -> None:
    lines = (f"{n * 7919 % 100_003},{n}{'x' * 40}\n" for n in range(100_000))
    (folder / "big.csv").write_text("k,v\n" + "".join(lines))
    sort = ("sort", "big.csv", "sorted.csv", "--by", "k", "--spill-dir", "spill")
    assert re.search(
        r"\nspilled [0-9.]+ MiB: sort \([0-9]+ runs\)\n$", emsqrt(*sort, "--cap", "16MiB").stdout
    )
    assert "spilled" not in emsqrt(*sort, "--cap", "256MiB").stdout


@pytest.mark.slow
def test_run_prints_the_manifest_as_json(folder: Path) -> None:
    (folder / "plan.json").write_text(json.dumps(plan_to_json(plan_from_steps(STEPS))))
    manifest = json.loads(emsqrt("run", "plan.json", "--json").stdout)
    assert (manifest["rowsIn"], manifest["rowsOut"]) == (3, 1)
    assert manifest["capBytes"] == 512 << 20


def test_explain_prints_operators_columns_and_hash(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["explain", "plan.json"]) == 0
    out = capsys.readouterr().out
    assert "filter amount > 1000" in out
    assert "sum_amount: Float64" in out


@pytest.mark.slow
@pytest.mark.sample(1)
@pytest.mark.parametrize(
    ("change", "status", "words"),
    [
        ({"filter": {"expr": "amont > 1"}}, 2, 'did you mean "amount"'),
        ({"filter": {"expr": "amount >"}}, 2, "amount >"),
        ({"filter": {}}, 2, "filter needs 'expr'"),
        ({"fliter": {"expr": "true"}}, 2, 'did you mean "filter"'),
    ],
)
def test_invalid_steps_are_reported_with_their_status(
    folder: Path, change: dict[str, Any], status: int, words: str
) -> None:
    (folder / "plan.json").write_text(json.dumps({"steps": [STEPS[0], change, STEPS[3]]}))
    done = emsqrt("run", "plan.json")
    assert done.returncode == status
    assert words in done.stderr


@pytest.mark.slow
def test_a_cap_in_the_way_has_a_status_of_its_own(folder: Path) -> None:
    assert emsqrt("run", "plan.json", "--mem-cap", "8MiB").returncode == 3


@pytest.mark.parametrize(
    "steps", [[], [STEPS[1]], [STEPS[0], STEPS[0]], [{"scan": 1}], [{}], ["scan"]]
)
def test_steps_that_are_no_plan_are_refused(steps: list[Any]) -> None:
    with pytest.raises((UsageError, Unsupported)):
        plan_from_steps(steps)


@pytest.mark.slow
def test_the_command_starts_without_loading_an_engine() -> None:
    code = (
        "import sys\nfrom emsqrt.cli import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit:\n    pass\n"
        "assert not {'pyarrow', 'numpy', 'ormsgpack'} & {*sys.modules}, 'too much'\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "run a pipeline" in done.stdout


@pytest.mark.nightly
def test_doctor_names_caps_and_leaves_every_file_alone(folder: Path) -> None:
    before = {path: path.read_bytes() for path in folder.iterdir()}
    done = emsqrt("doctor", "logs.csv")
    assert done.returncode == 0, done.stderr
    for verb in ("sort", "agg", "join"):
        assert re.search(rf"^{verb} +[0-9.]+ MiB ", done.stdout, re.MULTILINE)
    assert {path: path.read_bytes() for path in folder.iterdir()} == before


class Writer:
    payload_bytes_max = 1 << 20

    def write_bytes(self, payload: object) -> None:
        raise AssertionError("nothing is written")


def test_a_context_removes_only_the_folder_that_it_made(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("kept")
    for folder in (tmp_path, tmp_path / "made"):
        context = EntryContext("a test", 64 << 20, Writer(), lambda _: None, folder)
        assert context.spill_dir.is_dir()
        context.close()
    assert not (tmp_path / "made").exists()
    assert (tmp_path / "precious").read_text() == "kept"


@pytest.mark.slow
def test_stats_describe_columns(folder: Path) -> None:
    done = emsqrt("stats", "logs.csv", "--json")
    found = json.loads(done.stdout)
    assert (found["rows"], found["histogramRows"]) == (3, 3)
    uid, amount = found["columns"]
    assert uid == {
        "column": "uid",
        "type": "Utf8",
        "nulls": 0,
        "different": 2,
        "min": "a",
        "max": "b",
        "histogram": ["a", "a", "b"],
    }
    assert (amount["type"], amount["different"]) == ("Float64", 3)
    assert (amount["min"], amount["max"]) == ("20", "2000.5")
    assert amount["histogram"] == ["20", "1500", "2000.5"]


@pytest.mark.slow
def test_stats_of_values_with_line_ends_stay_a_table(folder: Path) -> None:
    (folder / "notes.csv").write_text('note\n"one\ntwo"\n"\tthree"\n')
    lines = emsqrt("stats", "notes.csv").stdout.splitlines()
    assert len(lines) == 3
    assert r"\tthree" in lines[2]
    assert r"one\ntwo" in lines[2]


def test_the_version_is_printed() -> None:
    done = emsqrt("--version")
    assert (done.returncode, done.stdout) == (0, f"emsqrt {version('sennit-emsqrt')}\n")


@pytest.mark.slow
def test_no_more_values_are_printed_than_there_are_rows(folder: Path) -> None:
    (folder / "all.csv").write_text("n,m\n" + "".join(f"{n},\n" for n in range(3000)))
    for column, most in zip(
        json.loads(emsqrt("stats", "all.csv", "--json").stdout)["columns"], (3000, 0), strict=True
    ):
        assert 0.95 * most <= column["different"] <= most


def test_unknown_arguments_are_reported_with_the_usage(folder: Path) -> None:
    done = emsqrt("agg", "logs.csv", "out.csv", "count(*)", "--aggs", "sum(amount)")
    assert done.returncode == 2
    assert "usage: emsqrt agg" in done.stderr
    assert "emsqrt agg: error: unrecognized arguments: --aggs sum(amount)" in done.stderr


@pytest.mark.nightly
def test_stats_of_many_rows_have_a_histogram_of_some(folder: Path) -> None:
    made = pa.table({"v": [row * 7919 % 20_011 for row in range(20_011)]})
    parquet.write_table(made, folder / "many.parquet", row_group_size=3000)
    (folder / "many.csv").write_text("v\n" + "".join(f"{v}\n" for v in made["v"].to_pylist() * 6))
    for name in ("many.parquet", "many.csv"):
        found = json.loads(emsqrt("stats", name, "--json").stdout)
        (column,) = found["columns"]
        assert (column["min"], column["max"]) == ("0", "20010")
        assert column["different"] == pytest.approx(20_011, rel=0.05)
        bounds = [int(bound) for bound in column["histogram"]]
        assert bounds[3] == pytest.approx(5000, rel=0.1)
        assert bounds[6] == pytest.approx(10_000, rel=0.1)
        assert (
            "quarters by" in emsqrt("stats", name).stdout or found["histogramRows"] == found["rows"]
        )


DOCUMENT = """
vars:
  least: "1000"
config:
  mem_cap: 48MiB
  seed: 7
steps:
  - scan: {source: logs.csv}
  - filter: {expr: "amount > ${least}"}
  - sort: {by: [uid]}
  - sink: {destination: "${name}.csv"}
"""


@pytest.mark.slow
def test_variables_and_the_config_of_a_document_reach_the_run(folder: Path) -> None:
    (folder / "plan.yaml").write_text(DOCUMENT)
    words = ["--var", "name=large", "--var", "least=1800", "--manifest", "manifest.json"]
    done = emsqrt("run", "plan.yaml", *words)
    assert (done.returncode, done.stderr) == (0, "")
    assert (folder / "large.csv").read_text() == "uid,amount\na,2000.5\n"
    manifest = json.loads((folder / "manifest.json").read_text())
    assert (manifest["capBytes"], manifest["seed"]) == (48 << 20, 7)


@pytest.mark.slow
def test_flags_win_over_the_environment_and_that_over_the_document(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "plan.yaml").write_text(DOCUMENT)
    words = ["run", "plan.yaml", "--var", "name=out", "--json"]
    monkeypatch.setenv("EMSQRT_MEM_CAP_BYTES", "56MiB")
    assert json.loads(emsqrt(*words).stdout)["capBytes"] == 56 << 20
    assert json.loads(emsqrt(*words, "--mem-cap", "52MiB").stdout)["capBytes"] == 52 << 20


@pytest.mark.sample(1)
@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        (["run", "plan.yaml"], 2, "name"),
        (["run", "plan.yaml", "--var", "name"], 2, "--var NAME=VALUE"),
        (["run", "nothing.yaml"], 5, 'no file "nothing.yaml"'),
        (["sort", "logs.csv", "out.csv", "--by", "uid", "--spill-dir", "/proc/no"], 7, "/proc/no"),
    ],
)
def test_a_run_that_cannot_start_reports_why(
    folder: Path, words: list[str], status: int, message: str
) -> None:
    (folder / "plan.yaml").write_text(DOCUMENT)
    done = emsqrt(*words)
    assert done.returncode == status
    assert message in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.nightly
def test_explain_under_a_cap_prints_the_schedule(folder: Path) -> None:
    (folder / "plan.yaml").write_text(DOCUMENT)
    words = ["explain", "plan.yaml", "--var", "name=out", "--mem-cap", "24MiB"]
    assert "C_min" in emsqrt(*words).stdout
    printed = json.loads(emsqrt(*words, "--json").stdout)
    assert printed["planHash"]
    assert printed["planned"]


@pytest.mark.nightly
def test_doctor_names_caps_that_do(folder: Path) -> None:
    printed = json.loads(emsqrt("doctor", "logs.csv", "--json").stdout)
    for verb, words in (
        ("sort", ["sort", "logs.csv", "out.csv", "--by", "uid"]),
        ("agg", ["agg", "logs.csv", "out.csv", "--by", "uid", "n=count(*)"]),
        ("join", ["join", "logs.csv", "logs.csv", "out.csv", "--on", "uid"]),
    ):
        cap_bytes = printed["verbs"][verb]["capBytes"]
        assert cap_bytes < 24 << 20
        assert emsqrt(*words, "--mem-cap", str(cap_bytes)).returncode == 0
        assert emsqrt(*words, "--mem-cap", str(cap_bytes - (3 << 20))).returncode == 3


@pytest.mark.nightly
def test_stats_of_more_columns_than_an_aggregate_accepts(folder: Path) -> None:
    names = [f"c{at}" for at in range(300)]
    lines = [",".join(names), ",".join(map(str, range(300))), ",".join(["7"] * 300)]
    (folder / "wide.csv").write_text("\n".join(lines) + "\n")
    found = json.loads(emsqrt("stats", "wide.csv", "--json").stdout)
    assert found["rows"] == 2
    assert [column["column"] for column in found["columns"]] == names
    assert [int(column["max"]) for column in found["columns"]] == [max(at, 7) for at in range(300)]
