"""The small child: `python -P -m emsqrt.text_engine.process FD`, one program, one cap, one answer.

The request is the first line of standard input, as JSON; answers are written to the descriptor FD,
one JSON object per line: `{"progress": …}` for each report, then `{"report": …}` or `{"error": …}`.
A request with `estimate` runs nothing; its report is a `MemoryRequirement`. More lines on standard
input are commands (`cancel`), and its end means that no caller is waiting any more. No third-party
module is imported, so that a cap of a few MiB is enough.
"""

from __future__ import annotations

# ruff: noqa: E402 - what follows is small only then
from emsqrt.lazy_import import import_lazily

import_lazily()

import json
import os
import signal
import sys
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from emsqrt.executor.context import EntryContext
from emsqrt.local_runner import Listeners, estimate_text_locally, run_text_locally
from emsqrt.termination import end_after_cleanup, exit_on_sigterm, interrupt_on_sigint
from sennit_core.errors import Cancelled, InternalError, SennitError

# Of threads that wait for the interpreter's lock; Python's default is 5 ms.
_SWITCH_SECONDS = 0.001
_STACK_BYTES = 256 << 10
"""Of other threads: reserved stacks count where the cap is close (`memory.allocation_limit`)."""


def main(answers: int) -> int:
    """Serve the one request; the status is 0 when an answer was sent."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent handles Ctrl-C
    sys.setswitchinterval(_SWITCH_SECONDS)
    threading.stack_size(_STACK_BYTES)
    request = json.loads(sys.stdin.buffer.readline())
    # A resumable run keeps its segments when it is terminated, so it needs no cleanup.
    if request["program"].get("resume") is None:
        exit_on_sigterm()

    def send(**answer: Any) -> None:
        with suppress(BrokenPipeError):  # the parent is gone; the run is being stopped
            os.write(answers, json.dumps(answer).encode() + b"\n")

    try:
        report = _run(request, send)
    except SennitError as error:
        send(error=error.to_json())
    except Exception as error:
        from emsqrt.system_errors import any_error

        reported = any_error(error, "the plan", request["capBytes"])
        send(error=reported.to_json())
        # Raised as well, so that the traceback of a programming mistake is not lost.
        if isinstance(reported, InternalError):
            raise
    else:
        send(report=report)
    return 0


def _run(request: Mapping[str, Any], send: Callable[..., None]) -> dict[str, Any]:
    def start(context: EntryContext) -> None:
        # Called before the run starts, so that a command that arrives at once finds a context to
        # stop.
        context.deadline_seconds = request.get("deadlineSeconds")
        is_resumable = request["program"].get("resume") is not None
        # Daemon: it blocks in `readline` until the parent closes the pipe, and must not delay the
        # end.
        threading.Thread(target=_obey, args=(context, is_resumable), daemon=True).start()

    spill_dir = None if request["spillDir"] is None else Path(request["spillDir"])
    if request.get("estimate"):
        return estimate_text_locally(
            request["program"],
            request["capBytes"],
            request["spilling"],
            spill_dir,
            request["roomBytes"],
            find_longest=request["findLongest"],
        )
    listeners = Listeners(
        lambda fields: send(progress=fields), lambda error: send(error=error.to_json()), start
    )
    return run_text_locally(
        request["program"],
        request["capBytes"],
        spill_dir,
        listeners,
        request["spilling"],
    )


def _obey(context: EntryContext, is_resumable: bool) -> None:
    for line in iter(sys.stdin.buffer.readline, b""):
        if line.strip() == b"cancel":
            context.stop(Cancelled(context.what))
    # At once: segments and journal are complete at any moment, and the next run of the name
    # resumes.
    if is_resumable:  # the parent is gone
        os._exit(0)
    context.stop(Cancelled(context.what))
    end_after_cleanup()


def run_standalone(handed: int) -> int:
    """Run what this process planned when it was still a command line.

    Args:
        handed: a descriptor with the request: `program`, `planHash` and `options`.
    """
    from emsqrt.cli.console import ProgressLine, RunOptions, report, say_error
    from emsqrt.cli.status import EXIT_INTERRUPTED, exit_status
    from emsqrt.manifest import Manifest

    threading.stack_size(_STACK_BYTES)
    with os.fdopen(handed, "rb") as file:
        request = json.loads(file.read())
    options = RunOptions(**request["options"])
    if options.resume is None:
        exit_on_sigterm()
    spill_dir = None if options.spill_dir is None else Path(options.spill_dir)
    try:
        interrupt_on_sigint()
        with ProgressLine(options.cap_bytes, shown=not options.quiet) as line:
            listeners = Listeners(line, say_error)
            done = run_text_locally(
                request["program"], options.cap_bytes, spill_dir, listeners, options.spilling
            )
        # The cap covers planning as well, which the process did before it was replaced by this one.
        peak = max(done["peakBytes"], options.planning_bytes)
        done |= {"peakBytes": peak, "planHash": request["planHash"]}
        report(Manifest.from_json(done), options)
    except SennitError as error:
        status = exit_status(error)
        if status:
            say_error(error)
        return status
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except (OSError, MemoryError, RecursionError) as error:
        from emsqrt.system_errors import any_error

        reported = any_error(error, "the plan", options.cap_bytes)
        say_error(reported)
        return exit_status(reported)
    return 0


if __name__ == "__main__":
    sys.exit(
        run_standalone(int(sys.argv[2]))
        if sys.argv[1] == "--standalone"
        else main(int(sys.argv[1]))
    )
