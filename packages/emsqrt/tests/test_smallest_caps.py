"""Explain, doctor and refusals report the same smallest caps."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from fuzz_data import random_table
from fuzz_runs import write_table
from smallest_runs import ALL, ARROW, FEW, MIB, SLACK_BYTES, TEXT_TIER, Watcher, make

from emsqrt import BudgetPool, Engine, EngineConfig, scan
from emsqrt.cli.running import _try
from emsqrt.executor.entry import FLOOR_BYTES
from emsqrt.pipeline import Pipeline
from emsqrt.text_engine.compile import try_compile
from emsqrt.text_engine.facts import minimums_of
from sennit_core.errors import CapTooSmall
from sennit_core.units import parse_bytes

DOCUMENT = """
steps:
  - scan: {source: %s}
  - sort: {by: [k, n]}
  - sink: {destination: %s}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("small"), 30_000)


def emsqrt(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "emsqrt.cli", *words], capture_output=True, text=True, check=False
    )


def printed_cap(*words: str) -> int:
    """The smallest cap that `explain` or `doctor` prints for a sort."""
    done = emsqrt(*words, "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    cap_bytes: int = (
        report["planned"]["te"]["cMinBytes"]
        if words[0] == "explain"
        else report["verbs"]["sort"]["capBytes"]
    )
    return cap_bytes


def smallest(pipeline: Pipeline) -> int:
    """C_min, as explain has it."""
    document: dict[str, Any] = pipeline.planned("512MiB").to_json()
    cap_bytes: int = document["te"]["cMinBytes"]
    return cap_bytes


def check_smallest_cap(name: str, kind: str, folder: Path, tmp_path: Path) -> None:
    """Run at what explain calls the smallest cap, and be refused below it."""
    verbs = TEXT_TIER if kind == "csv" else ARROW
    a, b = (scan(folder / f"{side}.{kind}") for side in "ab")
    pipeline = verbs[name](a, b).sink(tmp_path / f"out.{kind}")
    cap_bytes = smallest(pipeline)

    with Engine(EngineConfig(spill_dir=tmp_path / "spill")) as engine:
        with pytest.raises(CapTooSmall):
            engine.run(pipeline.plan, mem_cap=cap_bytes - SLACK_BYTES)
        assert not (tmp_path / f"out.{kind}").exists()
    with Watcher() as watcher:
        manifest = Engine(EngineConfig(spill_dir=tmp_path / "spill")).run(
            pipeline.plan, mem_cap=cap_bytes
        )
    assert watcher.peak_bytes <= cap_bytes
    assert manifest.rows_out > 0


@pytest.mark.sample(1)
@pytest.mark.slow
@pytest.mark.parametrize(("name", "kind"), FEW)
def test_the_smallest_cap_of_explain_is_the_smallest_that_runs(
    name: str, kind: str, folder: Path, tmp_path: Path
) -> None:
    check_smallest_cap(name, kind, folder, tmp_path)


@pytest.mark.nightly
@pytest.mark.timeout(600)
@pytest.mark.parametrize(("name", "kind"), ALL)
def test_explain_reports_the_smallest_cap_of_every_operator(
    name: str, kind: str, folder: Path, tmp_path: Path
) -> None:
    check_smallest_cap(name, kind, folder, tmp_path)


@pytest.mark.nightly
def test_explain_schedules_with_measurements(folder: Path, tmp_path: Path) -> None:
    rows = scan(folder / "a.parquet").sort("t").sink(tmp_path / "out.parquet")
    planned = rows.planned("64MiB").to_json()["te"]
    ran = rows.run("64MiB").te
    assert abs(planned["workingBytes"] - ran["workingBytes"]) < MIB


