"""The process of one function: `python -I -m elytra.functions.child COUNTER`, run by an executor.

Its standard input has frames with the step and rows, its standard output those with what the function
returns (`elytra.functions.frames`). COUNTER is the descriptor of 8 bytes of memory, the calls that were
made, so that the executor can name the row of a function that ends the process or never returns.

Everything before `confine` is this package's code; the function's text is compiled after it.
"""

from __future__ import annotations

import importlib
import json
import mmap
import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from elytra.functions.frames import (
    FRAME_BYTES_MAX,
    read_frame,
    rows_bytes,
    rows_of_bytes,
    write_frame,
)
from elytra.functions.sandbox import confine
from elytra.local.python_steps import NO_INITIAL, PythonStep
from emsqrt.process_setup import block_pandas
from sennit_core.errors import SennitError, UsageError
from sennit_core.schema import Schema

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["main"]

_STACK_BYTES = 1 << 20


class _Pipes:
    """The frames of both directions, on descriptors that `print` and `input` do not reach."""

    def __init__(self) -> None:
        self._in, self._out = os.dup(0), os.dup(1)
        null = os.open(os.devnull, os.O_RDWR)
        os.dup2(null, 0)
        os.dup2(null, 1)

    def send(self, kind: str, payload: bytes | memoryview = b"") -> None:
        """Send a frame."""
        write_frame(self._out, kind, payload)

    def receive(self) -> tuple[str, bytes]:
        """Receive a frame."""
        return read_frame(self._read)

    def _read(self, size: int) -> bytes:
        pieces = []
        while size:
            piece = os.read(self._in, min(size, 1 << 20))
            if not piece:
                os._exit(0)  # the executor has ended
            pieces.append(piece)
            size -= len(piece)
        return b"".join(pieces)


def main(counter_file: int) -> None:
    """Run one step over the rows that come, and end the process."""
    pipes = _Pipes()
    calls = mmap.mmap(counter_file, 8)
    os.close(counter_file)
    _, payload = pipes.receive()
    start = json.loads(payload)
    try:
        _run(start, pipes, calls)
        pipes.send("end")
    except BaseException as problem:  # noqa: BLE001 - whatever the function raises is its failure
        pipes.send("failed", _described(problem))
    os._exit(0)  # no handler that the function registered runs


def _run(start: dict[str, Any], pipes: _Pipes, calls: mmap.mmap) -> None:
    _load(start["form"])
    threading.stack_size(_STACK_BYTES)  # a stack is address space, which is limited
    received = Schema.from_json(start["received"]).to_arrow()
    schema = Schema.from_json(start["schema"])
    confine(start["memoryBytes"], start["seconds"], start["parent"])
    pipes.send("ready")
    step = _step(start, calls)
    at = 0
    for output in step.outputs(_received(pipes, received)):
        batch = output.typed(schema, start["resultShape"], step.label, at)
        at += batch.num_rows
        for piece in _pieces(batch):
            pipes.send("rows", piece)


def _load(form: str) -> None:
    """Load libraries before the limit of the memory is set: what they need is not the function's."""
    import pyarrow as pa
    import pyarrow.compute

    pa.set_cpu_count(1)
    if form != "arrow":
        with suppress(ImportError):  # the step says so when it is called
            importlib.import_module(form)
    if form != "pandas":
        # pyarrow imports pandas, if it is there, when it sees the first Python object; once only.
        finders = list(sys.meta_path)
        block_pandas()
        pa.array([0])
        sys.meta_path[:] = finders  # the function may import it


def _step(start: dict[str, Any], calls: mmap.mmap) -> PythonStep:
    names: dict[str, Any] = {"__name__": "elytra_function"}
    exec(compile(start["program"], "<function>", "exec"), names)
    function = names.get("function")
    if not callable(function):
        raise UsageError("its program defines no function")
    step = PythonStep(
        start["verb"],
        function,
        start["shape"],
        start["label"],
        batch_rows=start["batchRows"],
        form=start["form"],
        initial=names.get("initial", NO_INITIAL),
    )
    # Without an initial value the first row is the accumulator, and the first call is for the second row.
    is_folding_rows = step.verb == "reduce" and step.initial is NO_INITIAL
    return replace(step, function=_counted(function, calls, int(is_folding_rows)))


def _counted(function: Callable[..., Any], calls: mmap.mmap, start: int) -> Callable[..., Any]:
    """Return the function, which counts its calls where the executor sees them."""
    made = memoryview(calls).cast("Q")
    made[0] = start

    def counted(*arguments: Any) -> Any:
        made[0] += 1
        return function(*arguments)

    return counted


def _received(pipes: _Pipes, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    while True:
        pipes.send("more")
        kind, payload = pipes.receive()
        if kind != "rows":
            return
        yield rows_of_bytes(payload, schema)


def _pieces(batch: pa.RecordBatch) -> Iterator[memoryview]:
    """Yield a batch in frames that are not too large."""
    data = rows_bytes(batch)
    if len(data) <= FRAME_BYTES_MAX:
        yield data
        return
    if batch.num_rows == 1:
        raise UsageError(
            f"a row that it returned has {len(data):,} bytes, more than {FRAME_BYTES_MAX:,}"
        )
    del data
    half = batch.num_rows // 2
    yield from _pieces(batch.slice(0, half))
    yield from _pieces(batch.slice(half))


def _described(problem: BaseException) -> bytes:
    """Return an error as JSON; of what the function raised, its type and text."""
    try:
        if isinstance(problem, SennitError):
            error = problem.to_json()
        else:
            error = {"error": f"{type(problem).__name__}: {problem}", "code": "function"}
        data = json.dumps(error).encode()
    except BaseException:  # noqa: BLE001 - a __str__ of the function's own
        data = b""
    if not data or len(data) > FRAME_BYTES_MAX:
        data = json.dumps({"error": type(problem).__name__[:100], "code": "function"}).encode()
    return data


if __name__ == "__main__":
    main(int(sys.argv[1]))
