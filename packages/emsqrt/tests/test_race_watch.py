from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import pytest

from emsqrt.race import MemorySample, TreeReader, watch
from emsqrt.race.trace import Trace
from emsqrt.race.watch import folder_bytes

MIB = 1 << 20
_HOLD = "import time; held = b'x' * ({} << 20); time.sleep({})"


def holding(mebibytes: int, seconds: float) -> list[str]:
    return [sys.executable, "-S", "-c", _HOLD.format(mebibytes, seconds)]


def test_memory_and_time_of_a_command_are_measured_from_outside() -> None:
    ended = watch(holding(40, 0.2))
    assert ended.well
    assert 40 * MIB < ended.peak_bytes < 60 * MIB
    assert ended.wall_seconds >= 0.2
    assert 0 < ended.cpu_seconds < 5
    assert max(ended.trace.peaks) == ended.peak_bytes


def test_a_command_that_passes_its_cap_is_killed() -> None:
    ended = watch(holding(200, 60), cap_bytes=64 * MIB)
    assert ended.killed_at_bytes is not None
    assert ended.killed_at_bytes > 64 * MIB
    assert (ended.status, ended.well) == (-9, False)
    assert ended.wall_seconds < 30


def test_children_count_and_are_killed_with_their_parent(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    code = (
        "import pathlib, subprocess, sys\n"
        f"child = subprocess.Popen({holding(200, 60)!r})\n"
        f"pathlib.Path({str(pid_file)!r}).write_text(str(child.pid))\n"
        "child.wait()\n"
    )
    ended = watch([sys.executable, "-S", "-c", code], cap_bytes=64 * MIB)
    assert ended.killed_at_bytes is not None
    deadline = time.monotonic() + 20  # a killed process gives its memory back a little later
    with TreeReader(int(pid_file.read_text())) as tree:
        while tree.charged_bytes() > 0:
            assert time.monotonic() < deadline
            time.sleep(0.01)


def test_a_command_over_its_time_limit_is_stopped() -> None:
    ended = watch(holding(1, 60), timeout_seconds=0.3)
    assert (ended.timed_out, ended.killed_at_bytes, ended.well) == (True, None, False)


def test_spill_is_measured_while_it_exists(tmp_path: Path) -> None:
    code = (
        "import pathlib, sys, time\nfile = pathlib.Path(sys.argv[1], 'run')\n"
        "file.write_bytes(b'x' * 1_000_000)\ntime.sleep(0.5)\nfile.unlink()\n"
    )
    looks: list[MemorySample] = []
    ended = watch(
        [sys.executable, "-S", "-c", code, str(tmp_path)],
        spill_dir=tmp_path,
        on_sample=looks.append,
    )
    assert ended.spilled_bytes >= 1_000_000
    assert folder_bytes(tmp_path) == 0
    assert looks[-1].spilled_bytes == ended.spilled_bytes


def test_last_words_and_environment_come_through() -> None:
    code = "import os, sys; print(os.environ['WORD']); sys.exit('no more')"
    ended = watch([sys.executable, "-S", "-c", code], environment={"WORD": "hello"})
    assert (ended.status, ended.words) == (1, "hello\nno more\n")


def test_an_interrupted_watcher_leaves_no_process() -> None:
    pids: set[int] = set()
    with TreeReader(os.getpid()) as tree:
        before = set(tree.pids())  # helpers of the tests that ran before, and this process

    def interrupt(look: MemorySample) -> None:
        if look.held_bytes:
            with TreeReader(os.getpid()) as tree:
                pids.update(set(tree.pids()) - before)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        watch(holding(1, 60), on_sample=interrupt)
    assert pids
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)


def test_a_trace_keeps_peaks_however_long_it_gets() -> None:
    trace = Trace(step_seconds=0.005)
    for look in range(100_000):
        trace.add(look * 0.005, 7 if look == 77_777 else 1)
    assert len(trace.peaks) <= 2048
    assert max(trace.peaks) == 7
    at = trace.peaks.index(7) * trace.step_seconds
    assert at == pytest.approx(77_777 * 0.005, abs=trace.step_seconds)


def test_columns_of_a_trace_have_no_gaps_but_end_where_it_ends() -> None:
    trace = Trace(step_seconds=1.0)
    for second, held in enumerate([5, 9, 2]):
        trace.add(second, held)
    assert trace.columns(8, 4.0) == [5, 5, 9, 9, 2, -1, -1, -1]
