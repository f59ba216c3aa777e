"""The program: all commands under one parser; prints errors with their hint."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Sequence
from typing import Any

from elkyn.cli import accounts, data, namespaces, replicas, rules, serving, shell, transfer, upkeep
from sennit_core.errors import SennitError, UsageError

__all__ = ["GROUPS", "main"]

GROUPS = (serving, namespaces, data, transfer, shell, rules, accounts, upkeep, replicas)
"""Modules with `register(subparsers)`, in the order of the help."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit code: 0 success, 1 failure, 2 wrong usage."""
    options = _parser().parse_args(arguments)
    try:
        code: int = options.run(options)
        sys.stdout.flush()
    except BrokenPipeError:  # the reader of the output has closed the pipe
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except SennitError as error:
        print(f"elkyn: {error}", file=sys.stderr)
        if error.hint:
            print(f"hint: {error.hint}", file=sys.stderr)
        return 2 if isinstance(error, UsageError) else 1
    return code


class _Version(argparse.Action):
    """Print the version; looking it up is slow, so it happens only on request."""

    def __init__(self, option_strings: list[str], dest: str, **settings: Any) -> None:
        super().__init__(option_strings, argparse.SUPPRESS, nargs=0, **settings)

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        from importlib.metadata import version

        print(f"elkyn {version('sennit-elkyn')}")
        parser.exit()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="elkyn", description="A realtime tree database: JSON on paths, served or embedded."
    )
    parser.add_argument("--version", action=_Version, help="print the version")
    subparsers = parser.add_subparsers(required=True, metavar="COMMAND")
    for group in GROUPS:
        group.register(subparsers)
    return parser
