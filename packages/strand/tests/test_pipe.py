"""Generators in other processes, by each start method."""

import gc
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

import strand
from sennit_core.errors import UsageError

ROWS = strand.build_schema([("id", "u32"), ("name", "utf8")])
POINTS = strand.build_schema([("x", "f64"), ("n", "i32")])
START_METHODS = ["fork", "spawn", "forkserver"]


def batches(count: int) -> Iterator[pa.RecordBatch]:
    for index in range(count):
        yield pa.record_batch({"n": [index, index + 1], "s": ["a", None]})


def tables(count: int) -> Iterator[pa.Table]:
    for index in range(count):
        yield pa.table({"n": pa.chunked_array([[index], [index, index]])})
    yield pa.table({"n": pa.array([], pa.int64())})


def texts(count: int, *, ending: bytes = b"") -> Iterator[bytes | bytearray | memoryview]:
    for index in range(count):
        text = b"%d" % index + ending
        yield (text, bytearray(text), memoryview(text))[index % 3]


def rows(count: int) -> Iterator[Any]:
    for index in range(0, count, 4):
        yield (index, "a tuple")
        yield {"id": index + 1, "name": "a mapping"}
        yield [(index + 2, "in a list"), {"id": index + 3, "name": "in a list"}]


def columns(count: int) -> Iterator[dict[str, Any]]:
    for index in range(count):
        yield {"id": np.arange(index, index + 3, dtype="u4"), "name": ["x", "y", "z"]}


def arrays(count: int) -> Iterator[Any]:
    for index in range(count):
        yield np.array([(index / 2, index), (0.5, -index)], dtype=POINTS.to_numpy())


class OddError(Exception):
    def __init__(self, one: int, other: int) -> None:
        super().__init__(f"{one} and {other}")


def fail(error: type[Exception], *arguments: Any) -> Iterator[bytes]:
    yield b"before"
    raise error(*arguments)


def run_until_closed(mark: str) -> Iterator[bytes]:
    try:
        while True:
            yield bytes(1000)
    finally:
        Path(mark).write_text("finally")


def never_yield(mark: str) -> Iterator[bytes]:
    try:
        yield b"one"
        time.sleep(600)
    finally:
        Path(mark).write_text("finally")


def be_killed(count: int) -> Iterator[bytes]:
    for index in range(count):
        yield b"%d" % index
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.sample(1)
@pytest.mark.slow
@pytest.mark.parametrize("context", START_METHODS)
def test_arrow_batches_arrive(context: str) -> None:
    with strand.pipe(batches, 5, context=context) as pipe:
        received = list(pipe)
    assert received == list(batches(5))


def test_tables_arrive_as_their_batches() -> None:
    received = list(strand.pipe(tables, 2))
    assert [batch.num_rows for batch in received] == [1, 2, 1, 2, 0]
    assert pa.Table.from_batches(received) == pa.concat_tables(tables(2)).combine_chunks()


@pytest.mark.sample(2)
@pytest.mark.slow
@pytest.mark.parametrize("context", START_METHODS)
def test_payloads_arrive_as_bytes_of_their_own(context: str) -> None:
    pipe = strand.pipe(texts, 300, ending=b"!", records=4, heap=4096, context=context)
    assert list(pipe) == [b"%d!" % index for index in range(300)]
    assert pipe.closed


@pytest.mark.sample(1)
@pytest.mark.slow
@pytest.mark.parametrize("context", START_METHODS)
def test_rows_of_a_schema_arrive_as_tuples(context: str) -> None:
    received = list(strand.pipe(rows, 400, schema=ROWS, records=16, heap=1024, context=context))
    assert [row[0] for row in received] == list(range(400))
    assert {row[1] for row in received} == {"a tuple", "a mapping", "in a list"}


def test_columns_of_a_schema_arrive_as_arrow_batches() -> None:
    received = pa.Table.from_batches(strand.pipe(columns, 4, schema=ROWS))
    assert received["id"].to_pylist() == [0, 1, 2, 1, 2, 3, 2, 3, 4, 3, 4, 5]
    assert received["name"].to_pylist() == 4 * ["x", "y", "z"]


