"""The program: all verbs under one parser; prints errors with their hint."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lake.cli import datasets, files, maintenance, storage, versions
from sennit_core.errors import SennitError, UsageError

__all__ = ["GROUPS", "main", "parser"]

GROUPS = (datasets, files, versions, maintenance, storage)
"""Modules with `VERBS`, in the order of the help."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return 0 on success, 1 on failure or damage, 2 on invalid usage."""
    options = parser().parse_args(arguments)
    try:
        status: int | None = options.run(options)
        sys.stdout.flush()
    except BrokenPipeError:  # the reader of a pipe, such as `head`, has closed it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except SennitError as error:
        print(f"lake: {error}", file=sys.stderr)
        if error.hint:
            print(f"hint: {error.hint}", file=sys.stderr)
        return 2 if isinstance(error, UsageError) else 1
    return status or 0


class _Version(argparse.Action):
    """Print the version; reading it is slow, so it is read only for `--version`."""

    def __init__(self, option_strings: list[str], dest: str, **settings: Any) -> None:
        super().__init__(option_strings, argparse.SUPPRESS, nargs=0, **settings)

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        from importlib.metadata import version

        print(f"lake {version('sennit-lake')}")
        parser.exit()


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command; `run` of what it returns runs the verb."""
    root = argparse.ArgumentParser(
        prog="lake",
        description="Work on the lake in a folder. While a node has the folder open, use `platform`.",
    )
    root.add_argument("--version", action=_Version, help="print the version")
    subparsers = root.add_subparsers(required=True, metavar="VERB")
    common = _common_options()
    for group in GROUPS:
        for each in group.VERBS:
            each.register(subparsers, common)
    return root


def _common_options() -> argparse.ArgumentParser:
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--data", required=True, type=Path, metavar="DIR", help="the lake's folder")
    common.add_argument("--json", action="store_true", help="print JSON")
    keys = common.add_mutually_exclusive_group()
    keys.add_argument("--key-file", type=Path, metavar="FILE", help="unlocks encrypted datasets")
    keys.add_argument(
        "--passphrase-file", type=Path, metavar="FILE", help="the same, by its first line"
    )
    return common
