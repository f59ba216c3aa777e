"""Run one plan from end to end, inside the process whose memory is capped."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Generator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from emsqrt.admission import admit, estimate, with_names_reserved
from emsqrt.bounds import with_measured
from emsqrt.checkpoint import open_checkpoint
from emsqrt.execution_context import ExecutionContext
from emsqrt.executor.context import EntryContext
from emsqrt.executor.entry import FLOOR_BECAUSE, FLOOR_BYTES
from emsqrt.fingerprints import InputFingerprints, remembered_bytes
from emsqrt.io.file_facts import is_remembering, known_fact
from emsqrt.io.formats import FormatWriter
from emsqrt.io.inputs import opened_locations, source_locations
from emsqrt.io.locations import folder_of_work, parse_location
from emsqrt.io.parquet_coded import Dictionary
from emsqrt.io.parquet_facts import Span
from emsqrt.io.parquet_sink import ParquetSink
from emsqrt.io.row_room import RowRoom
from emsqrt.io.scan import open_scan
from emsqrt.io.sinks import RowSink, open_sink
from emsqrt.io.small_copy import SmallCopy
from emsqrt.io.sources import open_source
from emsqrt.manifest import Manifest
from emsqrt.memory import MemoryBudget
from emsqrt.memory.malloc_tuning import KEPT_BYTES, KEPT_TAG, keep_freed_blocks
from emsqrt.memory.max_of_budget import MaxOfBudget
from emsqrt.operators import Operator, make_operator
from emsqrt.operators.long_rows import varies
from emsqrt.plan import (
    Custom,
    Files,
    FileTarget,
    Plan,
    Scan,
    Sink,
    check,
    inputs_of,
    plan_from_json,
    plan_hash,
    plan_to_json,
    scans_of,
    walk,
)
from emsqrt.plan.check import scan_schema
from emsqrt.planner import PhysicalProgram, Work, estimate_work, lower_to_physical, optimize
from emsqrt.planner.sampling import SMALL_SAMPLE_BYTES
from emsqrt.planner.schemas import find_schema
from emsqrt.requirement import MemoryRequirement
from emsqrt.retry import LookAhead, RowTooLong, longest_of, retry_larger
from emsqrt.te import TeOptions, TeSchedule, plan_te
from emsqrt.te.grants import grant_plan_of
from sennit_core.errors import CapTooSmall, UsageError
from sennit_core.schema import Schema

_FEW_COLUMNS = 64
_COLUMN_BYTES = 16 << 10
_PREPARED_BYTES, _TEXT_COPIES = 16 << 10, 8
"""Memory of a prepared plan: its objects need several times the bytes of its JSON."""
_GAPS_SHARE = 3
"""Gaps may be at most this fraction of the memory that is kept for row groups."""


def run_plan(
    document: Mapping[str, Any],
    context: EntryContext,
    folder: Path,
    seed: int = 0,
    resume: Sequence[str] | None = None,
    copy_bytes_max: int = 0,
) -> Manifest:
    """Parse a plan, plan it, admit it, execute it, and return its manifest.

    Args:
        document: the plan's JSON.
        context: the cap, the budget, and the receiver of a stream's payloads.
        folder: the folder that relative paths refer to.
        seed: for the manifest; a sample has its own.
        resume: (spill folder, name) of a run that keeps a checkpoint when it is killed.
        copy_bytes_max: also emit the rows of a file as an Arrow IPC stream, if it has no more bytes.
    """
    submitted = plan_from_json(document)
    prepared = _prepared_once(document, submitted, folder, context.cap_bytes)
    options = [getattr(scan.source, "options", {}) for scan in scans_of(prepared.plan)]
    # A resumed run skips input that an earlier run read; bad records in it would be missing.
    if resume is not None and any("rejectFile" in each for each in options):
        raise UsageError(
            "a run that writes bad records to a reject file cannot be resumed: it may miss some"
        )

    # Attempts and refusals ask for the same search, which reads much of the input.
    look = cache(partial(_longest_row, prepared.plan, folder))

    def attempt(met: RowTooLong | None) -> Manifest:
        return _attempt(
            submitted, prepared, context, folder, seed, resume, look, met, copy_bytes_max
        )

    return retry_larger(attempt, look, context.budget)


def _attempt(  # noqa: PLR0913 - a run and its world
    submitted: Plan,
    prepared: Prepared,
    context: EntryContext,
    folder: Path,
    seed: int,
    resume: Sequence[str] | None,
    look: LookAhead,
    met: RowTooLong | None,
    copy_bytes_max: int,
) -> Manifest:
    with ExitStack() as stack:
        try:
            inputs = stack.enter_context(_inputs(prepared.plan, folder, context.budget))
        # Even the names of the inputs do not fit; admission finds the cap for the whole plan.
        except CapTooSmall:
            run = ExecutionContext(context, folder)
            admit(_opening(prepared, folder), run, stack, look)  # raises the final refusal
            raise
        # The fingerprints come first: a checkpoint is only valid for the same inputs.
        checkpoint = open_checkpoint(resume, plan_hash(submitted), inputs.infos, "arrow", seed)
        run = ExecutionContext(context, folder, seed, checkpoint=checkpoint, met=met)
        rows, output = admit(partial(_open, prepared), run, stack, look)
        # A restart must be able to read every input again, and must have shown nothing; an emitted
        # stream is visible from its first byte.
        if inputs.can_be_read_again and _is_whole(prepared.plan):
            run.allow_restart(lambda: not context.has_emitted)
        # After admission, because it reports the shares of the W that was mapped.
        schedule = _schedule(prepared, run)
        # A stream emits its rows already.
        most = copy_bytes_max if _writes_file(prepared.plan) else 0
        copy = SmallCopy(rows.schema.to_arrow(), most, context.budget)
        stack.callback(copy.drop)
        _execute(rows, output, run, inputs, copy)
        copy.emit_to(context.emit)
    # Operators that a resumed run skipped have not released what they reserved.
    if checkpoint is not None and checkpoint.is_resumed:
        context.budget.release_all()
    context.budget.close()
    report = run.report([_sink_info(prepared.plan, output)])
    report |= {
        "planHash": plan_hash(submitted),
        "plan": plan_to_json(submitted),
        "folder": str(folder_of_work(folder)),
        "tier": "arrow",
        "inputs": inputs.infos,
    }
    planned = None if schedule is None else schedule.to_json()
    return Manifest.from_json(with_measured(report, planned))


def _writes_file(plan: Plan) -> bool:
    return isinstance(plan, Sink) and isinstance(plan.target, FileTarget)


def _is_whole(plan: Plan) -> bool:
    """Return whether all output stays invisible until the end, apart from an emitted stream."""
    assert isinstance(plan, Sink), "it was prepared"
    rejects = any("rejectFile" in getattr(scan.source, "options", {}) for scan in scans_of(plan))
    target = plan.target
    return not rejects and not (
        isinstance(target, FileTarget) and parse_location(target.path).is_standard
    )


@dataclass(frozen=True, slots=True)
class Prepared:
    """A plan ready to be admitted.

    Args:
        plan: optimised and typed.
        program: its operators.
        work: the estimated work of each operator.
    """

    plan: Plan
    program: PhysicalProgram
    work: Work


def prepare(submitted: Plan, folder: Path, cap_bytes: int | None = None) -> Prepared:
    """Optimise a plan, type it, estimate it and choose its physical operators."""
    plan = optimize(find_schema(submitted, folder, cap_bytes), folder)
    check(plan)
    if not isinstance(plan, Sink):
        raise UsageError("the plan has no sink", hint="end it with a sink")
    program = lower_to_physical(plan)
    # The estimate samples the input, so only a plan that needs shares is estimated. Its physical
    # operators are then chosen again, now that the amounts of rows are known.
    if not any(node.holds for node in program.plan.nodes):
        return Prepared(plan, program, Work(()))  # no blocking operators, so no shares
    work = estimate_work(plan, None, folder, sample_bytes=SMALL_SAMPLE_BYTES)
    return Prepared(plan, lower_to_physical(plan, work), work)


def _prepared_once(
    document: Mapping[str, Any], submitted: Plan, folder: Path, cap_bytes: int
) -> Prepared:
    """As `prepare`, but remember the result for other targets while the input files are the same."""
    if not is_remembering() or not isinstance(submitted, Sink):
        return prepare(submitted, folder, cap_bytes)
    parts = {key: part for key, part in document.items() if key != "target"}
    text = json.dumps(parts, sort_keys=True)
    places = (
        place for scan in scans_of(submitted) for place in source_locations(scan.source, folder)
    )
    made = known_fact(
        [open_source(place) for place in places],
        ("plan", text, folder),
        lambda: prepare(submitted, folder, cap_bytes),
        lambda _: _PREPARED_BYTES + _TEXT_COPIES * len(text),
    )
    program = made.program.writing_to(submitted.target)
    return Prepared(program.logical, program, made.work)


def estimate_plan(
    plan: Plan, context: EntryContext, folder: Path, cap_bytes: int, *, find_longest: bool = False
) -> MemoryRequirement:
    """Return a plan's memory requirement and shares under a cap; read only headers and footers.

    Args:
        plan: ends in a sink.
        context: of the estimating process.
        folder: the folder that relative paths refer to.
        cap_bytes: the cap whose shares are reported.
        find_longest: whether to search the input for its longest row nevertheless.
    """
    prepared = prepare(plan, folder, cap_bytes)
    context.look()  # at the same point as a run does
    names_bytes = remembered_bytes(_files(prepared.plan, folder))
    look = partial(_longest_row, prepared.plan, folder) if find_longest else lambda _: None
    requirement = estimate(
        _opening(prepared, folder), ExecutionContext(context, folder), cap_bytes, names_bytes, look
    )
    # A smaller cap would be refused before the plan is opened (`load_arrow_tier`).
    if requirement.cap_bytes < FLOOR_BYTES:
        return requirement._replace(cap_bytes=FLOOR_BYTES, because=FLOOR_BECAUSE)
    return requirement


def _longest_row(plan: Plan, folder: Path, room_bytes: int) -> RowTooLong | None:
    from emsqrt.io.longest import longest_row

    found = []
    for scan in scans_of(plan):
        places, options, _ = opened_locations(scan.source, folder)
        assert isinstance(scan.source, Files), "paths are files'"
        names = scan_schema(scan).names
        found.append(longest_row(scan.source.format, options, places, room_bytes, names))
    return longest_of(found)


def _files(plan: Plan, folder: Path) -> int:
    return sum(len(source_locations(scan.source, folder)) for scan in scans_of(plan))


def _opening(prepared: Prepared, folder: Path) -> Callable[[ExecutionContext, ExitStack], object]:
    return with_names_reserved(_files(prepared.plan, folder), partial(_open, prepared))


def admit_prepared(
    prepared: Prepared, run: ExecutionContext, stack: ExitStack
) -> tuple[Operator, RowSink | FormatWriter]:
    """Open what a plan needs: its last operator and its sink, which the stack closes.

    Raises:
        CapTooSmall: the cap is too small; the error names a sufficient one.
    """
    look = partial(_longest_row, prepared.plan, run.folder)
    return admit(partial(_open, prepared), run, stack, look)


def _open(
    prepared: Prepared, run: ExecutionContext, stack: ExitStack
) -> tuple[Operator, RowSink | FormatWriter]:
    # Entered first, so closed last: operators may still use its memory while they close.
    stack.enter_context(run)
    plan = prepared.plan
    assert isinstance(plan, Sink), "it was prepared"
    nodes = prepared.program.plan.nodes
    # Before the operators are made: they read their choice when they open.
    run.choose({node.id: node.choice for node in nodes if node.choice is not None})
    readers = _readers_budget(plan, run.budget)
    if isinstance(readers, MaxOfBudget):
        stack.callback(readers.release)
    made: list[tuple[int, Operator]] = []
    # `walk` yields inputs before their reader, so `made` is a stack: the inputs of a node are its
    # topmost entries, as in a calculator with postfix notation.
    for place, node in enumerate(walk(plan.input)):
        first = len(made) - len(inputs_of(node))
        inputs, made[first:] = made[first:], []
        view = run.at(place, nodes[place].operator, [at for at, _ in inputs])
        if isinstance(node, Scan):
            rows: Operator = stack.enter_context(ScanRows(node, view, readers))
        else:
            rows = make_operator(node, [operator for _, operator in inputs], view)
        made.append((place, MeteredRows(rows, view)))
    ((_, rows),) = made
    _make_room_for_columns(plan, run)
    output = open_sink(plan.target, rows.schema, run.budget, run.context.emit, run.folder)
    run.expect_more(getattr(output, "more_bytes", 0))
    if not isinstance(output, FormatWriter):
        output.row_room.spare_bytes = run.context.room_bytes
        # Nothing between scan and sink shortens a row, so the sink will meet one of this length.
        if isinstance(plan.input, Scan):
            output.row_room.expect(_sure_row_bytes(rows))
        if run.met is not None:
            _make_room_for_row(prepared.program, output.row_room, rows.schema, run)
    if isinstance(output, ParquetSink):
        output.take_as_stored(rows)
    if run.context.owns_process:
        # Optional, so it is decided after everything that the plan cannot do without.
        kept_bytes = keep_freed_blocks(run.budget)
        run.admit(kept_bytes, KEPT_TAG, "it is free")
        run.expect_more(KEPT_BYTES - kept_bytes)
    # Last: the working set is what all other reservations leave of the budget.
    run.map_working_set(grant_plan_of(prepared.program.plan, prepared.work))
    return rows, output


def _make_room_for_row(
    program: PhysicalProgram, room: RowRoom, schema: Schema, run: ExecutionContext
) -> None:
    """Reserve memory for writing the longest known row."""
    assert run.met is not None, "the caller checked it"
    *nodes, _ = program.plan.nodes
    row_bytes = run.view(nodes[-1].id).row_bytes_out if varies(schema) else 0
    last = nodes[-1]
    # The last operator that holds rows decides whether readers are still active while rows are
    # written: one that gathers has read all of its input before its first output.
    while len(last.inputs) == 1 and not last.holds:
        last = nodes[last.inputs[0]]
    if last.holding == "gathers":  # readers have released their memory by then
        run.expect_written(max(room.needed_bytes(row_bytes), run.met.sink_bytes))
    else:
        room.expect(row_bytes, run.met.sink_bytes)


def _sure_row_bytes(scanned: Operator) -> int:
    """Return a lower bound of a scan's longest row."""
    found: int = getattr(getattr(scanned, "passes_on", scanned), "sure_row_bytes", 0)
    return found