def test_structured_arrays_arrive_as_arrays_of_their_own() -> None:
    received = list(strand.pipe(arrays, 50, schema=POINTS, records=8, heap=128))
    assert np.concatenate(received).tolist() == np.concatenate(list(arrays(50))).tolist()


def test_batches_go_through_typed_records() -> None:
    received = pa.Table.from_batches(strand.pipe(some_points, schema=POINTS))
    assert received.to_pydict() == {"x": [0.5, 1.5], "n": [1, 2]}


def some_points() -> Iterator[pa.RecordBatch]:
    yield pa.record_batch({"x": [0.5, 1.5], "n": pa.array([1, 2], pa.int32())})


def test_a_generator_that_yields_nothing_ends() -> None:
    assert list(strand.pipe(batches, 0)) == []


def test_any_iterable_will_do() -> None:
    assert list(strand.pipe(list, [b"a", b"b"])) == [b"a", b"b"]


@pytest.mark.sample(1)
@pytest.mark.slow
@pytest.mark.parametrize("context", START_METHODS)
def test_an_error_arrives_with_its_type_message_and_traceback(context: str) -> None:
    pipe = strand.pipe(fail, ValueError, "no such trip", context=context)
    assert next(pipe) == b"before"
    with pytest.raises(strand.RemoteFailure, match="ValueError: no such trip") as failed:
        next(pipe)
    assert failed.value.kind == "ValueError"
    assert repr(failed.value.__cause__) == "ValueError('no such trip')"
    assert "in fail\n    raise error(*arguments)" in failed.value.remote_traceback
    assert any("in fail" in note for note in failed.value.__notes__)
    assert pipe.closed


def test_an_error_that_cannot_be_rebuilt_arrives_as_text() -> None:
    with pytest.raises(strand.RemoteFailure, match="1 and 2") as failed:
        list(strand.pipe(fail, OddError, 1, 2))
    assert failed.value.kind.endswith(".OddError")
    assert failed.value.__cause__ is None


def test_a_long_error_arrives_in_part() -> None:
    with pytest.raises(strand.RemoteFailure, match="ValueError: xxx") as failed:
        list(strand.pipe(fail, ValueError, "x" * 1_000_000))
    assert len(str(failed.value)) < 20_000


def test_a_function_that_fails_at_once_says_why() -> None:
    with pytest.raises(strand.RemoteFailure, match="TypeError") as failed:
        list(strand.pipe(batches))
    assert isinstance(failed.value.__cause__, TypeError)


@pytest.mark.parametrize(
    ("items", "schema", "message"),
    [
        ([(1, 2)], None, "pass schema="),
        ([1], None, "not <class 'int'>"),
        ([b"x", pa.record_batch({"n": [1]})], None, "began with payloads"),
        ([(1, "a"), {"id": [1], "name": ["a"]}], ROWS, "began with rows"),
        ([(1, 2, 3)], ROWS, "UsageError"),
        (7, None, "'int' object is not iterable"),
    ],
)
def test_items_that_cannot_be_sent_fail_in_the_process(
    items: Any, schema: Any, message: str
) -> None:
    with pytest.raises(strand.RemoteFailure, match=message):
        list(strand.pipe(identity, items, schema=schema))


def identity(items: Any) -> Any:
    return items