@pytest.mark.sample(1)
@pytest.mark.slow
@pytest.mark.parametrize("kind", ["csv", "parquet"])
@pytest.mark.parametrize("name", ["filter", "sort"])
def test_explain_schedules_under_every_cap_that_is_no_smaller(
    name: str, kind: str, folder: Path, tmp_path: Path
) -> None:
    rows = TEXT_TIER[name](scan(folder / f"a.{kind}"), scan(folder / f"b.{kind}"))
    pipeline = rows.sink(tmp_path / f"out.{kind}")
    cap_bytes = smallest(pipeline)
    for larger in (cap_bytes + MIB // 2, 1 << 47):  # the second is more than any machine has
        planned = pipeline.planned(larger).to_json()["te"]
        assert abs(planned["cMinBytes"] - cap_bytes) < MIB
        assert planned["workingBytes"] <= larger


def quantiles(count: int) -> dict[str, str]:
    return {f"q{at}": f"quantile(n, 0.{at})" for at in range(1, count + 1)}


def test_schedules_know_the_minimum_of_operators(folder: Path, tmp_path: Path) -> None:
    rows = scan(folder / "a.csv").group_by("k").agg(**quantiles(9)).sink(tmp_path / "out.csv")
    program = try_compile(rows.plan, Path())
    assert program is not None
    requirement = Engine().estimate(rows.plan, mem_cap="64MiB")
    assert minimums_of(program["steps"]) == requirement.minimums
    (least,) = requirement.minimums.values()
    assert least > MIB
    schedule = program.scheduled(requirement.cap_bytes + MIB)["schedule"]
    assert schedule is None or schedule["operators"][0]["gatherBytes"] >= least


@pytest.mark.nightly
@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_one_refusal_on_the_command_line_names_a_cap_that_does(
    kind: str, folder: Path, tmp_path: Path
) -> None:
    words = ["agg", str(folder / f"a.{kind}"), str(tmp_path / f"out.{kind}"), "--by", "t"]
    words += ["s=median(n)", "--json", "--spill-dir", str(tmp_path / "spill")]
    refused = emsqrt(*words, "--mem-cap", "10MiB")
    assert refused.returncode == 3, refused.stderr
    named = float(refused.stderr.split("at least ")[1].split(" MiB")[0]) + 0.05
    assert emsqrt(*words, "--mem-cap", f"{int(named * MIB)}").returncode == 0


@pytest.mark.nightly
@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_explain_and_doctor_of_the_command_line_name_caps_for_it(
    kind: str, folder: Path, tmp_path: Path
) -> None:
    source, target = folder / f"a.{kind}", tmp_path / f"out.{kind}"
    (tmp_path / "plan.yaml").write_text(DOCUMENT % (source, target))
    caps = [
        printed_cap("explain", str(tmp_path / "plan.yaml"), "--mem-cap", "128MiB"),
        printed_cap("doctor", str(source)),
    ]
    ways = [
        ["run", str(tmp_path / "plan.yaml")],
        ["sort", str(source), str(target), "--by", "k"],
    ]
    for cap_bytes, words in zip(caps, ways, strict=True):
        assert emsqrt(*words, "--mem-cap", str(cap_bytes)).returncode == 0
        assert emsqrt(*words, "--mem-cap", str(cap_bytes - SLACK_BYTES)).returncode == 3


@pytest.mark.nightly
@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_caps_are_reported_for_the_spill_location(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, target = make(tmp_path, 30) / f"a.{kind}", tmp_path / f"out.{kind}"
    in_a_store = (
        "config: {mem_cap: 256MiB, spill_uri: 's3://missing/prefix', spill_retry_max_ms: 1}"
    )
    (tmp_path / "plan.yaml").write_text(in_a_store + DOCUMENT % (source, target))
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")  # nothing is there, or spilled
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "unused")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "nothing")
    place = ["--spill-dir", "s3://missing/prefix"]
    caps = [
        printed_cap("explain", str(tmp_path / "plan.yaml")),
        printed_cap("doctor", str(source), *place),
    ]
    assert abs(caps[1] - caps[0]) < 2 * MIB, "one reads a document"
    assert caps[0] > printed_cap("doctor", str(source)) + 12 * MIB
    words = ["run", str(tmp_path / "plan.yaml"), "--mem-cap"]
    assert emsqrt(*words, str(caps[0])).returncode == 0
    refused = emsqrt(*words, str(caps[0] - SLACK_BYTES))
    assert refused.returncode == 3, refused.stderr


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("many")
    for number in range(2000):
        (folder / f"a-file-with-a-name-{number}.csv").write_text("k,n\n1,2\n")
    return folder


@pytest.mark.nightly
def test_the_names_of_many_files_are_counted_once(many: Path, tmp_path: Path) -> None:
    plan = scan(many / "*.csv").sort("k").sink(tmp_path / "out.csv").plan
    engine = Engine(EngineConfig(spill_dir=tmp_path / "spill"))
    cap_bytes = engine.estimate(plan).cap_bytes
    with pytest.raises(CapTooSmall):
        engine.run(plan, mem_cap=cap_bytes - SLACK_BYTES)
    with Watcher() as watcher:
        assert engine.run(plan, mem_cap=cap_bytes).rows_out == 2000
    assert watcher.peak_bytes <= cap_bytes


