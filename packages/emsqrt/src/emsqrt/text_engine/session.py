"""Run one text program from end to end, inside the process whose memory is capped."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack, closing
from functools import cache, partial
from pathlib import Path
from typing import Any

from emsqrt.admission import admit, estimate, with_names_reserved
from emsqrt.bounds import with_measured
from emsqrt.checkpoint import open_checkpoint
from emsqrt.choices import JoinChoice
from emsqrt.execution_context import ExecutionContext
from emsqrt.executor.context import EntryContext
from emsqrt.fingerprints import InputFingerprints, remembered_bytes
from emsqrt.io.locations import expand_locations, parse_location
from emsqrt.memory import MemoryBudget
from emsqrt.memory.grant_plan import ALL_LIVE, GrantPlan
from emsqrt.retry import LookAhead, RowTooLong, longest_of, retry_larger
from emsqrt.text_engine.build import build
from emsqrt.text_engine.scan import open_sources
from emsqrt.text_engine.sink import CsvTextSink
from emsqrt.text_engine.text import TextRows
from sennit_core.errors import CapTooSmall


def run_text(program: Mapping[str, Any], context: EntryContext) -> dict[str, Any]:
    """Open a program, admit it, run it, and return its manifest.

    Args:
        program: the result of `emsqrt.text_engine.compile.try_compile`.
        context: the cap, the budget, progress and cancellation.

    Returns:
        The JSON of the run's `Manifest`.
    """
    # Attempts and refusals ask for the same search, which reads much of the input.
    look = cache(partial(_longest_row, program))
    return retry_larger(partial(_attempt, program, context, look), look, context.budget)


def _attempt(
    program: Mapping[str, Any], context: EntryContext, look: LookAhead, met: RowTooLong | None
) -> dict[str, Any]:
    with ExitStack() as stack:
        try:
            inputs = stack.enter_context(_inputs(program, context.budget))
        # Even the names of the inputs do not fit; admission finds the cap for the whole plan.
        except CapTooSmall:
            admit(
                _opening(program), ExecutionContext(context, output_bytes=0), stack, look
            )  # raises the final refusal
            raise
        seed = program.get("seed", 0)
        # The fingerprints come first: a checkpoint is only valid for the same inputs.
        checkpoint = open_checkpoint(
            program.get("resume"), program.get("planHash", ""), inputs.infos, "text", seed
        )
        run = ExecutionContext(context, seed=seed, output_bytes=0, checkpoint=checkpoint, met=met)
        rows, sink = admit(partial(_open, program), run, stack, look)
        # Until the file is complete nothing is visible, so a restart goes unnoticed. Printed rows
        # cannot be withdrawn.
        if inputs.can_be_read_again and not sink.place.is_standard:
            run.allow_restart(lambda: True)
        _execute(rows, sink, run, inputs)
    # Operators that a resumed run skipped have not released what they reserved.
    if checkpoint is not None and checkpoint.is_resumed:
        context.budget.release_all()
    context.budget.close()
    written = {"target": program["name"], "format": program["format"]}
    report = run.report([{**written, "rows": sink.rows, "bytes": sink.bytes}])
    report |= {"tier": "text", "inputs": inputs.infos}
    report |= {name: program[name] for name in ("plan", "planHash", "folder") if name in program}
    return with_measured(report, program.get("schedule"))


def _inputs(program: Mapping[str, Any], budget: MemoryBudget) -> InputFingerprints:
    scans = (step for step in program["steps"] if step["op"] == "scan")
    sources = (source for step in scans for source in open_sources(step["paths"], Path()))
    return InputFingerprints(sources, _files(program), budget)


def estimate_text(
    program: Mapping[str, Any], context: EntryContext, *, find_longest: bool = False
) -> dict[str, Any]:
    """Return a program's memory requirement and its shares under the context's cap, as JSON.

    Args:
        program: as for `run_text`.
        context: the cap.
        find_longest: whether to search the input for its longest row.
    """
    context.look()  # at the same point as a run does
    run = ExecutionContext(context, output_bytes=0)
    names_bytes = remembered_bytes(_files(program))
    look = partial(_longest_row, program) if find_longest else lambda _: None
    return estimate(_opening(program), run, context.cap_bytes, names_bytes, look).to_json()


def _longest_row(program: Mapping[str, Any], room_bytes: int) -> RowTooLong | None:
    from emsqrt.io.longest import longest_row

    scans = (step for step in program["steps"] if step["op"] == "scan")
    return longest_of(
        longest_row(
            step["format"], step["options"], expand_locations(step["paths"], Path()), room_bytes
        )
        for step in scans
    )


def _files(program: Mapping[str, Any]) -> int:
    scans = (step for step in program["steps"] if step["op"] == "scan")
    return sum(len(expand_locations(step["paths"], Path())) for step in scans)


def _opening(program: Mapping[str, Any]) -> Callable[[ExecutionContext, ExitStack], object]:
    return with_names_reserved(_files(program), partial(_open, program))


def _open(
    program: Mapping[str, Any], run: ExecutionContext, stack: ExitStack
) -> tuple[TextRows, CsvTextSink]:
    # Entered first, so closed last: operators may still use its memory while they close.
    stack.enter_context(run)
    for node, (operator, inputs) in enumerate(program.get("operators", ())[:-1]):
        run.at(node, operator, inputs)
    choices = program.get("choices", ())
    run.choose({node: JoinChoice.from_json(choice) for node, choice in choices})
    rows = build(program["steps"], run)
    is_csv = program["format"] == "csv"
    sink = CsvTextSink(parse_location(program["target"]), rows.schema, header=is_csv)
    # Last: the working set is what all other reservations leave of the budget.
    grant_plan = program.get("grantPlan")
    run.map_working_set(ALL_LIVE if grant_plan is None else GrantPlan.from_json(grant_plan))
    return rows, sink


def _execute(
    rows: TextRows, sink: CsvTextSink, run: ExecutionContext, inputs: InputFingerprints
) -> None:
    """Pull every row into the file, which appears only if no input has changed.

    Blocks that stay valid are written while the next ones are produced.
    """
    with run.translate_memory_errors(), sink, closing(rows.blocks()) as blocks:
        for block in blocks:
            run.check()
            # The block's memory is not used again before it is written: `OutputBuffer` waits for
            # that.
            if block.stays:
                run.background.run(partial(sink.write, block))
            else:
                sink.write(block)
            run.report_progress("write")
        # The last block may still be on its way to the file, or have failed to be written.
        run.background.wait()
        inputs.check()
        run.report_progress("finish")
