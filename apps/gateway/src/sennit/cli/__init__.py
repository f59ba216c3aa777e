"""The `platform` command: starts nodes, uploads and queries data, and runs pipelines.

Exit status: 0 success · 1 failure · 2 invalid command or input · 3 node unreachable · 4 not found ·
5 refused · 6 over a limit (memory cap, size, disk) · 130 interrupted.

Modules are imported only by the verbs that need them: `sql` runs without Typer, and each other verb
imports what it needs when it runs, so help comes at once.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sennit.cli.verbs import app

__all__ = ["app", "main"]


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit with its status."""
    sys.exit(run(sys.argv[1:] if arguments is None else arguments))


def run(arguments: list[str]) -> int:
    """Run one command; return its exit status instead of raising."""
    try:
        return _run(arguments)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # The reader of the pipe, such as `head`, has closed it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as problem:  # noqa: BLE001 - the one place where errors become text and status
        from sennit.cli.output import report

        return report(problem, as_json="--json" in arguments)


def _run(arguments: list[str]) -> int:
    from sennit.cli.quick import parse_sql

    members = parse_sql(arguments)
    if members is not None:
        from sennit.cli.sql import Query, run_query

        run_query(Query(**members))
        return 0
    from sennit.cli.verbs import app

    # Without its standalone mode Typer returns the status of `typer.Exit` instead of raising it.
    status = app(arguments, prog_name="platform", standalone_mode=False)
    return status if isinstance(status, int) else 0


def __getattr__(name: str) -> Any:
    if name == "app":
        from sennit.cli.verbs import app

        return app
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


if __name__ == "__main__":
    main()
