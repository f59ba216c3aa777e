"""Texts of KiB and MiB in Parquet: caps that refusals name are enough, and never passed."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet
from smallest_runs import Watcher

from emsqrt import Engine, EngineConfig, scan
from emsqrt.pipeline import Pipeline
from sennit_core.errors import CapTooSmall
from sennit_core.units import KIB, MIB

VERBS: dict[str, Callable[[Pipeline], Pipeline]] = {
    "scan": lambda rows: rows,
    "sort": lambda rows: rows.sort("k"),
    "group": lambda rows: rows.group_by("t").agg("count(*)"),
}
ENCODINGS = {"plain": "PLAIN", "lengths": "DELTA_LENGTH_BYTE_ARRAY", "prefixes": "DELTA_BYTE_ARRAY"}
REFUSALS_MAX = {"plain": 1, "dictionary": 1, "lengths": 3, "prefixes": 3}
"""Packed lengths are not read: named before reading, by the longest row, at the end."""
OTHER_KINDS = (("scan", "csv"), ("sort", "jsonl"), ("group", "arrow"))


def texts_of(size: int, count: int) -> list[str]:
    """Return texts that hardly compress."""
    dice = random.Random(7)
    return [dice.randbytes(size // 2).hex() for _ in range(count)]


def write(path: Path, texts: list[str], encoding: str, codec: str = "snappy") -> Path:
    """Write short texts, and some others among them."""
    rows = [part for text in texts for part in ("short", text)]
    table = pa.table({"k": range(len(rows), 0, -1), "t": rows})
    coded = encoding == "dictionary"
    others = None if coded else {"t": ENCODINGS[encoding]}
    parquet.write_table(
        table, path, compression=codec, use_dictionary=coded, column_encoding=others
    )
    return path


def run_with_named_caps(pipeline: Pipeline, refusals_max: int, scratch: Path) -> None:
    """Run with the caps that refusals name, and see that the last is kept."""
    config = EngineConfig(spill_dir=scratch / "spill")
    caps = [36 * MIB]
    with Engine(config) as engine:
        for _ in range(refusals_max):
            try:
                engine.run(pipeline.plan, mem_cap=caps[-1])
            except CapTooSmall as error:
                caps.append(error.needed_bytes)
            else:
                break
    with Watcher() as watcher:
        Engine(config).run(pipeline.plan, mem_cap=caps[-1])
    assert 0 < watcher.peak_bytes <= caps[-1]


@pytest.mark.nightly
@pytest.mark.parametrize(
    ("verb", "size", "count", "encoding", "kind"),
    [
        ("scan", 6 * MIB, 1, "dictionary", "parquet"),
        ("scan", 6 * MIB, 3, "plain", "parquet"),
        ("scan", 3 * MIB, 3, "prefixes", "arrow"),
        ("sort", 8 * KIB, 2000, "plain", "parquet"),
    ],
)
def test_the_cap_that_is_named_for_long_texts_is_enough(
    verb: str, size: int, count: int, encoding: str, kind: str, tmp_path: Path
) -> None:
    source = write(tmp_path / "t.parquet", texts_of(size, count), encoding)
    pipeline = VERBS[verb](scan(source)).sink(tmp_path / f"out.{kind}")
    run_with_named_caps(pipeline, REFUSALS_MAX[encoding], tmp_path)


@pytest.mark.nightly
@pytest.mark.parametrize("encoding", ["dictionary", "plain"])
def test_the_cap_that_is_named_is_enough_for_folders_of_long_texts(
    encoding: str, tmp_path: Path
) -> None:
    source = write(tmp_path / "t.parquet", texts_of(6 * MIB, 2), encoding)
    rows = scan(source).with_column("part", "k % 2")
    run_with_named_caps(rows.sink(tmp_path / "out", "parquet", partition_by=["part"]), 1, tmp_path)
    assert parquet.read_table(tmp_path / "out").num_rows == 4


@pytest.mark.sample(1)
@pytest.mark.slow
@pytest.mark.parametrize("encoding", ["dictionary", "plain"])
def test_the_memory_of_a_long_text_is_estimated_before_it_is_read(
    encoding: str, tmp_path: Path
) -> None:
    source = write(tmp_path / "t.parquet", texts_of(4 * MIB, 1), encoding)
    plan = scan(source).sink(tmp_path / "out.parquet").plan
    with Engine(EngineConfig(spill_dir=tmp_path / "spill")) as engine:
        with pytest.raises(CapTooSmall, match=r"4\.0 MiB") as refused:
            engine.run(plan, mem_cap=64 * MIB)
        assert refused.value.needed_bytes < 128 * MIB
        assert engine.run(plan, mem_cap=refused.value.needed_bytes).rows_out == 2


def growing(folder: Path, kind: str) -> Path:
    """Write long texts of which each is longer than those before, and many short ones."""
    dice, rows = random.Random(3), list[str]()
    for size in (2 * KIB, 100 * KIB, MIB, 4 * MIB):
        rows += [*["short"] * 50, dice.randbytes(size // 2).hex()]
    path = folder / f"growing.{kind}"
    table = pa.table({"k": range(len(rows), 0, -1), "t": rows})
    if kind == "parquet":
        parquet.write_table(table, path, use_dictionary=False)
    elif kind == "arrow":
        with pa.ipc.new_file(path, table.schema) as writer:
            writer.write_table(table)
    elif kind == "csv":
        path.write_text("k,t\n" + "".join(f"{row['k']},{row['t']}\n" for row in table.to_pylist()))
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in table.to_pylist()))
    return path


@pytest.mark.nightly
@pytest.mark.parametrize(
    ("kind", "target", "verb"),
    [
        ("csv", "csv", "group"),
        ("csv", "parquet", "scan"),
        ("jsonl", "parquet", "group"),
        ("parquet", "parquet", "sort"),
        ("arrow", "parquet", "sort"),
        *(
            pytest.param(kind, target, verb, marks=pytest.mark.nightly)
            for kind in ("csv", "jsonl", "parquet", "arrow")
            for target in ("csv", "jsonl", "parquet", "arrow")
            for verb in VERBS
        ),
    ],
)
def test_one_refusal_is_enough_for_rows_that_become_longer_and_longer(
    kind: str, target: str, verb: str, tmp_path: Path
) -> None:
    rows = VERBS[verb](scan(growing(tmp_path, kind)))
    run_with_named_caps(rows.sink(tmp_path / f"out.{target}"), 1, tmp_path)


def test_statistics_are_left_out_where_no_writer_would_write_them(tmp_path: Path) -> None:
    path = write(tmp_path / "t.parquet", [*texts_of(KIB, 9), *texts_of(MIB, 1)], "plain")
    scan(path).sink(tmp_path / "out.parquet").run(256 * MIB, in_process=True)
    found = parquet.read_metadata(tmp_path / "out.parquet").row_group(0)
    assert found.column(0).is_stats_set
    assert not found.column(1).is_stats_set
    assert parquet.read_table(tmp_path / "out.parquet").equals(parquet.read_table(path))


@pytest.mark.nightly
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(
    ("encoding", "codec"),
    [("dictionary", "snappy"), ("plain", "zstd"), ("lengths", "none"), ("prefixes", "snappy")],
)
@pytest.mark.parametrize("size", [8 * KIB, 512 * KIB, MIB, 3 * MIB, 6 * MIB, 20 * MIB])
def test_the_cap_that_is_named_is_enough_for_any_texts(
    size: int, encoding: str, codec: str, tmp_path: Path
) -> None:
    for count in (1, max(2, min(1000, 12 * MIB // size))):
        source = write(tmp_path / "t.parquet", texts_of(size, count), encoding, codec)
        for verb, kind in [*((verb, "parquet") for verb in VERBS), *OTHER_KINDS]:
            pipeline = VERBS[verb](scan(source)).sink(tmp_path / f"out.{kind}")
            run_with_named_caps(pipeline, REFUSALS_MAX[encoding], tmp_path)
