"""The program: all verbs under one parser, errors told with their hint."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Sequence

from elkyn.cli import accounts, data, replicas, rules, serving, shell, transfer, upkeep
from sennit_core.errors import SennitError, UsageError

__all__ = ["GROUPS", "main"]

GROUPS = (serving, data, transfer, shell, rules, accounts, upkeep, replicas)
"""Modules with `register(subparsers)`, in the order of the help."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit code: 0 done, 1 failed, 2 asked wrongly."""
    options = _parser().parse_args(arguments)
    try:
        code: int = options.run(options)
        sys.stdout.flush()
    except BrokenPipeError:  # who read the answer has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except SennitError as error:
        print(f"elkyn: {error}", file=sys.stderr)
        if error.hint:
            print(f"hint: {error.hint}", file=sys.stderr)
        return 2 if isinstance(error, UsageError) else 1
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="elkyn", description="A realtime tree database: JSON on paths, served or embedded."
    )
    subparsers = parser.add_subparsers(required=True, metavar="COMMAND")
    for group in GROUPS:
        group.register(subparsers)
    return parser
