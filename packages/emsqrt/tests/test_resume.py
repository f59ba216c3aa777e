"""Runs that are killed and resumed: the same bytes, and no input read twice."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import pytest

from emsqrt import Engine, EngineConfig, Pipeline, scan
from emsqrt.checkpoint import KEPT_SECONDS, Checkpoint
from emsqrt.local_runner import run_text_locally
from emsqrt.plan import plan_to_json
from emsqrt.text_engine.compile import try_compile
from emsqrt.text_engine.sink import CsvTextSink
from emsqrt.text_engine.text import Block
from sennit_core.errors import Conflict, UsageError
from sennit_core.hashing import sha256_hex

MIB = 1 << 20
KILLED = Path(__file__).parent / "killed_run.py"


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "in.csv"
    with path.open("w") as file:
        file.write("k,g,v\n")
        for n in range(160_000):
            file.write(f'{n * 7919 % 160_001},"g{n * 31 % 90_000:06d}",{n}{"x" * 30}\n')
    return path


def shapes(source: Path, out: Path) -> dict[str, Pipeline]:
    parquet = source.with_suffix(".parquet")
    if not parquet.exists():
        pq.write_table(pa_csv.read_csv(source), parquet, row_group_size=20_000)
    rows = scan(source)
    tables = scan(parquet)
    return {
        "text join": rows.join(other(rows), on="v", how="full").sink(out),
        "text semi": rows.join(other(rows), on="v", how="anti").sink(out),
        "text top": rows.sort("g", "k").limit(60_000).sink(out),
        "text joined groups": rows.join(other(rows), on="v")
        .group_by("g")
        .agg(n="count(*)", s="sum(k)")
        .sink(out),
        "arrow join": tables.join(other(tables), on="v", how="left").sink(out, format="csv"),
        "arrow top": tables.sort("g", "k").limit(100_000).sink(out, format="csv"),
        "arrow window": tables.window(
            partition_by="g", order_by="k", r="row_number()", s="sum(k)"
        ).sink(out, format="csv"),
        "arrow distinct": tables.distinct("v").sink(out, format="csv"),
        "arrow filtered": _filtered(tables).sink(out, format="csv"),
        "text sort": rows.sort("k").sink(out),
        "text aggregate": rows.group_by("g").agg(n="count(*)", s="sum(k)").sink(out),
        "text filtered": rows.filter("k > 9000").sort("g", "k").sink(out),
        "arrow sort": scan(parquet).sort("k").sink(out, format="csv"),
        "arrow aggregate": scan(parquet).group_by("v").agg(n="count(*)", s="sum(k)").sink(out),
    }


def _filtered(tables: Pipeline) -> Pipeline:
    return tables.filter("k % 8 > 0").with_column("w", "k * 2").sort("k")


def other(rows: Pipeline) -> Pipeline:
    return rows.filter("k > 9000").select("v", "k AS k2", "g AS g2")


TEXT_CAP, ARROW_CAP = 18 * MIB, 50 * MIB


def killed_run(
    pipeline: Pipeline, spill: Path, folder: Path, point: str, times: int
) -> subprocess.CompletedProcess[str]:
    program = try_compile(pipeline.plan, Path())
    kept = [str(spill), "test"]
    request: dict[str, Any] = {"cap": ARROW_CAP, "spill": str(spill), "resume": kept}
    if program is not None:
        request |= {"cap": TEXT_CAP, "program": {**program, "resume": kept}}
    else:
        request["plan"] = plan_to_json(pipeline.plan)
    path = folder / "request.json"
    path.write_text(json.dumps(request))
    words = [sys.executable, str(KILLED), str(path), point, str(times)]
    environment = {**os.environ, "MALLOC_ARENA_MAX": "1", "ARROW_DEFAULT_MEMORY_POOL": "system"}
    return subprocess.run(words, capture_output=True, text=True, env=environment, check=False)


POINTS = [
    ("before journal", 1),
    ("after journal", 1),
    ("after journal", 2),
    ("before run", 3),
    ("after run", 3),
    ("after open", 1),
]
CASES = [("text sort", *point) for point in POINTS] + [
    ("text aggregate", "after journal", 1),
    ("text aggregate", "after journal", 2),
    ("text aggregate", "after run", 2),
    ("text filtered", "after journal", 1),
    ("arrow sort", "after journal", 1),
    ("arrow aggregate", "after open", 1),
    ("arrow aggregate", "after journal", 2),
    ("arrow filtered", "after journal", 2),
    ("arrow top", "after journal", 1),
    ("arrow window", "after journal", 2),
    ("arrow distinct", "after journal", 2),
    ("arrow join", "after journal", 1),
    ("arrow join", "after journal", 3),
    ("text top", "after journal", 2),
    ("text join", "after journal", 1),
    ("text join", "before journal", 3),
    ("text join", "after journal", 4),
    ("text join", "after open", 2),
    ("text semi", "after journal", 2),
    ("text joined groups", "after journal", 4),
]


@pytest.mark.sample(1)
@pytest.mark.crash
@pytest.mark.parametrize(("shape", "point", "times"), CASES)
def test_a_killed_run_is_gone_on_with(
    source: Path, tmp_path: Path, shape: str, point: str, times: int
) -> None:
    out, spill = tmp_path / "out.csv", tmp_path / "spill"
    pipeline = shapes(source, out)[shape]
    whole = killed_run(pipeline, tmp_path / "other", tmp_path, "never", 1)
    assert whole.returncode == 0, whole.stderr
    expected = out.read_bytes()
    out.unlink()
    dead = killed_run(pipeline, spill, tmp_path, point, times)
    assert dead.returncode == -9, dead.stderr
    assert not out.exists()
    again = killed_run(pipeline, spill, tmp_path, "never", 1)
    assert again.returncode == 0, again.stderr
    assert out.read_bytes() == expected
    assert not list((spill / "checkpoints").iterdir())
    first, second = json.loads(whole.stdout), json.loads(again.stdout)
    if (point, times) != ("before journal", 1):
        assert second["spilledBytes"] < first["spilledBytes"]
        assert second["bytesIn"] < first["bytesIn"]


@pytest.mark.sample(1)
@pytest.mark.crash
@pytest.mark.parametrize(
    "shape", ["text sort", "text aggregate", "text join", "arrow aggregate", "arrow window"]
)
def test_a_fully_read_input_is_not_read_again(source: Path, tmp_path: Path, shape: str) -> None:
    out, spill = tmp_path / "out.csv", tmp_path / "spill"
    pipeline = shapes(source, out)[shape]
    assert killed_run(pipeline, spill, tmp_path, "after open", 1).returncode == -9
    again = killed_run(pipeline, spill, tmp_path, "never", 1)
    assert json.loads(again.stdout)["rowsIn"] == 0


@pytest.mark.crash
def test_a_scan_begins_where_the_last_run_ended(source: Path, tmp_path: Path) -> None:
    out, spill = tmp_path / "out.csv", tmp_path / "spill"
    pipeline = shapes(source, out)["text sort"]
    assert killed_run(pipeline, spill, tmp_path, "after journal", 1).returncode == -9
    again = killed_run(pipeline, spill, tmp_path, "never", 1)
    assert 0 < json.loads(again.stdout)["rowsIn"] < 160_000


@pytest.mark.nightly
@pytest.mark.crash
@pytest.mark.parametrize("cap", [TEXT_CAP - 3 * MIB, 64 * MIB])
def test_a_run_resumes_under_another_cap(source: Path, tmp_path: Path, cap: int) -> None:
    out, spill = tmp_path / "out.csv", tmp_path / "spill"
    pipeline = shapes(source, out)["text joined groups"]
    engine = Engine(EngineConfig(spill_dir=spill))
    engine.run(pipeline.plan, mem_cap="64MiB")
    expected = out.read_bytes()
    assert killed_run(pipeline, spill, tmp_path, "after journal", 3).returncode == -9
    engine.run(pipeline.plan, mem_cap=cap, resume="test")
    assert out.read_bytes() == expected


@pytest.mark.crash
def test_another_plan_or_other_inputs_are_refused(source: Path, tmp_path: Path) -> None:
    out, spill = tmp_path / "out.csv", tmp_path / "spill"
    copy = tmp_path / "in.csv"
    copy.write_bytes(source.read_bytes())
    pipeline = scan(copy).sort("k").sink(out)
    assert killed_run(pipeline, spill, tmp_path, "after journal", 1).returncode == -9
    engine = Engine(EngineConfig(spill_dir=spill))
    other = scan(copy).sort("g").sink(out)
    with pytest.raises(UsageError, match="has another plan"):
        engine.run(other.plan, resume="test")
    with pytest.raises(UsageError, match="has another seed"):
        Engine(EngineConfig(spill_dir=spill, seed=7)).run(pipeline.plan, resume="test")
    copy.write_bytes(copy.read_bytes().replace(b"7919", b"7918", 1))
    with pytest.raises(UsageError, match="has other inputs"):
        engine.run(pipeline.plan, resume="test")


@pytest.mark.slow
def test_a_run_name_costs_nothing_without_a_kill(source: Path, tmp_path: Path) -> None:
    engine = Engine(EngineConfig(spill_dir=tmp_path / "spill"))
    plans = shapes(source, tmp_path / "out.csv")
    engine.run(plans["text sort"].plan, mem_cap="18MiB", resume="nightly")
    first = (tmp_path / "out.csv").read_bytes()
    engine.run(plans["text sort"].plan, mem_cap="64MiB")
    assert (tmp_path / "out.csv").read_bytes() == first
    assert not list((tmp_path / "spill" / "checkpoints").iterdir())


def test_a_running_run_is_not_resumed(tmp_path: Path) -> None:
    facts = {"plan": "p", "inputs": []}
    kept = Checkpoint(tmp_path, "one", facts)
    with pytest.raises(Conflict):
        Checkpoint(tmp_path, "one", facts)
    kept.close()
    assert not list((tmp_path / "checkpoints").iterdir())
    with pytest.raises(UsageError):
        Checkpoint(tmp_path, "../one", facts)


@pytest.mark.sample(1)
@pytest.mark.slow
@pytest.mark.parametrize("resume", [False, True])
def test_the_last_rows_are_written_before_their_memory_is_released(
    resume: bool, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = CsvTextSink.write

    def write_slowly(sink: CsvTextSink, block: Block) -> None:
        time.sleep(0.01)  # a slow disk: the second thread is still at it when the sort has ended
        write(sink, block)

    monkeypatch.setattr(CsvTextSink, "write", write_slowly)
    plan = scan(source).sort("k").sink(tmp_path / "out.csv").plan
    program = try_compile(plan, Path())
    assert program is not None
    kept = (str(tmp_path / "spill"), "slow") if resume else None
    cap = psutil.Process().memory_info().rss + (
        1 << 30
    )  # this process may hold much after other tests
    request = {**program.scheduled(cap), "planHash": "slow", "resume": kept}
    run_text_locally(request, cap, tmp_path / "spill")
    rows = (tmp_path / "out.csv").read_text().splitlines()[1:]
    assert sorted(rows) == sorted(source.read_text().splitlines()[1:])


def test_a_checkpoint_of_another_version_is_refused(tmp_path: Path) -> None:
    """Its journal and its rows have a format that this version does not read."""
    facts = {"plan": "p", "inputs": [], "tier": "text", "seed": 0}
    folder = tmp_path / "checkpoints" / "one"
    folder.mkdir(parents=True)
    journal = {"v": 3, "facts": {**facts, "tier": "thin"}, "nodes": {}}
    body = json.dumps(journal).encode()
    (folder / "journal").write_bytes(sha256_hex(body).encode() + b"\n" + body)
    with pytest.raises(UsageError) as caught:
        Checkpoint(tmp_path, "one", facts)
    assert "the checkpoint of run one has the format 3" in str(caught.value)
    assert caught.value.hint == f"run this under another name, or remove {folder}"
    assert (folder / "journal").exists()


def test_an_abandoned_run_is_swept(tmp_path: Path) -> None:
    old = tmp_path / "checkpoints" / "old"
    old.mkdir(parents=True)
    (old / "sort-000001").write_bytes(b"rows")
    new = tmp_path / "checkpoints" / "new"
    new.mkdir()
    (new / "sort-000001").write_bytes(b"rows")
    long_ago = time.time() - KEPT_SECONDS - 60
    os.utime(old / "sort-000001", (long_ago, long_ago))
    Checkpoint(tmp_path, "other", {}).close()
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["new"]
