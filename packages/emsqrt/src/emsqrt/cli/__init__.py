"""`emsqrt`: the command line of EM-√; it runs every plan on this machine.

A command that moves rows runs them in this very process, so the cap covers all of it. Exit status:

  0 done                    4 the run came too near its cap     7 spill storage failed or is full
  1 failed otherwise        5 the input is invalid              87 ended itself at the cap
  2 the request is wrong    6 an expectation was not met        130 interrupted
  3 the cap is too small; nothing was read                      143 ended by SIGTERM
  8 a replay produced different output

Layering: console (terminal output) <- verbs <- this module (arguments, errors, exit status).
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence

__all__ = ["entry", "main"]


def entry() -> None:
    """The console script: re-execute with allocator settings, then run the command."""
    from emsqrt.environment import LEAN_ENVIRONMENT
    from emsqrt.termination import exit_on_early_sigint, exit_on_sigterm, hold_sigint

    exit_on_early_sigint()
    # malloc reads its settings when a process starts, so the command executes itself once more with
    # them. Nothing large is imported before that.
    lean = all(os.environ.get(name) == value for name, value in LEAN_ENVIRONMENT.items())
    if _open_standard_streams() or not lean:
        os.environ.update(LEAN_ENVIRONMENT)
        program = [sys.executable, "-P", "-m", "emsqrt.cli", *sys.argv[1:]]
        hold_sigint()
        os.execv(sys.executable, program)
    from emsqrt.lazy_import import import_lazily, load_untranslated

    # Handlers do not survive `execv`, so they are installed by the program that remains.
    exit_on_sigterm()
    import_lazily()
    load_untranslated("argparse")
    sys.exit(main(may_become=True))


def _open_standard_streams() -> bool:
    """Open closed standard streams on /dev/null; return whether any was closed.

    A file that is opened later would get the closed stream's number, and output would go into it.
    """
    closed = False
    for descriptor, mode in ((0, os.O_WRONLY), (1, os.O_RDONLY), (2, os.O_RDWR)):
        try:
            os.fstat(descriptor)
        except OSError:
            os.set_inheritable(os.open(os.devnull, mode), True)  # the lowest free descriptor
            closed = True
    return closed


def main(arguments: Sequence[str] | None = None, *, may_become: bool = False) -> int:
    """Run the command line and return its exit status.

    Args:
        arguments: words after `emsqrt`; those of the process when None.
        may_become: whether this process may be replaced by the small one that does the work.
    """
    from emsqrt.cli.arguments import parser
    from emsqrt.cli.console import say_error
    from emsqrt.cli.status import EXIT_INTERRUPTED, exit_status
    from emsqrt.termination import interrupt_on_sigint
    from sennit_core.errors import SennitError

    parsed = parser().parse_args(arguments)
    parsed.may_become = may_become
    try:
        if may_become:
            interrupt_on_sigint()
        status: int = parsed.command(parsed)
    except SennitError as error:
        status = exit_status(error)
        if status:
            say_error(error)
    # No message: who pressed Ctrl-C knows why the command ended.
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    # The reader of standard output is gone. Python flushes it once more at exit, which would fail
    # and print a traceback, so the descriptor now refers to /dev/null. The status is that of a
    # process which SIGPIPE ended, as shells report it.
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except (OSError, MemoryError, RecursionError) as error:
        from emsqrt.system_errors import any_error

        reported = any_error(error, "the plan")
        status = exit_status(reported)
        say_error(reported)
    return status
