"""Explaining a plan: what will be done, next to what was done."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from emsqrt.manifest import BlockInfo, InputInfo, Manifest
from emsqrt.pipeline import Pipeline, scan
from emsqrt.te import formulas
from sennit_core.schema import Schema


@pytest.fixture
def pipeline(tmp_path: Path) -> Pipeline:
    path = tmp_path / "a.csv"
    path.write_text("a,b\n" + "1,some text that is long\n" * 60_000)
    rows = scan(path, schema=Schema.of(a="Int64", b="Utf8"))
    return rows.sort("a").sink(tmp_path / "o.csv")


MANIFEST = Manifest("h", 9, 99, 9, 99, (), 64 << 20, 50 << 20, 40 << 20, 60 << 20, 1.0, 3.5)


def test_a_plan_reports_its_estimates_and_its_schedule(pipeline: Pipeline) -> None:
    text = pipeline.explain("18MiB")
    for words in (
        "external merge sort",
        "~59,999 rows",
        "C_min",
        "frontier: 1 operators",
        "W ",
        "plan ",
    ):
        assert words in text
    document = pipeline.planned("18MiB").to_json()
    assert document["te"]["peakBytes"] <= document["te"]["workingBytes"]
    (operator,) = document["te"]["operators"]
    assert {"runs", "fanIn", "passes", "blockBytes", "partitions", "spillBytes"} <= set(operator)
    assert [each["operator"] for each in document["operators"]] == ["scan", "sort", "sink"]


def test_measurements_are_shown_next_to_the_plan(pipeline: Pipeline) -> None:
    planned = pipeline.planned("64MiB")
    block = BlockInfo(1, "sort", 9, 9, runs=4, fan_in=4, passes=1, planned={"runs": 3, "fanIn": 3})
    text = str(replace(planned, manifest=replace(MANIFEST, blocks=(block,))))
    assert "R 4 (planned 3), K 4 (planned 3)" in text
    assert "measured: peak 60.0 MiB of 64.0 MiB" in text
    assert "9 rows in, 9 out (~59,999 estimated)" in text


def test_estimated_rows_are_shown_next_to_actual_rows(tmp_path: Path) -> None:
    (tmp_path / "b.csv").write_text("a,b\n" + "".join(f"{at % 50},{at}\n" for at in range(9000)))
    rows = scan(tmp_path / "b.csv").filter("b < 3000").group_by("a").agg(n="count(*)")
    made = rows.sink(tmp_path / "o.csv")
    explained = replace(made.planned("64MiB"), manifest=made.run("64MiB"))
    found = {each["operator"]: each for each in explained.to_json()["measured"]}
    for word, count in (("scan", 9000), ("filter", 3000), ("aggregate", 50)):
        assert found[word]["rowsOut"] == count
        assert found[word]["estimated"]["rowsOut"] == pytest.approx(count, rel=0.05)


def test_a_manifest_reads_back_whole() -> None:
    whole = replace(
        MANIFEST,
        inputs=(InputInfo("a.csv", 7, 5, "ab"),),
        blocks=(BlockInfo(1, "sort", planned={"runs": 3}),),
        te={"cMinBytes": 5},
    )
    assert Manifest.from_json(whole.to_json()) == whole
    assert (whole.started_ms, whole.finished_ms) == (1000, 3500)


@pytest.mark.parametrize("size", [10**6, 10**8, 10**10, 10**12])
def test_one_pass_needs_memory_like_the_square_root(size: int) -> None:
    need = formulas.one_pass_bytes(size) + (1 << 20)
    merge = formulas.plan_merge(need, need, size, 125)
    assert merge.passes <= 1 or merge.runs > formulas.FAN_IN_MAX
    assert formulas.plan_merge(need, need, 0, 125).runs == 0


def test_smaller_memory_means_more_passes_and_never_none() -> None:
    least = formulas.least_merge()
    merge = formulas.plan_merge(least, least, 10**9, 100)
    assert merge.passes > 3
    assert merge.fan_in**merge.passes >= merge.runs
    assert (merge.fan_in + 1) * merge.block_bytes + formulas.MERGE_OVERHEAD_BYTES <= least