@pytest.mark.nightly
@pytest.mark.parametrize(
    ("name", "cap"), [("out.csv", "14MiB"), ("out.parquet", "40MiB"), ("out.parquet", "46MiB")]
)
def test_a_refusal_of_many_files_names_the_memory_of_the_whole_plan(
    name: str, cap: str, many: Path, tmp_path: Path
) -> None:
    plan = scan(many / "*.csv").sort("k").sink(tmp_path / name).plan
    engine = Engine(EngineConfig(spill_dir=tmp_path / "spill"))
    with pytest.raises(CapTooSmall, match="at least") as refused:
        engine.run(plan, mem_cap=cap)
    assert refused.value.needed_bytes > parse_bytes(cap)
    assert engine.run(plan, mem_cap=refused.value.needed_bytes).rows_out == 2000


@pytest.mark.nightly
def test_the_command_line_has_room_for_the_names_of_many_files(many: Path, tmp_path: Path) -> None:
    plan = scan(many / "*.csv").sort("k").sink(tmp_path / "out.csv").plan
    program = try_compile(plan, Path())
    report = _try({"program": program, "spilling": {}, "spillDir": None})
    assert abs(report["capBytes"] - Engine().estimate(plan).cap_bytes) < MIB


@pytest.mark.nightly
def test_a_long_first_line_is_explained_where_it_may_be_run(tmp_path: Path) -> None:
    record = {"k": 1, "n": 2, "m": [3], "t": "long " * 300_000}  # lists are read with pyarrow
    (tmp_path / "in.jsonl").write_text(json.dumps(record) + "\n")
    (tmp_path / "plan.yaml").write_text(DOCUMENT % (tmp_path / "in.jsonl", tmp_path / "out.jsonl"))
    for verb in ("explain", "run"):
        done = emsqrt(verb, str(tmp_path / "plan.yaml"), "--mem-cap", "256MiB")
        assert done.returncode == 0, done.stderr


@pytest.mark.nightly
def test_the_arrow_tier_has_a_floor(folder: Path, tmp_path: Path) -> None:
    plan = scan(folder / "a.parquet").limit(1).sink(tmp_path / "out.jsonl").plan
    requirement = Engine().estimate(plan, mem_cap="64MiB")
    assert requirement.cap_bytes >= FLOOR_BYTES
    assert Engine().run(plan, mem_cap=requirement.cap_bytes).rows_out == 1


@pytest.mark.nightly
def test_engines_of_one_pool_get_the_memory_of_the_whole_plan(tmp_path: Path) -> None:
    names = ["i8", "n", "u8", "t", "f"]
    schema, table = random_table(names, 30, 7, nul=False)
    write_table(table, schema, tmp_path / "l.jsonl")
    rows = scan(tmp_path / "l.jsonl", schema=schema).sort("t").window("t", "n", r="rank()")
    plan = rows.sink(tmp_path / "out.parquet").plan
    pool = BudgetPool("96MiB", shares={"small": "32MiB"})
    config = EngineConfig(spill_dir=tmp_path / "spill")

    engine = Engine(config, pool=pool, tenant="acme")
    with pytest.raises(CapTooSmall) as refused:
        engine.run(plan, mem_cap="16MiB")
    assert refused.value.needed_bytes > FLOOR_BYTES
    assert engine.run(plan, mem_cap=refused.value.needed_bytes).rows_out == 30
    assert pool.peak_bytes <= refused.value.needed_bytes

    with pytest.raises(CapTooSmall) as refused:
        Engine(config, pool=pool, tenant="small").run(plan, mem_cap="16MiB")
    assert refused.value.needed_bytes == FLOOR_BYTES, "its share holds no process that could look"


@pytest.mark.nightly
def test_a_deadline_counts_from_the_first_wait_for_a_pool(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool, leased = BudgetPool("96MiB"), []
    lease = pool.lease

    def noting(tenant: str, size_bytes: int, **rest: Any) -> Any:
        leased.append((size_bytes, rest["deadline_seconds"]))
        return lease(tenant, size_bytes, **rest)

    monkeypatch.setattr(pool, "lease", noting)
    plan = scan(folder / "a.parquet").sort("t").sink(tmp_path / "out.parquet").plan
    engine = Engine(EngineConfig(spill_dir=tmp_path / "spill"), pool=pool, tenant="acme")
    with pytest.raises(CapTooSmall):
        engine.run(plan, mem_cap="16MiB", deadline_seconds=600)
    (first_bytes, first_seconds), (second_bytes, second_seconds) = leased
    assert (first_bytes, second_bytes) == (16 * MIB, FLOOR_BYTES)
    assert second_seconds < first_seconds == 600
