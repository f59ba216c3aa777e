"""A second thread works behind the first: the same rows, the same errors, and nothing is left."""

from __future__ import annotations

import random
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from itertools import count
from pathlib import Path
from types import FrameType

import pytest
from fuzz_runs import NullStream

from emsqrt import background
from emsqrt._kernel import KeySpec, unpack_rows
from emsqrt._kernel.testing import I64, TEXT, columns, read_back
from emsqrt.background import BackgroundWorker
from emsqrt.config import EngineConfig
from emsqrt.executor.context import EntryContext
from emsqrt.external import ExternalSort
from emsqrt.external.output_buffer import OutputBuffer
from emsqrt.memory import MemoryBudget
from emsqrt.pipeline import scan
from emsqrt.spill import SpillError, SpillManager
from emsqrt.spill.local import LocalStore
from emsqrt.spill.testing import DISK_FAULTS, DiskFault, FaultyDisk
from emsqrt.text_engine.compile import compile_text
from emsqrt.text_engine.session import run_text
from sennit_core.errors import Cancelled, StorageFull

MIB = 1 << 20
Row = tuple[int | None, str]


@pytest.fixture
def worker() -> Iterator[BackgroundWorker]:
    worker = BackgroundWorker(2)
    yield worker
    worker.close()


def names() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name == "emsqrt-background"]


def test_work_is_done_in_order_on_one_other_thread(worker: BackgroundWorker) -> None:
    done: list[tuple[int, int]] = []
    for number in range(50):
        worker.run(lambda number=number: done.append((number, threading.get_ident())))  # type: ignore[misc]
    worker.wait()
    assert [number for number, _ in done] == list(range(50))
    assert {ident for _, ident in done} & {threading.get_ident()} == set()
    assert len({ident for _, ident in done}) == len(names()) == 1
    worker.close()
    assert names() == []


def test_an_error_arrives_as_it_was_and_once(worker: BackgroundWorker) -> None:
    error = StorageFull(path="somewhere", free_bytes=0)

    def fail() -> None:
        raise error

    done: list[int] = []
    worker.run(fail)
    worker.wait_idle()  # used after a failure, so it raises nothing
    with pytest.raises(StorageFull) as caught:
        worker.run(lambda: done.append(1))
    assert caught.value is error
    worker.wait()
    assert done == []


def test_one_thread_does_everything_at_once() -> None:
    worker, done = BackgroundWorker(1), list[int]()
    worker.run(lambda: done.append(threading.get_ident()))
    assert done == [threading.get_ident()]
    assert not worker.is_second
    assert names() == []


