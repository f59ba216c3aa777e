"""The `platform` command: starts nodes, and does the main job from a terminal.

Exit status: 0 done · 1 failed · 2 the command or its input is wrong · 3 no node answers ·
4 there is no such thing · 5 refused · 6 over a limit (memory cap, size, disk) · 130 interrupted.

Only Typer is imported here; each verb imports what it needs when it runs, so help comes at once.
"""

from __future__ import annotations

import os
import sys

# Rich help would triple the time to the first line; tables and bars load Rich when they are drawn.
os.environ.setdefault("TYPER_USE_RICH", "0")

import typer

from sennit.cli import data_verbs, node_verbs, verify_verb

__all__ = ["app", "main"]

app = typer.Typer(
    name="platform",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="Upload, query and pipe data through one node, and watch every job live.",
    context_settings={"help_option_names": ["-h", "--help"]},
)
node_verbs.register(app)
data_verbs.register(app)
verify_verb.register(app)


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit with its status."""
    sys.exit(run(sys.argv[1:] if arguments is None else arguments))


def run(arguments: list[str]) -> int:
    """Run one command; answer its exit status instead of raising."""
    try:
        # Without its standalone mode, Click returns the status of `typer.Exit` instead of raising.
        status = app(arguments, prog_name="platform", standalone_mode=False)
    except typer.Exit as done:
        return done.exit_code
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # The reader of our output has seen enough; that is its right.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as problem:  # noqa: BLE001 - the one place where errors become text and status
        from sennit.cli.output import report

        return report(problem, as_json="--json" in arguments)
    return status if isinstance(status, int) else 0


if __name__ == "__main__":
    main()
