"""The law: bytes depend on plan, input and seed; not on cap, spilling, cuts, files or threads."""

from __future__ import annotations

import random
from pathlib import Path

import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import pytest

from emsqrt import Engine, EngineConfig, Pipeline, scan
from emsqrt.plan.nodes import JoinKind
from emsqrt.replay import replay
from sennit_core.errors import CapTooSmall

MIB = 1 << 20
ROWS = 120_000
FORMATS = ("csv", "jsonl", "parquet", "arrow")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same rows in several files and forms; row groups of different sizes."""
    folder = tmp_path_factory.mktemp("data")
    write_rows(folder, ROWS)
    return folder


def write_rows(folder: Path, count: int) -> None:
    dice = random.Random(5)
    table = pa.table(
        {
            "k": [dice.randrange(count) for _ in range(count)],
            "g": [f"g{dice.randrange(count // 3):06d}" for _ in range(count)],
            "x": [dice.choice([None, dice.uniform(-9e9, 9e9)]) for _ in range(count)],
            "t": [f"{n:07d}" + "y" * dice.randrange(60) for n in range(count)],
        }
    )
    pa_csv.write_csv(table, folder / "rows.csv")
    for name, size in (("small", 3_000), ("large", 100_000)):
        pq.write_table(table, folder / f"{name}.parquet", row_group_size=size)


def shapes(rows: Pipeline) -> dict[str, Pipeline]:
    other = rows.filter("k % 3 > 0").select("k", "t AS u")
    few = rows.filter("k % 7 > 0").select("k", "t AS u")
    joins = {f"{how} join": rows.join(few, on="k", how=how) for how in HOWS}
    aggregates = rows.group_by("g").agg(
        n="count(*)", s="sum(x)", a="avg(x)", d="stddev(x)", f="first(t)", z="last(t)"
    )
    return joins | {
        "sort": rows.sort("g", "x:desc"),
        "top": rows.top_k(9_000, "x", "g"),
        "aggregate": aggregates,
        "different": rows.group_by("g").agg(d="count(distinct k)", m="median(x)"),
        "sketch": rows.group_by("k").agg(d="approx_count_distinct(t)"),
        "distinct": rows.distinct("g"),
        "distinct rows": rows.select("k", "g").distinct(),
        "window": rows.window(
            partition_by="g",
            order_by=["k", "t"],
            r="row_number()",
            s="sum(x)",
            m="max(t) rows between 2 preceding and current row",
        ),
        "union": rows.select("k", "t").union(other.select("k", "u AS t")).sort("t"),
        "sample": rows.sample(count=5_000, seed=3).sort("t"),
        "part": rows.sample(0.3, seed=3),
        "merge join": rows.sort("k").join(few.sort("k"), on="k"),
    }


HOWS: tuple[JoinKind, ...] = ("inner", "left", "right", "full", "semi", "anti")
FIT = ("part", "top")
"""Shapes that hold nothing, or so little that they never spill."""
NAMES = sorted(shapes(Pipeline(scan("rows.csv").plan)))


def made(pipeline: Pipeline, out: Path, cap: str | int, tasks: int) -> tuple[bytes, bool]:
    """Run under a cap, or the one that a refusal names.

    Returns:
        What it wrote, and whether it spilled.
    """
    config = EngineConfig(spill_dir=out.parent / "spill", max_parallel_tasks=tasks)
    try:
        manifest = Engine(config).run(pipeline.sink(out).plan, mem_cap=cap)
    except CapTooSmall as error:
        return made(pipeline, out, error.needed_bytes, tasks)
    return out.read_bytes(), manifest.spilled_bytes > 0


def check(name: str, sources: list[Path], kind: str, folder: Path, caps: list[str]) -> None:
    """Run a shape under each cap, with one thread and with two; the bytes must be the same."""
    for source in sources:
        pipeline = shapes(scan(source))[name]
        runs = [
            made(pipeline, folder / f"out.{kind}", cap, tasks)
            for cap, tasks in zip(caps, (4, 1, 4), strict=False)
        ]
        assert len({written for written, _ in runs}) == 1, (name, source.name, kind)
        assert runs[0][1] or name in FIT, (name, source.name, kind)


@pytest.mark.nightly
def test_bytes_do_not_depend_on_the_cap_or_threads(data: Path, tmp_path: Path) -> None:
    check("window", [data / "large.parquet"], "csv", tmp_path, ["56MiB", "256MiB"])
    check("sort", [data / "rows.csv"], "csv", tmp_path, ["14MiB", "24MiB", "96MiB"])


@pytest.mark.nightly
@pytest.mark.parametrize("name", NAMES)
def test_every_operator_writes_the_same_bytes(data: Path, tmp_path: Path, name: str) -> None:
    caps = ["8MiB", "72MiB", "384MiB"]
    sources = [data / "large.parquet", data / "rows.csv"]
    for kind in FORMATS:
        check(
            name,
            sources if kind == "csv" else sources[:1],
            kind,
            tmp_path,
            caps if kind == "csv" else caps[::2],
        )


@pytest.mark.nightly
@pytest.mark.parametrize("name", NAMES)
def test_bytes_do_not_depend_on_how_the_input_is_cut(data: Path, tmp_path: Path, name: str) -> None:
    one, other = (
        made(shapes(scan(data / f"{each}.parquet"))[name], tmp_path / "out.csv", "64MiB", 4)[0]
        for each in ("small", "large")
    )
    assert one == other


@pytest.mark.nightly
@pytest.mark.timeout(1800)
def test_a_hundred_runs_are_the_same_and_their_manifests_are_replayed(
    data: Path, tmp_path: Path
) -> None:
    dice = random.Random(11)
    for number in range(100):
        name, kind = dice.choice(NAMES), dice.choice(FORMATS)
        source = data / dice.choice(["rows.csv", "small.parquet", "large.parquet"])
        pipeline = shapes(scan(source))[name]
        config = EngineConfig(
            spill_dir=tmp_path / "spill", max_parallel_tasks=dice.choice([1, 4]), seed=number % 3
        )
        plan = pipeline.sink(tmp_path / f"out{number}.{kind}").plan
        manifest = Engine(config).run(plan, mem_cap=f"{dice.randrange(56, 200)}MiB")
        done = replay(manifest, mem_cap=f"{dice.randrange(56, 200)}MiB")
        assert done.is_same, (number, name, kind, source.name)
