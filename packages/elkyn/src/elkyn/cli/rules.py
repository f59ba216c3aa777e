"""`rules`: check a rules file, run the tests of rules."""

from __future__ import annotations

import argparse
import sys

from elkyn.cli.command import Subparsers, add_command

__all__ = ["register"]


def register(subparsers: Subparsers) -> None:
    """Add the verbs of this module."""
    rules = subparsers.add_parser("rules", help="check rules, run their tests")
    verbs = rules.add_subparsers(required=True, metavar="VERB")
    check = add_command(verbs, "check", _check, "say what is wrong with a rules file", data=False)
    check.add_argument("file")
    test = add_command(verbs, "test", _test, "run the cases of a rule test file", data=False)
    test.add_argument("file")
    test.add_argument(
        "--explain", action="store_true", help="show which rule decided each case and what it saw"
    )


def _check(options: argparse.Namespace) -> int:
    from elkyn.rules.files import check_file

    return check_file(options.file, sys.stdout)


def _test(options: argparse.Namespace) -> int:
    from elkyn.rules.files import run_test_file

    return run_test_file(options.file, sys.stdout, explain=options.explain)
