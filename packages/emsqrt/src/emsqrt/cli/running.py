"""Run a command's plan in this process, in the tier that can run it.

A text program is handed to the small process, which this one becomes: planner and parser are then
no longer in memory, and the cap covers the rest. Modules that only the run needs are imported
lazily here, because this process is under the same cap until then.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emsqrt.cli.console import ProgressLine, RunOptions, report, say_error
from emsqrt.environment import LEAN_ENVIRONMENT
from emsqrt.io.locations import STANDARD_NAMES
from emsqrt.memory.usage import PEAK_UNSURE_BYTES, UsageReader
from emsqrt.plan import Plan, plan_hash, plan_to_json
from emsqrt.process_setup import require_arrow
from emsqrt.requirement import ESTIMATE_PROCESS_BYTES
from emsqrt.termination import EXIT_CAP, end_on_sigterm, hold_sigint
from emsqrt.text_engine.compile import try_compile
from emsqrt.text_engine.facts import TextProgram
from sennit_core.errors import CapTooSmall, MemoryCapExceeded, WorkerLost, error_from_json
from sennit_core.units import format_bytes

if TYPE_CHECKING:
    from emsqrt.local_runner import Listeners
    from emsqrt.manifest import Manifest

# For what the process still allocates between this measurement and its replacement.
_PLANNING_SLACK_BYTES = 768 << 10


def carry_out(
    plan: Plan, options: RunOptions, *, may_become: bool, document: Mapping[str, Any] | None = None
) -> None:
    """Run a plan under a cap on this process, draw progress and print a summary.

    Args:
        plan: ends in a file sink.
        options: the cap, and the output options.
        may_become: whether this process may be replaced; then this does not return.
        document: `path` and `values` of the document that the plan was read from, if any.
    """
    # Cleaning up would remove the sorted runs that the next run resumes from.
    if options.resume is not None and may_become:
        end_on_sigterm()
    program = try_compile(plan, Path(), options.cap_bytes, options.spilling)
    # Bytes that were read ahead from standard input exist only in this process; a run that needs
    # them stays here.
    if program is not None and may_become and not _reads_standard_input(program):
        planned = _scheduled(program, options)
        # `options.planning_bytes` is what an earlier process of this command used, such as the SQL
        # parser's: the cap covers each of them.
        planning = max(planning_bytes(), options.planning_bytes)
        if options.cap_bytes < planning:
            raise _refusal(plan, program, options, document)
        _become(planned, plan_hash(plan), replace(options, planning_bytes=planning))
    # Before pyarrow is imported, which alone might exceed the cap.
    if program is None:
        _refuse_below_libraries(plan, options, document)
    from emsqrt.local_runner import Listeners

    try:
        with ProgressLine(options.cap_bytes, shown=not options.quiet) as line:
            manifest = _run(plan, program, options, Listeners(line, say_error))
    except MemoryCapExceeded as error:  # if planning alone exceeded the cap, name a cap
        refusal = _refusal(plan, program, options, document)
        if refusal.needed_bytes <= options.cap_bytes + 1:
            raise
        raise refusal from error
    # The processes of a command follow each other, so its peak is the largest, not the sum.
    peak_bytes = max(manifest.peak_bytes, options.planning_bytes)
    report(replace(manifest, peak_bytes=peak_bytes), options)


def run_here(plan: Plan, cap_bytes: int) -> Manifest:
    """Run a plan under a cap on this process, silently, and return its manifest."""
    from emsqrt.local_runner import Listeners

    program = try_compile(plan, Path(), cap_bytes)
    return _run(plan, program, RunOptions(cap_bytes, quiet=True), Listeners())


def _run(
    plan: Plan, program: TextProgram | None, options: RunOptions, listeners: Listeners
) -> Manifest:
    from emsqrt.local_runner import run_plan_locally, run_text_locally
    from emsqrt.manifest import Manifest

    spill_dir = None if options.spill_dir is None else Path(options.spill_dir)
    if program is None:
        return run_plan_locally(
            plan_to_json(plan),
            options.cap_bytes,
            spill_dir,
            listeners,
            options.spilling,
            options.seed,
            options.checkpoint_place,
        )
    planned = _scheduled(program, options)
    done = run_text_locally(planned, options.cap_bytes, spill_dir, listeners, options.spilling)
    return Manifest.from_json({**done, "planHash": plan_hash(plan)})


def planning_bytes() -> int:
    """Return the smallest cap under which the command line itself gets to this point."""
    with UsageReader() as reader:
        now = reader.read()
        # The kernel's peak may be too low by this much (`emsqrt.memory.usage`).
        most = now.charged_most_bytes + PEAK_UNSURE_BYTES
        return max(now.charged_bytes + _PLANNING_SLACK_BYTES, most)


def _refuse_below_libraries(
    plan: Plan, options: RunOptions, document: Mapping[str, Any] | None
) -> None:
    """Refuse a cap too small for pyarrow, before importing it."""
    from emsqrt.executor.entry import FLOOR_BYTES

    # A missing pyarrow is reported first: no cap would help against that.
    if options.cap_bytes < FLOOR_BYTES:
        require_arrow("this plan")
        raise _refusal(plan, None, options, document)


def _refusal(
    plan: Plan, program: TextProgram | None, options: RunOptions, document: Mapping[str, Any] | None
) -> CapTooSmall:
    """Return the refusal of a cap too small for the command itself, with a sufficient cap.

    Other processes, which run nothing, look for it; they use at most `ESTIMATE_PROCESS_BYTES`.
    """
    least = _smallest_cap(plan, program, options, document, find_longest=True)
    return CapTooSmall(
        cap_bytes=options.cap_bytes,
        # Two processes never hold exactly the same; a cap that was refused is not named again.
        needed_bytes=max(least["capBytes"], options.cap_bytes + 1),
        because=least["because"],
    )


def _scheduled(program: TextProgram, options: RunOptions) -> dict[str, Any]:
    return {
        **program.scheduled(options.cap_bytes),
        "seed": options.seed,
        "resume": options.checkpoint_place,
    }


def _reads_standard_input(program: dict[str, Any]) -> bool:
    """Return whether bytes of standard input were already read, to detect its format."""
    paths = {path for step in program["steps"] for path in step.get("paths", ())}
    return not paths.isdisjoint(STANDARD_NAMES)


def _become(program: dict[str, Any], hash_of_plan: str, options: RunOptions) -> None:
    """Replace this process by the small one; the request is passed in an unnamed file."""
    request = {"program": program, "planHash": hash_of_plan, "options": asdict(options)}
    # A program may be longer than an argument of `execve` may be, and arguments are visible in
    # `ps`. A pipe would block once it is full, as its reader is this same process.
    handed = os.memfd_create("emsqrt-request", 0)  # inherited
    os.write(handed, json.dumps(request).encode())
    os.lseek(handed, 0, os.SEEK_SET)
    # `execv` drops what Python still buffers.
    sys.stdout.flush()
    sys.stderr.flush()
    words = [sys.executable, "-P", "-m", "emsqrt.text_engine.process", "--standalone", str(handed)]
    # Until the next program has its handler, a SIGINT would print Python's traceback.
    hold_sigint()
    os.execv(sys.executable, words)


def smallest_cap_of(
    plan: Plan, options: RunOptions, document: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Return the smallest cap under which a plan is admitted, as `capBytes` and `because`.

    Args:
        plan: ends in a sink.
        options: where and how it would spill.
        document: as for `carry_out`.

    Raises:
        SennitError: no cap would be enough.
    """
    program = try_compile(plan, Path(), spilling=options.spilling)
    return _smallest_cap(plan, program, options, document, find_longest=False)