def _make_room_for_columns(plan: Plan, run: ExecutionContext) -> None:
    """Reserve what many columns need apart from their values: an array and buffers each."""
    widest = max((len(scan_schema(scan)) for scan in scans_of(plan)), default=0)
    because = f"{widest} columns are held, each as a separate array"
    run.admit(max(0, widest - _FEW_COLUMNS) * _COLUMN_BYTES, "columns", because)


def _readers_budget(plan: Plan, budget: MemoryBudget) -> MemoryBudget:
    """Return the budget of the readers: one for all, as one input is read after the other.

    Operators of other packages may read their inputs at the same time.
    """
    if any(isinstance(node, Custom) and len(inputs_of(node)) > 1 for node in walk(plan)):
        return budget
    return MaxOfBudget(budget, "scan")


def _schedule(prepared: Prepared, run: ExecutionContext) -> TeSchedule | None:
    """Return the schedule behind the run's grants; W is the measured value."""
    cap_bytes = run.context.cap_bytes
    options = TeOptions(reserved_bytes=cap_bytes - run.working_bytes, minimums=run.minimums)
    try:
        return plan_te(prepared.program.plan, prepared.work, cap_bytes, options)
    except CapTooSmall:  # operators of other packages count as holders even if they hold nothing
        return None


def _inputs(plan: Plan, folder: Path, budget: MemoryBudget) -> InputFingerprints:
    places = [place for scan in scans_of(plan) for place in source_locations(scan.source, folder)]
    return InputFingerprints(map(open_source, places), len(places), budget)


