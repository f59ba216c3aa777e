"""One plan run from end to end, inside the process whose memory is capped."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

from emsqrt.executor.context import Context
from emsqrt.io.scan import SourceScan, open_scan
from emsqrt.io.sinks import RowSink, open_sink
from emsqrt.manifest import Manifest, SinkInfo
from emsqrt.operators import Operator, build
from emsqrt.plan import FileTarget, Plan, Sink, chain, check, plan_from_json, plan_hash
from emsqrt.plan.check import scan_schema
from emsqrt.rules import RULES, scan_of
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
        pipeline = admit(plan, context, folder, stack)
        pipeline.run()
    context.budget.close()
    return pipeline.manifest(plan_hash(submitted), started_at)


def admit(plan: Plan, context: Context, folder: Path, stack: ExitStack) -> Pipeline:
    """Open everything that a plan needs; whatever can be refused is refused here.

    Raises:
        CapTooSmall: the cap cannot do it, told before the first row is read.
    """
    *below, sink = chain(plan)
    if not isinstance(sink, Sink):
        raise UsageError("the plan has no sink, so its rows go nowhere", hint="end it with a sink")
    scan = scan_of(plan)
    schema = scan_schema(scan)
    assert scan.schema is not None, "a rule has found it"
    source = open_scan(scan.source, scan.schema, context.budget, scan.columns, folder)
    stack.enter_context(source)
    operators: list[Operator] = []
    for node in below[1:]:
        operator = build(node, schema, context.budget)
        stack.callback(operator.close)
        operators.append(operator)
        schema = operator.schema
    output = open_sink(sink.target, schema, context.budget, context.emit, folder)
    return Pipeline(context, source, operators, output, sink)


class Pipeline:
    """Batches on their way from a source through operators into a sink."""

    def __init__(
        self,
        context: Context,
        source: SourceScan,
        operators: list[Operator],
        output: RowSink,
        sink: Sink,
    ) -> None:
        self._context = context
        self._source = source
        self._operators = operators
        self._output = output
        self._sink = sink
        self._rows_in = 0

    def run(self) -> None:
        """Read until the source or an operator's wish for more ends, then let each finish."""
        with self._output as output:
            with closing(self._source.__iter__()) as batches:
                while not self._done() and (batch := next(batches, None)) is not None:
                    self._context.check()
                    self._rows_in += batch.num_rows
                    for made in self._push(0, batch):
                        output.write(made)
                    del batch
                    self._tell("read")
            self._tell("finish")
            for index, operator in enumerate(self._operators):
                for batch in operator.finish():
                    self._context.check()
                    for made in self._push(index + 1, batch):
                        output.write(made)

    def manifest(self, plan_hash: str, started_at: float) -> Manifest:
        """Say what was done, after `run`."""
        target, budget = self._sink.target, self._context.budget
        name = target.path if isinstance(target, FileTarget) else target.format
        output = SinkInfo(name, target.format, self._output.rows, self._output.bytes)
        return Manifest(
            plan_hash=plan_hash,
            rows_in=self._rows_in,
            bytes_in=self._source.bytes_done,
            rows_out=output.rows,
            bytes_out=output.bytes,
            sinks=(output,),
            cap_bytes=self._context.cap_bytes,
            budget_bytes=budget.cap_bytes,
            reserved_bytes=budget.peak_bytes,
            reserved_by_tag=budget.peak_by_tag(),
            peak_bytes=self._context.measure_peak(),
            started_at=started_at,
            finished_at=time.time(),
        )

    def _done(self) -> bool:
        return any(operator.done for operator in self._operators)

    def _push(self, index: int, batch: Any) -> Iterator[Any]:
        """Send a batch through the operators from `index` on."""
        if index == len(self._operators):
            yield batch
            return
        for made in self._operators[index].push(batch):
            yield from self._push(index + 1, made)

    def _tell(self, phase: str) -> None:
        self._context.progress(
            bytes_done=self._source.bytes_done,
            bytes_total=self._source.bytes_total,
            rows=self._rows_in,
            phase=phase,
        )
