"""`emsqrt`: run, explain, validate, sort, join, agg, stats, doctor; without a node.

A verb that moves rows runs them in this very process, so the cap covers all of it. Exit status:

    0 done                    4 the run came too near its cap     7 spill storage failed or is full
    1 failed otherwise        5 the input is not as it should be  87 ended itself at the cap
    2 the request is wrong    6 an expectation was not met        130 interrupted
    3 the cap is too small; nothing was read

Layering: console (words on the terminal) <- verbs <- this (arguments, errors, status).
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence

from emsqrt.cli.arguments import parser
from emsqrt.cli.console import say_error
from emsqrt.lean import LEAN_ENVIRONMENT
from sennit_core.errors import (
    BadInput,
    CapTooSmall,
    Corrupt,
    MemoryCapExceeded,
    NotFound,
    SennitError,
    StorageFull,
    UsageError,
)

__all__ = ["EXIT_STATUS", "entry", "main"]

EXIT_FAILED = 1
EXIT_INTERRUPTED = 130
EXIT_STATUS: tuple[tuple[type[SennitError] | str, int], ...] = (
    ("reader-gone", 0),
    ("expectation-failed", 6),
    (CapTooSmall, 3),
    (MemoryCapExceeded, 4),
    (StorageFull, 7),
    ("spill-failed", 7),
    (BadInput, 5),
    (Corrupt, 5),
    (NotFound, 5),
    (UsageError, 2),
)
"""The first that fits an error, by class or by code, is the status of the process."""


def entry() -> None:
    """The console script: make the process lean, then run."""
    if any(os.environ.get(name) != value for name, value in LEAN_ENVIRONMENT.items()):
        os.environ.update(LEAN_ENVIRONMENT)
        program = [sys.executable, "-P", "-m", "emsqrt.cli", *sys.argv[1:]]
        os.execv(sys.executable, program)
    sys.exit(main())


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status."""
    parsed = parser().parse_args(arguments)
    try:
        status: int = parsed.command(parsed)
    except SennitError as error:
        status = exit_status(error)
        if status:
            say_error(error)
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    return status


def exit_status(error: SennitError) -> int:
    """Return the status that stands for an error."""
    for kind, status in EXIT_STATUS:
        if error.code == kind if isinstance(kind, str) else isinstance(error, kind):
            return status
    return EXIT_FAILED