def _execute(
    rows: Operator,
    output: RowSink | FormatWriter,
    run: ExecutionContext,
    inputs: InputFingerprints,
    copy: SmallCopy,
) -> None:
    """Pull every row into the sink, whose file appears only if no input has changed."""
    with run.translate_memory_errors(), output, closing(rows.batches()) as batches:
        for batch in batches:
            output.write(batch)
            copy.write(batch)
            # Otherwise this batch stays in memory while the next one is produced.
            del batch
            run.report_progress("write")
        # Inside `with output`: an error here makes the sink discard its file instead of renaming
        # it.
        inputs.check()
        run.report_progress("finish")


def _sink_info(plan: Plan, output: RowSink | FormatWriter) -> dict[str, Any]:
    assert isinstance(plan, Sink), "it was admitted"
    target = plan.target
    name = target.path if isinstance(target, FileTarget) else target.format
    return {"target": name, "format": target.format, "rows": output.rows, "bytes": output.bytes}


class MeteredRows:
    """An operator that counts its batches."""

    def __init__(self, rows: Operator, run: ExecutionContext) -> None:
        self.schema = rows.schema
        self.passes_on = self._rows = rows
        self._meter = run.meter
        self._row_bits, self._varied = _widths(rows.schema)

    def batches(self) -> Generator[Any]:
        """Yield the operator's batches."""
        return self._meter.watch(self._rows.batches(), self._measure)

    @property
    def file_names(self) -> Sequence[str]:
        """The files of a scan, in order; none of another operator."""
        return self._rows.file_names if isinstance(self._rows, ScanRows) else ()

    @property
    def file_bytes(self) -> int:
        """Memory to read one of them."""
        return self._rows.file_bytes if isinstance(self._rows, ScanRows) else 0

    def files(self) -> list[Generator[Any]]:
        """Return the batches of each file of a scan, to be read at the same time."""
        assert isinstance(self._rows, ScanRows), "it has files"
        return [self._meter.watch(each, self._measure) for each in self._rows.files()]

    def _measure(self, batch: Any) -> tuple[int, int]:
        """Return rows and bytes; a batch's own `nbytes` is as slow as writing a column of it."""
        varied = sum(batch.column(at).nbytes for at in self._varied)
        return batch.num_rows, batch.num_rows * self._row_bits // 8 + varied


