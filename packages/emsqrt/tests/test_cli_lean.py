"""The command line under caps little above the memory of the lean process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from emsqrt.memory.usage import UsageReader

MIB = 1 << 20
COMPILED = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
"""Modules are compiled once, as where a package is installed; compiling uses memory as well."""


@pytest.fixture(scope="module", autouse=True)
def compiled(source: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("compiled")
    COMPILED["PYTHONPYCACHEPREFIX"] = str(folder)
    assert sorted_under("64MiB", source, folder / "out.csv")[0] == 0


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "in.csv"
    lines = (f"{n * 7919 % 160_001},{n}{'x' * 30}\n" for n in range(160_000))
    path.write_text("k,v\n" + "".join(lines))
    return path


def sorted_under(cap: str, source: Path, out: Path) -> tuple[int, int, str]:
    """Return status, the peak as seen from outside, and what was printed."""
    words = [sys.executable, "-m", "emsqrt.cli", "sort", str(source), str(out)]
    options = ["--by", "k", "--cap", cap, "--json", "--spill-dir", str(out.parent / "spill")]
    process = subprocess.Popen(
        [*words, *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=COMPILED
    )
    peak = 0
    with UsageReader(process.pid) as reader:
        while process.poll() is None:
            peak = max(peak, reader.read().charged_bytes)
            time.sleep(0.001)
    out_text, errors = process.communicate()
    return process.returncode, peak, (out_text + errors).decode()


@pytest.mark.slow
def test_a_sort_is_planned_and_done_within_14_mib(source: Path, tmp_path: Path) -> None:
    status, peak, printed = sorted_under("14MiB", source, tmp_path / "out.csv")
    assert status == 0, printed
    assert peak <= 14 * MIB
    assert json.loads(printed)["rowsOut"] == 160_000


@pytest.mark.nightly
def test_a_cap_that_planning_passes_is_refused_by_its_peak(source: Path, tmp_path: Path) -> None:
    status, peak, printed = sorted_under("10MiB", source, tmp_path / "out.csv")
    assert status == 3
    named_mib = float(printed.split("at least ")[1].split(" MiB")[0])
    assert peak <= (named_mib + 0.1) * MIB
    assert sorted_under(f"{named_mib + 0.1:.1f}MiB", source, tmp_path / "out.csv")[0] == 0
