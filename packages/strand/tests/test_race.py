"""The core's memory ordering, watched by ThreadSanitizer."""

import shutil
import subprocess
from pathlib import Path

import pytest

import strand

SOURCES = Path(strand.__file__).parent
COMMIT = "at64(ring, PRODUCER_COMMIT), after, memory_order_release"
HEAP_COMMIT = "at64(ring, PRODUCER_HEAP_COMMIT), heap, memory_order_release"


def run_watched(core: Path, folder: Path) -> subprocess.CompletedProcess[str]:
    """Build `race.c` with `core` under ThreadSanitizer and run it without address randomisation."""
    compiler, setarch = shutil.which("gcc") or shutil.which("clang"), shutil.which("setarch")
    if compiler is None or setarch is None:
        pytest.skip("needs gcc or clang, and setarch")
    program = folder / "race"
    flags = ["-std=c11", "-D_GNU_SOURCE", "-O1", "-g", "-w", "-fsanitize=thread", f"-I{SOURCES}"]
    race = Path(__file__).with_name("race.c")
    command = [compiler, *flags, str(race), str(core), "-o", str(program), "-lpthread"]
    built = subprocess.run(command, capture_output=True, text=True, check=False)
    if built.returncode != 0:
        pytest.skip(f"no ThreadSanitizer here: {built.stderr[-200:]}")
    return subprocess.run(
        [setarch, "-R", str(program)], capture_output=True, text=True, check=False
    )


def test_two_threads_on_one_ring_do_not_race(tmp_path: Path) -> None:
    done = run_watched(SOURCES / "_ring.c", tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "read 50000\n", "")


def test_a_publication_without_release_is_caught(tmp_path: Path) -> None:
    source = (SOURCES / "_ring.c").read_text()
    for ordered in (COMMIT, HEAP_COMMIT):
        assert ordered in source
        source = source.replace(ordered, ordered.replace("release", "relaxed"))
    weakened = tmp_path / "_ring.c"
    weakened.write_text(source)
    assert "data race" in run_watched(weakened, tmp_path).stderr
