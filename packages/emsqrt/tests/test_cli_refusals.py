"""The memory that a refusal of the command line uses, and that each cap ends with a message."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet
from smallest_runs import Watcher

from emsqrt.cli import main, running
from emsqrt.local_runner import Listeners
from emsqrt.memory import CapLevels, Reactions, Watchdog
from emsqrt.termination import EXIT_CAP
from sennit_core.errors import MemoryCapExceeded
from sennit_core.units import MIB

GROUPS, COLUMNS = 400, 40
ENDING = """
from emsqrt.local_runner import ending_at
import time
with ending_at(24 << 20):
    held = [bytearray(1 << 20) for _ in range(30)]
    time.sleep(5)
"""


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of 16,000 column chunks, which need 3 MiB to read."""
    path = tmp_path_factory.mktemp("many") / "many.parquet"
    table = pa.table({f"c{at}": pa.array(range(GROUPS)) for at in range(COLUMNS)})
    parquet.write_table(table, path, row_group_size=1)
    return path


def sort(source: Path, out: Path, cap: str) -> subprocess.CompletedProcess[str]:
    words = ["-m", "emsqrt.cli", "sort", str(source), str(out), "--by", "c0", "--mem-cap", cap]
    return subprocess.run(
        [sys.executable, *words, "--spill-dir", str(out.parent / "spill")],
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.nightly
def test_caps_around_the_memory_of_planning_are_refused_with_one_that_works(
    many: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out.csv"
    named = set()
    for cap in ("14MiB", "41MiB"):
        with Watcher() as watcher:
            refused = sort(many, out, cap)
        assert refused.returncode == 3, refused.stderr
        assert watcher.peak_bytes < 64 * MIB
        named.add(float(refused.stderr.split("at least ")[1].split(" MiB")[0]))
    assert max(named) - min(named) < 2
    assert sort(many, out, f"{max(named) + 0.05}MiB").returncode == 0


def test_a_process_that_looks_ends_itself_at_its_cap() -> None:
    done = subprocess.run([sys.executable, "-c", ENDING], check=False, timeout=60)
    assert done.returncode == EXIT_CAP


@pytest.mark.slow
def test_a_cap_that_cannot_be_estimated_is_reported(
    many: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(os, "waitpid", lambda pid, _: (pid, EXIT_CAP << 8))
    words = ["sort", str(many), str(tmp_path / "out.csv"), "--by", "c0", "--mem-cap", "14MiB"]
    assert main(words) == 4
    assert "looking for a cap" in capsys.readouterr().err


def test_a_run_that_ends_itself_at_its_cap_says_so_first(
    many: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def at_the_cap(plan: Any, program: Any, order: Any, listeners: Listeners) -> None:
        listeners.on_breach(MemoryCapExceeded(cap_bytes=order.cap_bytes, what="the plan"))
        raise SystemExit(EXIT_CAP)

    monkeypatch.setattr(running, "_run", at_the_cap)
    words = ["sort", str(many), str(tmp_path / "out.csv"), "--by", "c0", "--mem-cap", "64MiB"]
    with pytest.raises(SystemExit):
        main(words)
    assert "the plan" in capsys.readouterr().err


def test_a_cap_is_raised_for_planning_and_never_lowered() -> None:
    reactions = Reactions(lambda _: None, lambda _: None)
    with Watchdog() as watchdog:
        watch = watchdog.watch(CapLevels.below(1 << 40), reactions, limit_allocations=False)
        watch.raise_cap(1 << 30)
        assert watch.levels.cap_bytes == 1 << 40
        watch.raise_cap(1 << 41)
        assert watch.levels == CapLevels.below(1 << 41)
