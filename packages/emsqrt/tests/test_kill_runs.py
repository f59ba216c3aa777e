"""Whole runs that are killed, stopped or not: nothing half written, no process left."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest
from smallest_runs import children

from emsqrt import Engine, EngineConfig, scan
from sennit_core.errors import DeadlineExceeded, SennitError, WorkerLost

pytestmark = pytest.mark.crash
ROWS = 400_000


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """About 20 MB whose sorting under a small cap gathers, spills, merges and writes."""
    path = tmp_path_factory.mktemp("data") / "in.csv"
    with path.open("w") as file:
        file.write("k,v\n")
        for number in range(ROWS):
            file.write(f"{number * 2_654_435_761 % ROWS},{'text of a row ' * 3}\n")
    return path


def state(pid: int) -> str:
    """The letter of a process's state: T when stopped, Z when ended and when there is none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return "Z"


def is_alive(pid: int) -> bool:
    """Whether a process runs; a zombie does not."""
    return state(pid) != "Z"


def signal_all(pids: Iterable[int], number: int) -> None:
    """Send a signal to processes, some of which may have ended."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def wait_for(condition: Callable[[], object], seconds: float = 30) -> None:
    """Poll a condition until it is true."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come to that"
        time.sleep(0.005)


class RunWatch:
    """Detects the phase of a run: by the files in its spill folder and next to its target."""

    def __init__(self, folder: Path) -> None:
        self.spill = folder / "spill"
        self.out = folder / "out"
        self.out.mkdir()

    def reached(self, name: str) -> bool:
        """Whether the run has begun to gather, spill or write."""
        if name == "gather":
            return self.spill.exists()
        if name == "spill":
            return any(path.stat().st_size > 0 for path in self.files() if path.name != "lock")
        return any(path.stat().st_size > 0 for path in self.out.glob(".*.tmp"))

    def files(self) -> list[Path]:
        """What was spilled; files that vanish meanwhile are not there."""
        return [path for path in self.spill.rglob("*-*") if path.is_file()]

    def left(self) -> list[str]:
        """The files in the spill folder besides the lock for sweeping."""
        return sorted(path.name for path in self.spill.rglob("*") if path.name != ".sweep")


@pytest.fixture
def watch(tmp_path: Path) -> RunWatch:
    return RunWatch(tmp_path)


def reached(watch: RunWatch, name: str) -> bool:
    """As `RunWatch.reached`; a file that vanished was not it."""
    try:
        return watch.reached(name)
    except FileNotFoundError:
        return False


def start_sort(source: Path, watch: RunWatch, *more: str) -> subprocess.Popen[bytes]:
    """Sort by the command line in a process group of its own."""
    command = [sys.executable, "-m", "emsqrt.cli", "sort", str(source), str(watch.out / "t.csv")]
    options = ["--by", "k", "--mem-cap", "22MiB", "--spill-dir", str(watch.spill), "--quiet"]
    return subprocess.Popen(
        [*command, *options, *more],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        process_group=0,
    )


def sort_here(source: Path, watch: RunWatch) -> None:
    """Sort by the library, whose child then is a child of this process."""
    with Engine(EngineConfig(spill_dir=watch.spill)) as engine:
        scan(source).sort("k").sink(watch.out / "t.csv").run("22MiB", engine=engine)


def executors(pid: int) -> list[int]:
    """The executor processes that a process started."""
    found = []
    for child in children(pid):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            if b"emsqrt" in Path(f"/proc/{child}/cmdline").read_bytes():
                found.append(child)
    return found


def held_in(
    place: str, watch: RunWatch, processes: Callable[[], list[int]], over: Callable[[], bool]
) -> list[int]:
    """Stop a run's processes in a phase and return them; none when the phase was over before.

    A phase of some milliseconds could end between seeing it and a signal. Stopped, it lasts.
    """
    wait_for(lambda: reached(watch, place) or over())
    stopped = processes()
    signal_all(stopped, signal.SIGSTOP)
    wait_for(lambda: all(state(each) in "TZ" for each in stopped))
    if not over() and reached(watch, place) and any(state(each) == "T" for each in stopped):
        return stopped
    signal_all(stopped, signal.SIGCONT)
    return []


def start_held(
    place: str, watch: RunWatch, start: Callable[[], subprocess.Popen[bytes]]
) -> tuple[subprocess.Popen[bytes], list[int]]:
    """Start runs until one is stopped in a phase; return its process, and it and its executors."""
    for _ in range(20):
        process = start()

        def processes(pid: int = process.pid) -> list[int]:
            return [pid, *executors(pid)]

        def over(process: subprocess.Popen[bytes] = process) -> bool:
            return process.poll() is not None

        if stopped := held_in(place, watch, processes, over):
            return process, stopped
        process.communicate()
        assert process.returncode == 0
        (watch.out / "t.csv").unlink()
    raise AssertionError(f"no run was seen in the phase {place}")


