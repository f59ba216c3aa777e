"""Spill to a file system in memory: refused, or forced and then a part of the cap."""

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from emsqrt import Engine, EngineConfig, scan
from emsqrt.spill import SpillFull
from emsqrt.spill.placement import is_in_memory
from sennit_core.errors import CapTooSmall, Unsupported

MIB = 1 << 20
SHARED = Path("/dev/shm")

pytestmark = pytest.mark.skipif(
    not SHARED.is_dir() or not is_in_memory(SHARED), reason="needs a tmpfs at /dev/shm"
)


@pytest.fixture
def memory() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(dir=SHARED) as folder:
        yield Path(folder)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "in.csv"
    path.write_text("k,v\n" + "".join(f"{i * 7919 % 160_001},row {i}\n" for i in range(160_001)))
    return path


def test_it_is_refused_and_named(source: Path, memory: Path, tmp_path: Path) -> None:
    engine = Engine(EngineConfig(spill_dir=memory))
    with pytest.raises(Unsupported, match="is memory"):
        scan(source).sort("k").sink(tmp_path / "out.csv").run("14MiB", engine=engine)
    assert not (tmp_path / "out.csv").exists()


@pytest.mark.slow
def test_forced_it_counts(source: Path, memory: Path, tmp_path: Path) -> None:
    plan = scan(source).sort("k").sink(tmp_path / "out.csv")
    manifest = plan.run(
        "24MiB", engine=Engine(EngineConfig(spill_dir=memory, spill_to_memory=True))
    )
    alone = scan(source).sort("k").sink(tmp_path / "disk.csv").run("24MiB")
    assert (tmp_path / "out.csv").read_bytes() == (tmp_path / "disk.csv").read_bytes()
    assert 0 < manifest.spilled_bytes < manifest.peak_bytes <= 24 * MIB
    assert manifest.reserved_by_tag["spill"] > alone.reserved_by_tag.get("spill", 0)
    assert not any(folder.iterdir() for folder in memory.iterdir() if folder.is_dir())


@pytest.mark.slow
def test_the_smallest_cap_has_room_for_it(source: Path, memory: Path, tmp_path: Path) -> None:
    few = tmp_path / "few.csv"
    few.write_text("".join(source.read_text().splitlines(keepends=True)[:100]))
    engine = Engine(EngineConfig(spill_dir=memory, spill_to_memory=True))
    rows = scan(few).sort("k").sink(tmp_path / "out.csv")
    least_bytes = engine.estimate(rows.plan).cap_bytes
    assert list(memory.iterdir()) == []
    assert rows.run(least_bytes, engine=engine).rows_out == 99
    with pytest.raises(CapTooSmall) as refused:
        rows.run(least_bytes - MIB, engine=engine)
    assert abs(refused.value.needed_bytes - least_bytes) < MIB
    assert rows.run(refused.value.needed_bytes, engine=engine).rows_out == 99


@pytest.mark.slow
def test_more_than_its_share_is_a_full_disk(source: Path, memory: Path, tmp_path: Path) -> None:
    engine = Engine(EngineConfig(spill_dir=memory, spill_to_memory=True))
    with pytest.raises(SpillFull):
        scan(source).sort("k").sink(tmp_path / "out.csv").run("14MiB", engine=engine)
    assert not (tmp_path / "out.csv").exists()


@pytest.mark.slow
def test_the_command_line_forces_it_too(source: Path, memory: Path, tmp_path: Path) -> None:
    words = [sys.executable, "-m", "emsqrt.cli", "sort", str(source), "out.csv", "--by", "k"]
    words += ["--mem-cap", "32MiB", "--quiet", "--spill-dir", str(memory)]
    subprocess.run([*words, "--spill-to-memory"], cwd=tmp_path, check=True)
    assert (tmp_path / "out.csv").stat().st_size == source.stat().st_size
