"""Text plans for which this Python needs pyarrow: compressed with zstd, or on Google's store.

They run in the arrow tier, whose admission counts pyarrow, and never in the lean process.
"""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest

from emsqrt import Engine, EngineConfig, scan
from emsqrt.spill.servers import fake_gcs
from sennit_core.errors import CapTooSmall, Unsupported

WRITES_ZSTD = "text" if sys.version_info >= (3, 14) else "arrow"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """About 18 KB of CSV."""
    numbers = random.Random(3).sample(range(10_000), 1300)
    path = tmp_path / "in.csv"
    path.write_text("n,t\n" + "".join(f"{number},row {number}\n" for number in numbers))
    return path


def sorted_lines(source: Path) -> list[str]:
    head, *lines = source.read_text().splitlines()
    return [head, *sorted(lines, key=lambda line: int(line.split(",")[0]))]


@pytest.mark.nightly
@pytest.mark.parametrize("cap", ["20MiB", "512MiB"])
def test_zstd_text_is_written_under_the_cap_or_under_the_one_that_is_named(
    source: Path, cap: str
) -> None:
    target = source.with_name("out.csv.zst")
    pipeline = scan(source).sort("n").sink(target)
    try:
        manifest = pipeline.run(mem_cap=cap)
    except CapTooSmall as error:
        manifest = pipeline.run(mem_cap=error.needed_bytes)
    assert manifest.tier == WRITES_ZSTD
    assert manifest.peak_bytes <= manifest.cap_bytes
    assert pa.input_stream(target).read().decode().splitlines() == sorted_lines(source)


@pytest.mark.slow
def test_the_command_line_writes_zstd_json_lines(source: Path) -> None:
    target = source.with_name("out.jsonl.zst")
    words = ["sort", str(source), str(target), "--by", "n", "--cap", "64MiB", "--quiet"]
    subprocess.run([sys.executable, "-m", "emsqrt.cli", *words], check=True)
    assert pa.input_stream(target).read().count(b"\n") == 1300


@pytest.mark.nightly
def test_text_spills_with_zstd(source: Path) -> None:
    target = source.with_name("out.csv")
    source.write_text(source.read_text() + "1,x\n" * 2_000_000)
    engine = Engine(EngineConfig(spill_codec="zstd"))
    manifest = engine.run(scan(source).sort("n").sink(target).plan, mem_cap="48MiB")
    assert manifest.spilled_bytes
    assert manifest.tier == WRITES_ZSTD
    assert manifest.peak_bytes <= manifest.cap_bytes


@pytest.mark.nightly
def test_text_spills_to_google_cloud_storage_under_the_cap_that_is_named(
    source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target, stored = source.with_name("out.csv"), source.with_name("stored")
    source.write_text("n,t\n" + "".join(f"{at * 7 % 99991},row{at:090}\n" for at in range(400_000)))
    stored.mkdir()
    try:
        with fake_gcs(stored) as server:
            monkeypatch.setenv("STORAGE_EMULATOR_HOST", server.options["endpoint"])
            engine = Engine(EngineConfig(spill_uri=server.uri))
            plan = scan(source).sort("n").sink(target).plan
            with pytest.raises(CapTooSmall) as caught:
                engine.run(plan, mem_cap="64MiB")
            manifest = engine.run(plan, mem_cap=caught.value.needed_bytes)
    except Unsupported as error:
        pytest.skip(str(error))
    assert manifest.spilled_bytes
    assert manifest.peak_bytes <= manifest.cap_bytes
    assert target.read_text().splitlines() == sorted_lines(source)
