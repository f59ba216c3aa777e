from __future__ import annotations

import mmap
import os
import resource
import subprocess
import sys
import threading
import time
from array import array
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from queue import SimpleQueue

import pytest

from emsqrt.memory import AllocationLimit, CapLevels, MemoryUse, Reactions, UsageReader, Watchdog
from emsqrt.memory.usage import Limits

MIB = 1 << 20


def never(use: MemoryUse) -> None:
    pytest.fail(f"this must not be called: {use}")


def test_touched_memory_is_charged_and_untouched_is_not() -> None:
    with UsageReader() as reader:
        before = reader.read()
        reserved = mmap.mmap(-1, 64 * MIB, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        untouched = reader.read()
        reserved.write(bytes(64 * MIB))
        touched = reader.read()
        reserved.close()
    assert untouched.charged_bytes - before.charged_bytes < 32 * MIB
    assert touched.charged_bytes - before.charged_bytes > 60 * MIB
    assert touched.data_bytes > before.data_bytes


def test_a_process_that_has_ended_uses_nothing() -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    with UsageReader(child.pid) as reader:
        child.communicate()
        assert reader.read().charged_bytes == 0


@pytest.fixture
def watchdog() -> Iterator[Watchdog]:
    with Watchdog() as thread:
        yield thread


@pytest.mark.slow
def test_pressure_is_reported_once_and_then_a_breach_follows(watchdog: Watchdog) -> None:
    pressed: list[MemoryUse] = []
    breached = threading.Event()
    levels = CapLevels(cap_bytes=1 << 40, press_bytes=0, breach_bytes=1 << 40)
    reactions = Reactions(pressed.append, lambda _: breached.set())
    with watchdog.watch(levels, reactions, limit_allocations=False):
        assert breached.wait(20)
    assert len(pressed) == 1


def test_a_use_over_the_breach_level_ends_at_once(watchdog: Watchdog) -> None:
    breached = threading.Event()
    levels = CapLevels(cap_bytes=0, press_bytes=0, breach_bytes=0)
    with watchdog.watch(
        levels, Reactions(never, lambda _: breached.set()), limit_allocations=False
    ):
        assert breached.wait(20)


def test_each_of_many_short_watches_is_enforced(watchdog: Watchdog) -> None:
    # The thread may still measure for the watch before when the next one begins.
    seen: SimpleQueue[MemoryUse] = SimpleQueue()
    calm, alarmed = Reactions(never, never), Reactions(never, seen.put)
    for number in range(20):
        with watchdog.watch(CapLevels.below(1 << 40), calm, limit_allocations=False):
            pass
        levels = CapLevels(cap_bytes=number % 2 << 40, press_bytes=0, breach_bytes=0)
        with watchdog.watch(levels, alarmed, limit_allocations=False):
            assert seen.get(timeout=20).charged_bytes > 0
        while not seen.empty():
            seen.get()


def test_the_peak_is_the_largest_sample(watchdog: Watchdog) -> None:
    with watchdog.watch(
        CapLevels.below(1 << 40), Reactions(never, never), limit_allocations=False
    ) as watch:
        block = bytearray(b"x" * (64 * MIB))
        watch.look()
        del block
    assert watch.peak() > watchdog.reader.read().charged_bytes + 32 * MIB


def test_the_peak_includes_what_the_thread_saw_but_did_not_report(watchdog: Watchdog) -> None:
    with watchdog.watch(
        CapLevels.below(1 << 40), Reactions(never, never), limit_allocations=False
    ) as watch:
        block = bytearray(b"x" * (64 * MIB))
        while watch.seen[0] < len(block):
            time.sleep(0.001)
        del block
        assert watch.peak() > watchdog.reader.read().charged_bytes + 32 * MIB


def note(looked: threading.Event, use: MemoryUse) -> None:
    looked.set()


def test_one_thread_watches_one_run_after_the_other(watchdog: Watchdog) -> None:
    for _ in range(3):
        looked = threading.Event()
        reactions = Reactions(never, never, on_look=partial(note, looked))
        with watchdog.watch(CapLevels.below(1 << 40), reactions, limit_allocations=False):
            assert looked.wait(20)


FENCED = """
from emsqrt.memory import AllocationLimit, UsageReader
reader = UsageReader()
use = reader.read()
cap = use.charged_bytes + (64 << 20)
fence = AllocationLimit(cap)
fence.move(use)
try:
    b"x" * (80 << 20)
except MemoryError:
    print("refused", reader.read().charged_bytes <= cap)
kept = b"x" * (40 << 20)
fence.lift()
print(len(b"x" * (80 << 20)) >> 20)
reader.close()
"""


def test_one_allocation_larger_than_the_free_memory_fails_cleanly() -> None:
    done = subprocess.run(
        [sys.executable, "-c", FENCED], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["refused", "True", "80"]


def test_levels_leave_room_below_the_cap() -> None:
    levels = CapLevels.below(64 * MIB)
    assert levels.press_bytes < levels.breach_bytes < levels.cap_bytes == 64 * MIB


def test_lifting_a_fence_restores_the_limit() -> None:
    before = resource.getrlimit(resource.RLIMIT_DATA)
    fence = AllocationLimit(1 << 40)
    with UsageReader() as reader:
        fence.move(reader.read())
    assert resource.getrlimit(resource.RLIMIT_DATA) != before
    fence.lift()
    assert resource.getrlimit(resource.RLIMIT_DATA) == before


UNBOUND = Limits(1 << 60, 1 << 60, 0, 1 << 60, far_ms=5, near_ms=5, report_ms=60_000)


@pytest.fixture
def wake() -> Iterator[int]:
    descriptor = os.eventfd(0)
    yield descriptor
    os.close(descriptor)


def test_a_watch_continues_until_it_is_woken(wake: int) -> None:
    threading.Timer(0.05, os.eventfd_write, (wake, 1)).start()
    with UsageReader() as reader:
        use = reader.watch(UNBOUND, wake, most := array("Q", [0, 0, 0, 0]))
    assert 0 < use.charged_bytes <= most[0]


def test_a_watch_ends_at_its_next_look_once_it_is_over(wake: int) -> None:
    with UsageReader() as reader:
        assert reader.watch(UNBOUND, wake, array("Q", [0, 0, 0, 1])).charged_bytes > 0


@pytest.mark.parametrize(
    "limits",
    [
        UNBOUND._replace(charged_max=1),
        UNBOUND._replace(idle_min=1 << 60),
        UNBOUND._replace(report_ms=20),
    ],
)
def test_a_watch_ends_when_there_is_something_to_report(limits: Limits, wake: int) -> None:
    with UsageReader() as reader:
        assert reader.watch(limits, wake, array("Q", [0, 0, 0, 0])).charged_bytes > 0


def test_a_watch_sees_the_same_as_a_look(wake: int) -> None:
    with UsageReader() as reader:
        watched = reader.watch(UNBOUND._replace(report_ms=1), wake, array("Q", [0, 0, 0, 0]))
        looked = reader.read()
    assert abs(watched.charged_bytes - looked.charged_bytes) < MIB
    assert abs(watched.charged_most_bytes - looked.charged_most_bytes) < MIB
    assert abs(watched.data_bytes - looked.data_bytes) < 16 * MIB


ONCE = UNBOUND._replace(report_ms=0)


def test_a_height_between_two_looks_is_part_of_the_peak(wake: int) -> None:
    with UsageReader() as reader:
        reader.forget_most()
        before = reader.watch(ONCE, wake, peak := array("Q", [0, 0, 0, 0])).charged_bytes
        block = bytearray(b"x" * (64 * MIB))
        del block
        after = reader.watch(ONCE, wake, peak).charged_bytes
    assert after < before + 16 * MIB
    assert before + 60 * MIB < peak[0] < before + 160 * MIB


def test_pages_of_a_mapped_file_do_not_count(wake: int, tmp_path: Path) -> None:
    (tmp_path / "mapped").write_bytes(bytes(64 * MIB))
    with UsageReader() as reader, (tmp_path / "mapped").open("rb") as file:
        reader.forget_most()
        before = reader.watch(ONCE, wake, peak := array("Q", [0, 0, 0, 0])).charged_bytes
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
            assert mapped.find(b"x") < 0
            reader.watch(ONCE, wake, peak)
        reader.watch(ONCE, wake, peak)
    assert peak[0] < before + 16 * MIB
