"""One plan run from end to end, inside the process whose memory is capped."""

from __future__ import annotations

import time
from collections.abc import Generator, Mapping
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

from emsqrt.executor.context import Context
from emsqrt.io.scan import open_scan
from emsqrt.io.sinks import RowSink, open_sink
from emsqrt.manifest import Manifest, SinkInfo
from emsqrt.operators import Operator, make_operator
from emsqrt.plan import FileTarget, Plan, Scan, Sink, check, inputs_of, plan_from_json, plan_hash
from emsqrt.plan.check import scan_schema
from emsqrt.rules import RULES
from emsqrt.run import Run
from sennit_core.errors import UsageError


def run_plan(document: Mapping[str, Any], context: Context, folder: Path) -> Manifest:
    """Parse a plan, plan it, admit it, execute it, and say what was done.

    Args:
        document: the plan's JSON.
        context: the cap, the budget, and where a stream's payloads go.
        folder: where relative paths start.
    """
    started_at = time.time()
    submitted = plan_from_json(document)
    plan = submitted
    for rule in RULES:
        plan = rule(plan, folder)
    check(plan)
    with ExitStack() as stack:
        pipeline = admit(plan, Run(context, folder), stack)
        pipeline.run()
    context.budget.close()
    return pipeline.manifest(plan_hash(submitted), started_at)


def admit(plan: Plan, run: Run, stack: ExitStack) -> Pipeline:
    """Open everything that a plan needs; whatever can be refused is refused here.

    Raises:
        CapTooSmall: the cap cannot do it, told before the first row is read.
    """
    if not isinstance(plan, Sink):
        raise UsageError("the plan has no sink, so its rows go nowhere", hint="end it with a sink")
    scans: list[ScanRows] = []
    stack.callback(run.close)
    rows = _open(plan.input, run, stack, scans)
    output = open_sink(plan.target, rows.schema, run.budget, run.context.emit, run.folder)
    run.map_working_set()
    return Pipeline(run, scans, rows, output, plan)


def _open(plan: Plan, run: Run, stack: ExitStack, scans: list[ScanRows]) -> Operator:
    """Return the operator of a node and of all below it."""
    if isinstance(plan, Scan):
        scan = ScanRows(plan, run)
        stack.enter_context(scan.source)
        scans.append(scan)
        return scan
    inputs = [_open(below, run, stack, scans) for below in inputs_of(plan)]
    return make_operator(plan, inputs, run)


class ScanRows:
    """The operator of a scan: a source's batches, counted."""

    def __init__(self, node: Scan, run: Run) -> None:
        """Open the source and reserve what reading it takes."""
        self.schema = scan_schema(node)
        assert node.schema is not None, "a rule has found it"
        self.source = open_scan(node.source, node.schema, run.budget, node.columns, run.folder)
        self.rows = 0
        self._run = run

    def batches(self) -> Generator[Any]:
        """Yield the source's batches."""
        with closing(self.source.__iter__()) as batches:
            for batch in batches:
                self._run.check()
                self.rows += batch.num_rows
                yield batch
                del batch


class Pipeline:
    """Operators that end in a sink."""

    def __init__(
        self, run: Run, scans: list[ScanRows], rows: Operator, output: RowSink, sink: Sink
    ) -> None:
        self._run = run
        self._scans = scans
        self._rows = rows
        self._output = output
        self._sink = sink

    def run(self) -> None:
        """Pull every row into the sink."""
        with self._output as output, closing(self._rows.batches()) as batches:
            for batch in batches:
                output.write(batch)
                del batch
                self._tell("write")
            self._tell("finish")

    def manifest(self, plan_hash: str, started_at: float) -> Manifest:
        """Say what was done, after `run`."""
        target, context = self._sink.target, self._run.context
        budget = context.budget
        name = target.path if isinstance(target, FileTarget) else target.format
        output = SinkInfo(name, target.format, self._output.rows, self._output.bytes)
        return Manifest(
            plan_hash=plan_hash,
            rows_in=sum(scan.rows for scan in self._scans),
            bytes_in=sum(scan.source.bytes_done for scan in self._scans),
            rows_out=output.rows,
            bytes_out=output.bytes,
            sinks=(output,),
            cap_bytes=context.cap_bytes,
            budget_bytes=budget.cap_bytes,
            reserved_bytes=budget.peak_bytes,
            reserved_by_tag=budget.peak_by_tag(),
            peak_bytes=context.measure_peak(),
            started_at=started_at,
            finished_at=time.time(),
        )

    def _tell(self, phase: str) -> None:
        self._run.context.progress(
            bytes_done=sum(scan.source.bytes_done for scan in self._scans),
            bytes_total=sum(scan.source.bytes_total for scan in self._scans),
            rows=sum(scan.rows for scan in self._scans),
            phase=phase,
        )