def _smallest_cap(
    plan: Plan,
    program: TextProgram | None,
    options: RunOptions,
    document: Mapping[str, Any] | None,
    *,
    find_longest: bool,
) -> dict[str, Any]:
    settings = {
        "spilling": options.spilling,
        "spillDir": options.spill_dir,
        "findLongest": find_longest,
    }
    if program is None:
        return _try({"plan": plan_to_json(plan), "document": document, **settings})
    found = _try({"program": program, **settings})
    # The command needs both, one after the other: first a process that plans, then the small one.
    planning = _try({"planning": plan_to_json(plan), "document": document})["capBytes"]
    if found["capBytes"] >= planning:
        return found
    least = format_bytes(found["capBytes"])
    because = f"planning on the command line needs this much; from Python {least} are enough"
    return {"capBytes": planning, "because": because}


def _try(request: Mapping[str, Any]) -> dict[str, Any]:
    """Return the smallest cap under which a request is admitted, and why, from a new process.

    It is started with as little memory as possible, because this process may be under a cap.

    Raises:
        SennitError: it would not be admitted under any cap.
        MemoryCapExceeded: the search needs more than `ESTIMATE_PROCESS_BYTES`.
    """
    # Files in memory instead of pipes: neither process has to wait for the other to read.
    asked, reply = (os.memfd_create(f"emsqrt-{name}") for name in ("trial", "answer"))
    with os.fdopen(asked, "wb") as request_file, os.fdopen(reply, "rb") as answer_file:
        request_file.write(json.dumps(request).encode())
        request_file.flush()
        os.lseek(asked, 0, os.SEEK_SET)
        # `subprocess` and what it imports would count towards this process's cap.
        pid = os.posix_spawn(
            sys.executable,
            [sys.executable, "-P", "-m", "emsqrt.cli.trial"],
            {**os.environ, **LEAN_ENVIRONMENT},
            file_actions=[(os.POSIX_SPAWN_DUP2, asked, 0), (os.POSIX_SPAWN_DUP2, reply, 1)],
        )
        _, status = os.waitpid(pid, 0)
        # Both processes share one file offset, which is now behind the answer.
        answer_file.seek(0)
        answer: dict[str, Any] = json.loads(answer_file.read() or b"{}")
    if "error" in answer:
        raise error_from_json(answer["error"])
    # The watchdog of the trial ended it (`ending_at`), without an answer.
    if os.waitstatus_to_exitcode(status) == EXIT_CAP:
        raise MemoryCapExceeded(cap_bytes=ESTIMATE_PROCESS_BYTES, what="looking for a cap")
    if status:
        raise WorkerLost(what="a trial", worker=str(pid), reason=f"it ended with status {status}")
    return answer
