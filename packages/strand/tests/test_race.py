"""The core's memory ordering, watched by ThreadSanitizer, and the contents of what is read."""

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

import strand

SOURCES = Path(strand.__file__).parent
CORE = ("_ring.c", "_ring_producer.c", "_ring_consumer.c", "_ring.h", "_words.h")
HANG_SECONDS = 90  # naps never end in there: a lost wake-up shows as a timeout

Core = Callable[[str, str, str], None]


@pytest.fixture
def core(tmp_path: Path) -> Core:
    """Copy the core into `tmp_path`; the fixture changes one place of one file of the copy."""
    for name in CORE:
        shutil.copy(SOURCES / name, tmp_path)

    def change(name: str, old: str, new: str) -> None:
        source = (tmp_path / name).read_text()
        assert source.count(old) == 1, f"{name} does not read {old!r} once"
        (tmp_path / name).write_text(source.replace(old, new))

    return change


def run_watched(folder: Path, mode: str) -> subprocess.CompletedProcess[str]:
    """Build `race.c` with a core under ThreadSanitizer; run it without address randomisation."""
    compiler, setarch = shutil.which("gcc") or shutil.which("clang"), shutil.which("setarch")
    if compiler is None or setarch is None:
        pytest.skip("needs gcc or clang, and setarch")
    program = folder / "race"
    flags = ["-std=c11", "-D_GNU_SOURCE", "-O1", "-g", "-w", "-fsanitize=thread"]
    flags += ["-DSTRAND_DEBUG", f"-I{folder}"]
    sources = [Path(__file__).with_name("race.c"), *(folder / n for n in CORE if n.endswith(".c"))]
    command = [compiler, *flags, *map(str, sources), "-o", str(program), "-lpthread"]
    built = subprocess.run(command, capture_output=True, text=True, check=False)
    if built.returncode != 0 and "tsan" in built.stderr:
        pytest.skip(f"no ThreadSanitizer here: {built.stderr[-200:]}")
    assert built.returncode == 0, built.stderr
    return subprocess.run(
        [setarch, "-R", str(program), mode],
        capture_output=True,
        text=True,
        check=False,
        timeout=HANG_SECONDS,
    )


@pytest.mark.nightly
@pytest.mark.parametrize("mode", ["several", "abort", "doorbell"])
def test_threads_on_one_ring_do_not_race(core: Core, tmp_path: Path, mode: str) -> None:
    done = run_watched(tmp_path, mode)
    assert (done.returncode, done.stdout, done.stderr) == (0, "done\n", "")


def widen(core: Core) -> None:
    """Let a joiner and the producer each rest where the other may come between."""
    for name, place in (
        ("_ring_producer.c", "        producer->join_position = low_water;\n"),
        ("_ring_consumer.c", "    consumer->read[index] = first;\n"),
    ):
        core(name, place, f"{place}usleep(20);\n")
        core(name, "#include <string.h>\n", "#include <string.h>\n#include <unistd.h>\n")


@pytest.mark.nightly
def test_joiners_and_the_join_position_may_come_between_each_other(
    core: Core, tmp_path: Path
) -> None:
    widen(core)
    done = run_watched(tmp_path, "several")
    assert (done.returncode, done.stdout, done.stderr) == (0, "done\n", "")


RELAXED = "memory_order_relaxed"
WEAKENED = {
    "publication": (
        "_ring_producer.c",
        "at64(ring, PRODUCER_COMMIT), after, memory_order_release",
        f"at64(ring, PRODUCER_COMMIT), after, {RELAXED}",
    ),
    "acknowledgement": (
        "_ring_consumer.c",
        "CONSUMER_READ), upto, memory_order_release",
        f"CONSUMER_READ), upto, {RELAXED}",
    ),
    "reading the count": (
        "_ring.c",
        "at64(ring, PRODUCER_COMMIT), memory_order_acquire",
        f"at64(ring, PRODUCER_COMMIT), {RELAXED}",
    ),
}


@pytest.mark.sample(1)
@pytest.mark.slow
@pytest.mark.parametrize("what", list(WEAKENED))
def test_an_access_that_orders_nothing_is_caught(core: Core, tmp_path: Path, what: str) -> None:
    core(*WEAKENED[what])
    if what == "publication":
        heap = "at64(ring, PRODUCER_HEAP_COMMIT), heap, "
        source = (tmp_path / "_ring_producer.c").read_text()
        weak = source.replace(heap + "memory_order_release", heap + RELAXED)
        (tmp_path / "_ring_producer.c").write_text(weak)
    assert "data race" in run_watched(tmp_path, "several").stderr


def fails_within(runs: int, folder: Path) -> bool:
    return any(run_watched(folder, "several").returncode != 0 for _ in range(runs))


@pytest.mark.nightly
def test_a_join_position_without_a_second_look_loses_records(core: Core, tmp_path: Path) -> None:
    widen(core)
    core(
        "_ring_producer.c", "                low_water = again;\n", "                (void)again;\n"
    )
    assert fails_within(10, tmp_path)
