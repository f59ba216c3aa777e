"""On cores that others use, `auto` does not mistake the disk for slow."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from emsqrt.spill import SpillManager
from emsqrt.spill.core_wait import CoreWait
from emsqrt.spill.local import Disk, LocalStore

BLOCK = b"the quick brown fox jumps over the lazy dog\n" * (1 << 15)
SLOW_BLOCKS = 50  # beyond the 64 MiB that are written before the disk is measured


class SlowDisk(Disk):
    """Simulates 100 MB/s by a test's clock."""

    def __init__(self) -> None:
        self.now = 0.0

    def write(self, file: int, parts: Sequence[memoryview]) -> int:
        """Let time pass; the bytes themselves are of no interest."""
        size = sum(map(len, parts))
        self.now += size / 100e6
        os.ftruncate(file, os.fstat(file).st_size + size)
        return size


def kept_of_the_last_block(disk: SlowDisk, folder: Path) -> float:
    with SpillManager(folder, store=LocalStore(folder, disk=disk)) as spill:
        with spill.create("run") as writer:
            for _ in range(SLOW_BLOCKS):
                writer.append(BLOCK, 1)
            before = spill.stats.written_bytes
            writer.append(BLOCK, 1)
        return (spill.stats.written_bytes - before) / len(BLOCK)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> SlowDisk:
    disk = SlowDisk()
    monkeypatch.setattr("emsqrt.spill.spilling.time.perf_counter", lambda: disk.now)
    return disk


def test_a_disk_that_is_waited_for_is_slow(
    disk: SlowDisk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(CoreWait, "seconds", lambda self: 0.0)
    assert kept_of_the_last_block(disk, tmp_path) < 0.2


def test_a_core_that_is_waited_for_makes_no_disk_slow(
    disk: SlowDisk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(CoreWait, "seconds", lambda self: 0.9 * disk.now)
    assert kept_of_the_last_block(disk, tmp_path) > 1


@pytest.fixture
def shared_core() -> Iterator[None]:
    """Run this thread on one core that another process keeps busy."""
    if not hasattr(os, "sched_setaffinity") or not Path("/proc/self/schedstat").exists():
        pytest.skip("the kernel neither pins threads nor reports what they wait for")
    cores = os.sched_getaffinity(0)
    core = random.choice(sorted(cores))
    busy = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        os.sched_setaffinity(busy.pid, {core})
        os.sched_setaffinity(0, {core})
        yield
    finally:
        os.sched_setaffinity(0, cores)
        busy.kill()
        busy.wait()


def test_waiting_for_a_core_is_distinguished_from_sleeping(shared_core: None) -> None:
    wait = CoreWait()
    before, waited = time.perf_counter(), wait.seconds()
    while time.perf_counter() < before + 0.3:
        pass
    contended = wait.seconds() - waited
    wait.close()
    assert 0.02 < contended <= time.perf_counter() - before


def test_sleeping_is_no_wait_for_a_core() -> None:
    wait = CoreWait()
    waited = wait.seconds()
    time.sleep(0.4)
    slept = wait.seconds() - waited
    wait.close()
    wait.close()
    assert slept < 0.3
    assert wait.seconds() == 0.0
