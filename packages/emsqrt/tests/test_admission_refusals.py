"""A refusal names a cap that does: not one that leads to the next refusal."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest
from abuse_runs import carry_out
from fuzz_runs import run_batches

from emsqrt import Engine, EngineConfig, scan
from emsqrt.admission import climb, halve
from emsqrt.pipeline import Pipeline
from emsqrt.plan import Plan
from sennit_core.errors import CapTooSmall
from sennit_core.schema import Schema

KIB = 1 << 10


def unions(folder: Path) -> Pipeline:
    """Sixteen scans and fourteen filters of one file, each of which wants a share of what is free."""
    path = folder / "rows.csv"
    path.write_text("a,b\n" + "1,2\n" * 50)
    rows = scan(path, schema=Schema.of(a="Int8", b="Int16"))
    for _ in range(3):
        rows = rows.union(rows.limit(17, 3)).filter("a is not null")
    return rows.union(rows)


@pytest.mark.nightly
@pytest.mark.parametrize("tier", ["text", "arrow"])
@pytest.mark.parametrize("kib", [64, 700, 2500, 3500, 4500])
def test_a_cap_that_a_refusal_names_does(tmp_path: Path, tier: str, kib: int) -> None:
    pipeline, target = unions(tmp_path), tmp_path / "out.csv"
    try:
        carry_out(pipeline, tier, target, memory_bytes=kib * KIB)
    except CapTooSmall as error:
        assert not target.exists()
        carry_out(pipeline, tier, target, memory_bytes=error.needed_bytes)
    assert target.exists()


@pytest.mark.slow
@pytest.mark.sample(1)
@pytest.mark.parametrize("mib", [8, 11, 13, 15])
def test_the_cap_that_a_process_names_does(tmp_path: Path, mib: int) -> None:
    pipeline = unions(tmp_path).sink(tmp_path / "out.csv")
    engine = Engine(EngineConfig(spill_dir=tmp_path / "spill"))
    with pytest.raises(CapTooSmall) as refused:
        pipeline.run(mib << 20, engine=engine)
    assert refused.value.cap_bytes == mib << 20
    assert pipeline.run(refused.value.needed_bytes, engine=engine).rows_out > 0


def wants(least: int, names: int) -> tuple[list[int], object]:
    """A trial that refuses less than `least`, and names `names` more than it had."""
    tried: list[int] = []

    def trial(cap_bytes: int) -> CapTooSmall | None:
        tried.append(cap_bytes)
        if cap_bytes >= least:
            return None
        return CapTooSmall(
            cap_bytes=cap_bytes, needed_bytes=cap_bytes + names, because=f"of {cap_bytes}"
        )

    return tried, trial


@pytest.mark.parametrize("names", [1, 500, 70_000])
@pytest.mark.parametrize("least", [2_000, 1_000_000, 30_000_000])
def test_a_smallest_cap_is_found_in_few_tries(least: int, names: int) -> None:
    tried, trial = wants(least, names)
    first = CapTooSmall(cap_bytes=1_000, needed_bytes=1_000 + names, because="little")
    refused, cap_bytes = halve(trial, *climb(trial, first, 1_000), 1_000)  # type: ignore[arg-type]
    assert least <= cap_bytes < least + max(names, 1_000)
    assert cap_bytes - refused.cap_bytes <= 1_000 or refused is first
    assert len(tried) < 40


def caps_tried(plan: Plan, rows: pa.Table, folder: Path) -> list[int]:
    """The caps of a plan until it is not refused: a MiB, then what each refusal names."""
    tried = [1 << 20]
    for _ in range(12):
        try:
            run_batches(plan, {"rows.arrow": rows}, tried[-1], folder)
            break
        except CapTooSmall as error:
            tried.append(error.needed_bytes)
    return tried


def test_two_windows_are_refused_once_each(tmp_path: Path) -> None:
    rows = pa.table({f"c{at}": [number % 7 for number in range(900)] for at in range(9)})
    schema = Schema.from_arrow(rows.schema)
    windows = scan("rows.arrow", schema=schema).window((), "c1", n="rank()")
    plan = windows.window((), "c2", m="rank()").plan
    assert len(caps_tried(plan, rows, tmp_path)) <= 4


def test_a_frame_that_keeps_ever_more_is_refused_a_few_times(tmp_path: Path) -> None:
    rows = pa.table({"v": range(20_000)})
    low = "min(v) over rows between 15000 preceding and current row"
    plan = scan("rows.arrow", schema=Schema.from_arrow(rows.schema)).window((), "v", low=low).plan
    tried = caps_tried(plan, rows, tmp_path)
    assert len(tried) <= 6, tried