@pytest.mark.sample(1)
@pytest.mark.slow
@pytest.mark.parametrize("context", START_METHODS)
def test_leaving_early_closes_the_generator_and_waits(context: str, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    with strand.pipe(run_until_closed, str(mark), heap=4096, context=context) as pipe:
        assert next(pipe) == bytes(1000)
        pid = pipe.pid
    assert mark.read_text() == "finally"
    assert pipe.pid is None
    with pytest.raises(ProcessLookupError):
        os.kill(pid or 0, 0)


def test_dropping_a_pipe_ends_it_too(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    for payload in strand.pipe(run_until_closed, str(mark), heap=4096):
        assert payload
        break
    assert mark.read_text() == "finally"
    assert multiprocessing.active_children() == []


def test_a_generator_that_does_not_return_is_terminated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(strand.Pipe, "patience_seconds", 0.2)
    mark = tmp_path / "mark"
    with strand.pipe(never_yield, str(mark)) as pipe:
        next(pipe)
    assert mark.read_text() == "finally"


@pytest.mark.sample(1)
@pytest.mark.slow
@pytest.mark.parametrize("context", START_METHODS)
def test_a_killed_process_is_reported_after_its_items(context: str) -> None:
    received: list[bytes] = []
    pipe = strand.pipe(be_killed, 3, context=context)
    pid = pipe.pid
    with pytest.raises(strand.ProducerDied) as died:
        received.extend(iter(pipe))
    assert died.value.pid == pid
    assert received == [b"0", b"1", b"2"]


def test_a_process_that_dies_before_it_begins_is_reported() -> None:
    with pytest.raises(strand.ProducerDied) as died:
        list(strand.pipe(_Unpicklable(), context="spawn"))
    assert "exit code is 1" in died.value.__notes__[0]


class _Unpicklable:
    """Arrives nowhere: what spawn sends cannot be rebuilt in the other process."""

    def __call__(self) -> Iterator[bytes]:
        raise NotImplementedError

    def __reduce__(self) -> Any:
        return sys.exit, (1,)


@pytest.mark.slow
def test_arguments_that_cannot_be_sent_fail_in_the_caller_and_leave_nothing() -> None:
    gc.collect()  # what other tests left to the collector
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    with pytest.raises(Exception, match="pickle"):
        strand.pipe(lambda: [b"x"], context="spawn")
    assert len(os.listdir("/proc/self/fd")) <= before  # noqa: PTH208


def test_parameters_that_make_no_ring_are_refused() -> None:
    with pytest.raises(UsageError):
        strand.pipe(batches, 1, records=3)


@pytest.mark.nightly
def test_nothing_is_left_after_two_hundred_pipes() -> None:
    list(strand.pipe(texts, 2))
    gc.collect()  # what other tests left to the collector
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    mapped = Path("/proc/self/maps").read_text().count("memfd:strand")
    for number in range(200):
        pipe = strand.pipe(texts, 20, records=4, heap=4096)
        for _ in pipe:
            if number % 2:
                break
        del pipe
    assert len(os.listdir("/proc/self/fd")) <= before  # noqa: PTH208
    assert multiprocessing.active_children() == []
    assert Path("/proc/self/maps").read_text().count("memfd:strand") <= mapped


@pytest.mark.slow
def test_a_program_may_end_with_a_pipe_half_read(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    program = tmp_path / "program.py"
    program.write_text(
        f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "import strand, test_pipe\n"
        f"pipe = strand.pipe(test_pipe.run_until_closed, {str(mark)!r}, heap=4096)\n"
        "next(pipe)\n"
    )
    assert os.spawnv(os.P_WAIT, sys.executable, [sys.executable, str(program)]) == 0
    assert mark.read_text() == "finally"


@pytest.mark.slow
@pytest.mark.sample(1)
@pytest.mark.parametrize("context", START_METHODS)
def test_the_process_ends_when_its_parent_is_killed(context: str, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    program = tmp_path / "program.py"
    program.write_text(
        f"import os, signal, sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "import strand, test_pipe\n"
        "if __name__ == '__main__':\n"
        f"    pipe = strand.pipe(test_pipe.run_until_closed, {str(mark)!r}, heap=4096,\n"
        f"                       context={context!r})\n"
        "    next(pipe)\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run(
        [sys.executable, str(program)], capture_output=True, check=False
    )  # returns when the last process that has its output is gone
    assert done.returncode == -signal.SIGKILL
    assert mark.read_text() == "finally"
