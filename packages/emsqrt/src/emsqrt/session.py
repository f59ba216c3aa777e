"""One plan run from end to end, inside the process whose memory is capped."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from contextlib import ExitStack, closing
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from emsqrt.executor.context import Context
from emsqrt.io.formats import FormatWriter
from emsqrt.io.scan import open_scan
from emsqrt.io.sinks import RowSink, open_sink
from emsqrt.manifest import Manifest
from emsqrt.operators import Operator, make_operator
from emsqrt.plan import FileTarget, Plan, Scan, Sink, check, plan_from_json, plan_hash
from emsqrt.plan.check import scan_schema
from emsqrt.plan.tree import fold
from emsqrt.planner.rules import RULES
from emsqrt.run import Run
from sennit_core.errors import UsageError


def run_plan(document: Mapping[str, Any], context: Context, folder: Path) -> Manifest:
    """Parse a plan, plan it, admit it, execute it, and say what was done.

    Args:
        document: the plan's JSON.
        context: the cap, the budget, and where a stream's payloads go.
        folder: where relative paths start.
    """
    submitted = plan_from_json(document)
    plan = _prepare(submitted, folder)
    with ExitStack() as stack:
        run = Run(context, folder)
        rows, output = admit(plan, run, stack)
        _execute(rows, output, run)
    context.budget.close()
    report = run.report([_sink_info(plan, output)])
    return Manifest.from_json({**report, "planHash": plan_hash(submitted)})


def admit_plan(plan: Plan, context: Context, folder: Path) -> None:
    """Open everything that a plan needs, and close it again.

    Raises:
        CapTooSmall: the cap cannot do it; says which could.
    """
    with ExitStack() as stack:
        admit(_prepare(plan, folder), Run(context, folder), stack)


def _prepare(plan: Plan, folder: Path) -> Plan:
    """Put a plan through the planner's rules and type it."""
    for rule in RULES:
        plan = rule(plan, folder)
    check(plan)
    return plan


def admit(plan: Plan, run: Run, stack: ExitStack) -> tuple[Operator, RowSink | FormatWriter]:
    """Open everything that a plan needs; whatever can be refused is refused here.

    Raises:
        CapTooSmall: the cap cannot do it, told before the first row is read.
    """
    if not isinstance(plan, Sink):
        raise UsageError("the plan has no sink, so its rows go nowhere", hint="end it with a sink")
    stack.enter_context(run)

    def make(node: Plan, inputs: tuple[Operator, ...]) -> Operator:
        if isinstance(node, Scan):
            return stack.enter_context(ScanRows(node, run))
        return make_operator(node, inputs, run)

    rows = fold(plan.input, make)
    output = open_sink(plan.target, rows.schema, run.budget, run.context.emit, run.folder)
    run.map_working_set()
    return rows, output


def _execute(rows: Operator, output: RowSink | FormatWriter, run: Run) -> None:
    """Pull every row into the sink."""
    with run.judging_sizes(), output, closing(rows.batches()) as batches:
        for batch in batches:
            output.write(batch)
            del batch
            run.tell("write")
        run.tell("finish")


def _sink_info(plan: Plan, output: RowSink | FormatWriter) -> dict[str, Any]:
    assert isinstance(plan, Sink), "it was admitted"
    target = plan.target
    name = target.path if isinstance(target, FileTarget) else target.format
    return {"target": name, "format": target.format, "rows": output.rows, "bytes": output.bytes}


class ScanRows:
    """The operator of a scan: a source's batches, counted. A context manager."""

    def __init__(self, node: Scan, run: Run) -> None:
        """Open the source and reserve what reading it takes."""
        self.schema = scan_schema(node)
        assert node.schema is not None, "a rule has found it"
        self._source = open_scan(
            node.source,
            node.schema,
            run.budget,
            node.columns,
            run.folder,
            predicate=node.predicate,
            spill=lambda: run.spill,
        )
        self._run = run
        self.rows = 0
        self.bytes_total = self._source.bytes_total
        run.reads(self)

    @property
    def bytes_done(self) -> int:
        """Bytes of the files that have been read."""
        return self._source.bytes_done

    def batches(self) -> Generator[Any]:
        """Yield the source's batches."""
        with closing(self._source.__iter__()) as batches:
            for batch in batches:
                self._run.check()
                self.rows += batch.num_rows
                yield batch
                del batch
                self._run.tell("read")

    def __enter__(self) -> Self:
        self._source.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._source.__exit__(kind, error, trace)