def _widths(schema: Schema) -> tuple[int, list[int]]:
    """Return the bits of a row's fixed-width values, and the indexes of the other columns."""
    bits, varied = 0, []
    for at, kind in enumerate(schema.to_arrow().types):
        try:
            bits += kind.bit_width
        except ValueError:  # a type of variable width
            varied.append(at)
    return bits, varied


class ScanRows:
    """The operator of a scan: a source's batches, counted. A context manager."""

    def __init__(self, node: Scan, run: ExecutionContext, budget: MemoryBudget) -> None:
        """Open the source and reserve the memory for reading from the budget."""
        self.schema = scan_schema(node)
        assert node.schema is not None, "a planner rule resolved it"
        self._source = open_scan(
            node.source,
            node.schema,
            budget,
            node.columns,
            run.folder,
            predicate=node.predicate,
            spill=lambda: run.spill,
        )
        known_bytes = self._source.known_bytes
        if run.context.is_trial:
            # The walk over page headers fragments the heap differently in each run, so a cap that
            # is named includes room for the gaps.
            known_bytes += known_bytes // _GAPS_SHARE
        run.admit(known_bytes, "row groups", self._source.known_because)
        self._run = run
        self.rows = 0
        self.bytes_total = self._source.bytes_total
        run.add_source(self)
        run.expect_rows(self._source.record_copies, "read")

    @property
    def bytes_done(self) -> int:
        """Bytes of the files that have been read, including those skipped."""
        return self._source.bytes_done

    @property
    def bytes_skipped(self) -> int:
        """Bytes of them that an earlier run has read, and this run skips."""
        return self._source.bytes_skipped

    @property
    def position(self) -> tuple[int, int]:
        """(file, rows of it before) of the last yielded batch."""
        return self._source.position

    @property
    def sure_row_bytes(self) -> int:
        """A lower bound of the longest row, within a factor of two, as `SourceScan`."""
        return self._source.sure_row_bytes

    def codable(self) -> dict[str, Dictionary]:
        """Return the text columns that can be yielded as dictionary codes, as `SourceScan`."""
        return self._source.codable()

    def keep_coded(self, names: Collection[str]) -> None:
        """Yield these columns as dictionary codes."""
        self._source.keep_coded(names)

    def spans(self) -> dict[str, Span]:
        """Return the range of integer columns, as `SourceScan`."""
        return self._source.spans()

    def start_at(self, file: int, rows: int) -> None:
        """Skip the first rows of a file."""
        self._source.start_at(file, rows)

    @property
    def file_names(self) -> Sequence[str]:
        """The files, if they can be read at the same time."""
        return self._source.file_names

    @property
    def file_bytes(self) -> int:
        """Memory to read the largest of them."""
        return self._source.file_bytes

    def files(self) -> list[Generator[Any]]:
        """Return the batches of each file."""
        return [self._counted(each) for each in self._source.files()]

    def batches(self) -> Generator[Any]:
        """Yield the source's batches."""
        return self._counted(self._source.__iter__())

    def _counted(self, stream: Generator[Any]) -> Generator[Any]:
        with closing(stream) as batches:
            for batch in batches:
                self._run.check()
                self.rows += batch.num_rows
                yield batch
                # As in `_execute`.
                del batch
                self._run.report_progress("read")

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
