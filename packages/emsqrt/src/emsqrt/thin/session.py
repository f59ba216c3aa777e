"""One text program run from end to end, inside the process whose memory is capped."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack, closing
from typing import Any

from emsqrt.executor.context import Context
from emsqrt.io.places import parse_place
from emsqrt.run import Run
from emsqrt.thin.build import build
from emsqrt.thin.sink import CsvTextSink
from emsqrt.thin.text import TextRows


def run_text(program: Mapping[str, Any], context: Context) -> dict[str, Any]:
    """Open a program, admit it, execute it, and say what was done.

    Args:
        program: as `emsqrt.thin.compile.compile_text` makes it.
        context: the cap, the budget, progress and cancelling.

    Returns:
        The fields of the run's `Manifest` as JSON, all but the plan's hash.
    """
    with ExitStack() as stack:
        run = Run(context, output_bytes=0)
        rows, sink = _open(program, run, stack)
        _execute(rows, sink, run)
    context.budget.close()
    written = {"target": program["name"], "format": "csv"}
    return run.report([{**written, "rows": sink.rows, "bytes": sink.bytes}])


def admit_text(program: Mapping[str, Any], context: Context) -> None:
    """Open everything that a program needs, and close it again.

    Raises:
        CapTooSmall: the cap cannot do it; says which could.
    """
    with ExitStack() as stack:
        _open(program, Run(context, output_bytes=0), stack)


def _open(program: Mapping[str, Any], run: Run, stack: ExitStack) -> tuple[TextRows, CsvTextSink]:
    """Open everything that is needed; whatever can be refused is refused here."""
    stack.enter_context(run)
    rows = build(program["steps"], run)
    sink = CsvTextSink(parse_place(program["target"]), rows.schema)
    run.map_working_set()
    return rows, sink


def _execute(rows: TextRows, sink: CsvTextSink, run: Run) -> None:
    """Pull every row into the file."""
    with run.judging_sizes(), sink, closing(rows.blocks()) as blocks:
        for block in blocks:
            run.check()
            sink.write(block)
            run.tell("write")
        run.tell("finish")