def swept(source: Path, watch: RunWatch) -> None:
    """Run something else with the same spill folder; look that nothing of before is left."""
    small = watch.out / "small.csv"
    small.write_text("k,v\n2,b\n1,a\n")
    sort_here(small, watch)
    assert (watch.out / "t.csv").read_text() == "k,v\n1,a\n2,b\n"
    assert watch.left() == []


@pytest.mark.sample(1)
@pytest.mark.parametrize("place", ["gather", "spill", "write"])
def test_a_killed_process_leaves_no_half_output_and_its_spill_is_swept(
    source: Path, watch: RunWatch, place: str
) -> None:
    process, stopped = start_held(place, watch, lambda: start_sort(source, watch))
    process.kill()
    signal_all(stopped, signal.SIGCONT)
    process.communicate()
    assert not (watch.out / "t.csv").exists()
    wait_for(lambda: not any(map(is_alive, stopped)))
    swept(source, watch)


@pytest.mark.sample(1)
@pytest.mark.parametrize("place", ["spill", "write"])
def test_a_killed_child_is_reported_and_leaves_nothing(
    source: Path, watch: RunWatch, place: str
) -> None:
    errors: list[SennitError] = []

    def run() -> None:
        try:
            sort_here(source, watch)
        except SennitError as error:
            errors.append(error)

    for _ in range(20):
        thread = threading.Thread(target=run)
        thread.start()

        def over(thread: threading.Thread = thread) -> bool:
            return not thread.is_alive()

        stopped = held_in(place, watch, lambda: executors(os.getpid()), over)
        signal_all(stopped, signal.SIGKILL)
        thread.join(60)
        if stopped:
            break
        (watch.out / "t.csv").unlink()
    assert [type(error) for error in errors] == [WorkerLost]
    assert not (watch.out / "t.csv").exists()
    swept(source, watch)


PARENT = """
import sys
from emsqrt import Engine, EngineConfig, scan
from pathlib import Path
source, out, spill = sys.argv[1:]
with Engine(EngineConfig(spill_dir=Path(spill))) as engine:
    scan(source).sort("k").sink(out).run("22MiB", engine=engine)
"""


@pytest.mark.sample(1)
@pytest.mark.parametrize("place", ["spill", "write"])
def test_a_killed_parent_ends_its_child(source: Path, watch: RunWatch, place: str) -> None:
    words = [sys.executable, "-c", PARENT, str(source), str(watch.out / "t.csv")]
    parent, stopped = start_held(place, watch, lambda: subprocess.Popen([*words, str(watch.spill)]))
    parent.kill()
    signal_all(stopped, signal.SIGCONT)
    parent.wait()
    wait_for(lambda: not any(map(is_alive, stopped)))
    assert not (watch.out / "t.csv").exists()
    swept(source, watch)


@pytest.mark.nightly
def test_a_stopped_child_does_not_outlive_the_deadline(source: Path, watch: RunWatch) -> None:
    def stop() -> None:
        wait_for(lambda: reached(watch, "spill"))
        signal_all(executors(os.getpid()), signal.SIGSTOP)

    thread = threading.Thread(target=stop)
    thread.start()
    plan = scan(source).sort("k").sink(watch.out / "t.csv").plan
    with (
        Engine(EngineConfig(spill_dir=watch.spill)) as engine,
        pytest.raises((DeadlineExceeded, WorkerLost)),
    ):
        engine.run(plan, mem_cap="22MiB", deadline_seconds=3)
    thread.join()
    assert not (watch.out / "t.csv").exists()
    swept(source, watch)


@pytest.fixture
def heeding_ctrl_c() -> Iterator[None]:
    """Children of a job in the background ignore SIGINT, unless this process heeds it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("heeding_ctrl_c")
@pytest.mark.parametrize("place", ["spill", "write"])
def test_ctrl_c_ends_the_command_with_130_and_leaves_nothing(
    source: Path, watch: RunWatch, place: str
) -> None:
    process, stopped = start_held(place, watch, lambda: start_sort(source, watch))
    os.killpg(process.pid, signal.SIGINT)
    signal_all(stopped, signal.SIGCONT)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 130
    assert b"Traceback" not in errors
    assert list(watch.out.iterdir()) == []
    assert watch.left() == []


def test_a_reader_that_goes_away_is_no_trouble(source: Path, watch: RunWatch) -> None:
    command = f"{sys.executable} -m emsqrt.cli sort {source} - --by k --mem-cap 22MiB --quiet"
    script = f"set -o pipefail; {command} --spill-dir {watch.spill} | head -1"
    done = subprocess.run(["bash", "-c", script], capture_output=True, check=False, timeout=60)
    assert done.stdout == b"k,v\n"
    assert done.stderr == b""
    assert done.returncode in (0, 141)
    assert watch.left() == []


@pytest.fixture(autouse=True)
def _nothing_is_left_running() -> Iterator[None]:
    before = set(children(os.getpid()))
    yield
    wait_for(lambda: not [pid for pid in set(children(os.getpid())) - before if is_alive(pid)])
