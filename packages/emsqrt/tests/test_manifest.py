"""The manifest of a run: blocks, bounds, inputs, the plan; its peak is that of the kernel."""

from __future__ import annotations

import hashlib
import itertools
import json
import subprocess
import sys
from pathlib import Path

import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import pytest

from emsqrt import Engine, EngineConfig, Manifest, Pipeline, scan
from emsqrt.expr import count
from emsqrt.plan import plan_from_json, plan_hash
from emsqrt.testing import PeakPoller

MIB = 1 << 20


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "in.csv"
    with path.open("w") as file:
        file.write("k,g,v\n")
        for n in range(120_000):
            file.write(f'{n * 7919 % 60_000},"g{n * 31 % 900:06d}",{n}{"x" * 40}\n')
    pq.write_table(pa_csv.read_csv(path), path.with_suffix(".parquet"), row_group_size=20_000)
    return path


def everything(rows: Pipeline, other: Pipeline) -> Pipeline:
    """Return a plan of every operator that both tiers have."""
    few = other.group_by("g").agg(n=count(), top="max(k)").sort("top:desc", "g")
    joined = rows.join(few, "g").filter("k > 5").sort("k", "v")
    return joined.select("k", "v", "n", w="k + top").distinct().top_k(50_000, "w:desc", "v")


@pytest.mark.nightly
@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_the_same_plan_writes_the_same_bytes(source: Path, tmp_path: Path, suffix: str) -> None:
    rows = scan(source if suffix == "csv" else source.with_suffix(".parquet"))
    digests, manifests = set(), []
    for cap, tasks in (("24MiB", 1), ("40MiB", 4), ("200MiB", 2)):
        if suffix == "parquet":
            cap = {"24MiB": "72MiB", "40MiB": "96MiB"}.get(cap, cap)
        engine = Engine(EngineConfig(max_parallel_tasks=tasks, spill_dir=tmp_path / "spill"))
        out = tmp_path / f"out.{suffix}"
        manifests.append(everything(rows, rows).sink(out).run(cap, engine=engine))
        digests.add(hashlib.sha256(out.read_bytes()).hexdigest())
    assert len(digests) == 1
    assert manifests[0].spilled_bytes > manifests[-1].spilled_bytes
    assert {manifest.tier for manifest in manifests} == {"text" if suffix == "csv" else "arrow"}


@pytest.mark.sample(1)
@pytest.mark.slow
@pytest.mark.parametrize("tier", ["text", "arrow"])
def test_blocks_report_plan_and_measurements(source: Path, tmp_path: Path, tier: str) -> None:
    rows = scan(source if tier == "text" else source.with_suffix(".parquet"))
    grouped = rows.group_by("k", "g", "v").agg(n=count())
    manifest = (
        grouped.sort("v", "k")
        .sink(tmp_path / "out.csv")
        .run("20MiB" if tier == "text" else "64MiB")
    )
    assert manifest.tier == tier
    group, sort = (
        next(block for block in manifest.blocks if block.operator == word)
        for word in ("aggregate", "sort")
    )
    every = (sort.rows_in, sort.rows_out, group.rows_in, group.rows_out)
    assert every == (120_000,) * 4
    assert sort.runs > 1
    assert sort.passes == 1
    assert sort.spilled_bytes > 0
    assert 0 < sort.peak_bytes <= sort.granted_bytes
    assert sort.seconds > 0
    assert {"runs", "fanIn", "blockBytes", "gatherBytes"} <= set(sort.planned)
    measured = manifest.te["measured"]
    assert measured["holds"]
    assert [bound["node"] for bound in measured["bounds"]] == [group.node, sort.node]
    for bound in measured["bounds"]:
        assert max(bound["peakBytes"], bound["mergeBytes"]) <= bound["grantedBytes"]
    assert manifest.te["peakBytes"] <= manifest.te["workingBytes"]
    (info,) = {each.path: each for each in manifest.inputs}.values()
    assert info.bytes == Path(info.path).stat().st_size
    assert info.fingerprint
    assert plan_hash(plan_from_json(manifest.plan)) == manifest.plan_hash
    assert Manifest.from_json(manifest.to_json()) == manifest


@pytest.mark.slow
def test_operators_that_are_not_live_together_each_get_all(source: Path, tmp_path: Path) -> None:
    """Of three sorts on top of each other only two are live at any time."""
    rows = scan(source).sort("k").top_k(100_000, "v").sort("g").sink(tmp_path / "out.csv")
    manifest = rows.run("24MiB")
    grants = [block.granted_bytes for block in manifest.blocks if block.granted_bytes]
    working = manifest.reserved_by_tag["working set"]
    assert len(grants) == 3
    assert sum(grants) > working
    assert all(one + two <= working for one, two in itertools.pairwise(grants))


@pytest.mark.sample(1)
@pytest.mark.slow
@pytest.mark.parametrize("tier", ["text", "arrow"])
def test_the_reported_peak_equals_the_one_measured_from_outside(
    source: Path, tmp_path: Path, tier: str
) -> None:
    suffix = "csv" if tier == "text" else "parquet"
    cap = 24 if tier == "text" else 72
    out = tmp_path / "m.json"
    words = [sys.executable, "-P", "-m", "emsqrt.cli", "sort"]
    words += [str(source.with_suffix(f".{suffix}")), str(tmp_path / f"out.{suffix}"), "--by", "k,v"]
    words += ["--mem-cap", f"{cap}MiB", "--manifest", str(out), "--quiet"]
    process = subprocess.Popen(
        ["sh", "-c", 'read _; exec "$@"', "-", *words], stdin=subprocess.PIPE
    )
    with PeakPoller(process.pid) as poller:
        process.communicate(b"\n")
        assert process.returncode == 0
        seen = poller.peak()
    recorded = json.loads(out.read_text())["peakBytes"]
    assert seen <= cap * MIB
    assert abs(recorded - seen) <= max(2 * MIB, seen // 20)


@pytest.mark.slow
def test_the_holder_of_the_cap_is_reported(source: Path, tmp_path: Path) -> None:
    pipeline = scan(source).sort("k").sink(tmp_path / "out.csv")
    assert pipeline.run("24MiB").held_by == "process"
    assert pipeline.run("64MiB", in_process=True).held_by == "arena"
