"""One thin plan run from end to end, inside the process whose memory is capped."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

from emsqrt.executor.context import Context
from emsqrt.io.places import parse_place
from emsqrt.manifest import Manifest, SinkInfo
from emsqrt.plan import FileTarget, Plan, Sink, check, plan_from_json, plan_hash
from emsqrt.run import Run
from emsqrt.thin.lower import find_text_schemas, lower
from emsqrt.thin.sink import CsvTextSink
from emsqrt.thin.text import TextRows


def run_thin(document: Mapping[str, Any], context: Context, folder: Path) -> Manifest:
    """Parse a plan, open it, admit it, execute it, and say what was done.

    Args:
        document: the plan's JSON.
        context: the cap, the budget, progress and cancelling.
        folder: where relative paths start.
    """
    submitted = plan_from_json(document)
    with ExitStack() as stack:
        run = Run(context, folder)
        rows, sink = _open(submitted, run, stack)
        _execute(rows, sink, run)
    context.budget.close()
    info = SinkInfo(str(sink.place), "csv", sink.rows, sink.bytes)
    return run.manifest(plan_hash(submitted), (info,))


def admit_thin(plan: Plan, context: Context, folder: Path) -> None:
    """Open everything that a plan needs, and close it again.

    Raises:
        CapTooSmall: the cap cannot do it; says which could.
    """
    with ExitStack() as stack:
        _open(plan, Run(context, folder), stack)


def _open(submitted: Plan, run: Run, stack: ExitStack) -> tuple[TextRows, CsvTextSink]:
    """Open everything that a plan needs; whatever can be refused is refused here."""
    stack.enter_context(run)
    plan = find_text_schemas(submitted, run.folder)
    check(plan)
    assert isinstance(plan, Sink), "only plans with a sink come here"
    assert isinstance(plan.target, FileTarget), "a check has seen that"
    rows = lower(plan.input, run)
    sink = CsvTextSink(parse_place(plan.target.path, run.folder), rows.schema)
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