def test_where_no_thread_can_start_the_first_one_works(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    worker, done = BackgroundWorker(2), list[int]()
    worker.run(lambda: done.append(threading.get_ident()))
    assert done == [threading.get_ident()]
    assert not worker.is_second
    worker.close()


def add(sort: ExternalSort, rows: list[Row]) -> None:
    for start in range(0, len(rows), 3000):
        part = rows[start : start + 3000]
        sort.add(columns((I64, [row[0] for row in part]), (TEXT, [row[1] for row in part])))


def made(rows: int, text_bytes: int = 90) -> list[Row]:
    dice = random.Random(rows)
    return [(dice.randrange(1 << 40), f"{number:0{text_bytes}}") for number in range(rows)]


def sorted_by(
    worker: BackgroundWorker, folder: Path, rows: list[Row], memory_bytes: int
) -> tuple[bytes, int]:
    """Return the sorted rows as packed, and how many runs they were."""
    out, found = memoryview(bytearray(256 << 10)), bytearray()
    with SpillManager(folder, codec="none", background=worker) as spill:
        memory = memoryview(bytearray(memory_bytes))
        sort = ExternalSort(memory, spill, KeySpec([(0, False, False)]), (0, 1))
        add(sort, rows)
        sort.finish()
        out_buffer = OutputBuffer(out, worker.wait)
        for size, _ in sort.blocks(out_buffer):
            found += out_buffer.room[:size]
        runs = sort.stats.runs
        sort.close()
    return bytes(found), runs


@pytest.mark.slow
@pytest.mark.parametrize("memory_bytes", [2 * MIB, 3 * MIB])
def test_halves_sort_as_the_whole_does(
    worker: BackgroundWorker, tmp_path: Path, memory_bytes: int
) -> None:
    rows = made(90_000)
    whole, whole_runs = sorted_by(BackgroundWorker(), tmp_path / "one", rows, memory_bytes)
    halves, runs = sorted_by(worker, tmp_path / "two", rows, memory_bytes)
    assert halves == whole
    assert whole_runs < runs <= 2 * whole_runs


def test_rows_that_fit_the_memory_are_not_spilled_for_its_halves(
    worker: BackgroundWorker, tmp_path: Path
) -> None:
    _, runs = sorted_by(worker, tmp_path, made(15_000), 3 * MIB)
    assert runs == 0


def test_a_row_longer_than_a_half_gathers_in_the_whole(
    worker: BackgroundWorker, tmp_path: Path
) -> None:
    rows = made(30_000)
    for at in (20_000, 29_000):
        rows.insert(at, (at, "x" * (700 << 10)))
    memory, out = memoryview(bytearray(3 * MIB)), memoryview(bytearray(MIB))
    room, found = memoryview(bytearray(3 * MIB)), list[Row]()
    with SpillManager(tmp_path, codec="none", background=worker) as spill:
        sort = ExternalSort(memory, spill, KeySpec([(0, False, False)]), (0, 1))
        add(sort, rows)
        sort.finish()
        out_buffer = OutputBuffer(out, worker.wait)
        for size, in_block in sort.blocks(out_buffer):
            many, _, parts = unpack_rows(out_buffer.room[:size], 0, in_block, [I64, TEXT], room)
            found += zip(*(read_back(room, part, many) for part in parts), strict=True)
        sort.close()
    assert found == sorted(rows, key=lambda row: row[0] or 0)


def test_a_buffer_that_is_still_read_is_not_filled_when_a_row_used_all_memory() -> None:
    waited: list[int] = []
    out_buffer = OutputBuffer(memoryview(bytearray(8)), lambda: waited.append(len(out_buffer.room)))
    out_buffer.advance()
    assert waited == []
    assert out_buffer.widen()
    out_buffer.advance()
    assert waited == [4, 8]
    assert len(out_buffer.room) == 4


@pytest.mark.slow
@pytest.mark.sample(1)
@pytest.mark.parametrize("fault", DISK_FAULTS)
def test_a_disk_that_fails_behind_it(tmp_path: Path, fault: DiskFault) -> None:
    rows, quiet = made(60_000), FaultyDisk()
    expected: bytes = b""
    at_once = count(1, 7)
    failures = 0
    for at in [0, *(next(at_once) for _ in range(12))]:
        disk = quiet if at == 0 else FaultyDisk(at, fault)
        worker = BackgroundWorker(2)
        store = LocalStore(tmp_path, disk=disk)
        memory, found = memoryview(bytearray(2 * MIB)), bytearray()
        out = memoryview(bytearray(256 << 10))
        try:
            with SpillManager(tmp_path, codec="none", background=worker, store=store) as spill:
                sort = ExternalSort(memory, spill, KeySpec([(0, False, False)]), (0, 1))
                try:
                    add(sort, rows)
                    sort.finish()
                    for size, _ in sort.blocks(out):
                        found += out[:size]
                finally:
                    sort.close()
        except SpillError:
            failures += 1
        else:
            expected = expected or bytes(found)
            assert found == expected
        worker.close()
        assert [path for path in tmp_path.rglob("*") if path.name != ".sweep"] == []
    assert names() == []
    assert bool(failures) == (fault not in ("short", "flipped")) or fault == "flipped"


def test_cancelling_ends_both_threads(worker: BackgroundWorker, tmp_path: Path) -> None:
    stopped = False

    def check() -> None:
        if stopped:
            raise Cancelled("the sort")

    with SpillManager(tmp_path, codec="none", background=worker, check=check) as spill:
        memory = memoryview(bytearray(2 * MIB))
        sort = ExternalSort(memory, spill, KeySpec([(0, False, False)]), (0, 1), check=check)
        rows = made(30_000)
        add(sort, rows)
        stopped = True
        with pytest.raises(Cancelled):
            add(sort, rows)
        sort.close()
    assert [path for path in tmp_path.rglob("*") if path.name != ".sweep"] == []


def run_sort(source: Path, target: Path, threads: int) -> dict[str, object]:
    plan = scan(source).sort("k", "t").sink(target).plan
    context = EntryContext(
        "the test",
        24 * MIB,
        NullStream(),
        lambda _: None,
        target.parent / "spill",
        budget=MemoryBudget(24 * MIB),
    )
    if threads == 1:
        context.spilling = EngineConfig(max_parallel_tasks=1).spilling
    return run_text(compile_text(plan, target.parent), context)


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path, dice = tmp_path_factory.mktemp("table") / "t.csv", random.Random(4)
    with path.open("w") as file:
        file.write("k,t\n")
        for _ in range(220_000):
            file.write(f"{dice.randrange(90_000)},{'long text ' * dice.randrange(1, 30)}\n")
    return path


@pytest.mark.slow
def test_a_run_writes_the_same_with_one_thread_and_with_two(table: Path, tmp_path: Path) -> None:
    reports = [run_sort(table, tmp_path / f"{threads}.csv", threads) for threads in (1, 2)]
    assert (tmp_path / "1.csv").read_bytes() == (tmp_path / "2.csv").read_bytes()
    tags = [report["reservedByTag"] for report in reports]
    assert [isinstance(tag, dict) and "second thread" in tag for tag in tags] == [False, True]
    assert names() == []


def test_a_full_disk_behind_the_merge_leaves_no_output(
    table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from emsqrt.text_engine.sink import CsvTextSink
    from emsqrt.text_engine.text import Block

    wrote, write = list[int](), CsvTextSink.write

    def fill_up(self: CsvTextSink, block: Block) -> None:
        assert block.stays
        assert threading.current_thread().name == "emsqrt-background"
        wrote.append(len(block.data))
        if len(wrote) == 9:
            raise OSError(28, "No space left on device")
        write(self, block)

    monkeypatch.setattr(CsvTextSink, "write", fill_up)
    with pytest.raises(StorageFull):
        run_sort(table, tmp_path / "t.csv", 2)
    assert len(wrote) == 9
    assert [path.name for path in tmp_path.iterdir() if path.suffix == ".csv"] == []
    assert names() == []


class InterruptAt:
    """Raises KeyboardInterrupt before the n-th line that this thread runs in background.py."""

    def __init__(self, step: int) -> None:
        self._left = step
        self.raised = False

    def __call__(self, frame: FrameType, event: str, _: object) -> InterruptAt | None:
        if frame.f_code.co_filename != background.__file__:
            return None
        frame.f_trace_opcodes = True
        if event == "opcode":
            self._left -= 1
            if self._left == 0:
                self.raised = True
                raise KeyboardInterrupt
        return self


@pytest.mark.slow
def test_an_interrupt_between_any_two_steps_leaves_no_thread_waiting() -> None:
    for step in count(1):
        worker, interrupt = BackgroundWorker(2), InterruptAt(step)
        done: list[int] = []
        before = sys.gettrace()
        sys.settrace(interrupt)
        with suppress(KeyboardInterrupt):
            for number in range(3):
                worker.run(partial(done.append, number))
            worker.wait()
        sys.settrace(before)
        worker.wait_idle()
        settled = list(done)
        worker.close()
        assert done == settled == list(range(len(done)))
        if not interrupt.raised:
            break
    assert step > 50
