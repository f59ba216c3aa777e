"""`elkyn rules`: check rules, run their tests, keep them in a tree that no server has open."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path as FilePath

from elkyn.cli.command import Subparsers, add_command, existing
from sennit_core.errors import NotFound

__all__ = ["register"]


def register(subparsers: Subparsers) -> None:
    """Add the verbs of this module."""
    help_text = "check, test, set and show the rules of a tree"
    rules = subparsers.add_parser("rules", help=help_text, description=help_text)
    verbs = rules.add_subparsers(required=True, metavar="VERB")
    check = add_command(verbs, "check", _check, "say what is wrong with a rules file", data=False)
    check.add_argument("file")
    test = add_command(verbs, "test", _test, "run the cases of a rule test file", data=False)
    test.add_argument("file")
    test.add_argument(
        "--explain", action="store_true", help="show which rule decided each case and what it saw"
    )
    put = add_command(verbs, "set", _set, "replace the rules of a tree by those of a file")
    put.add_argument("file")
    add_command(verbs, "show", _show, "print the rules of a tree as they were set")


def _check(options: argparse.Namespace) -> int:
    from elkyn.rules.files import check_file

    return check_file(options.file, sys.stdout)


def _test(options: argparse.Namespace) -> int:
    from elkyn.rules.files import run_test_file

    return run_test_file(options.file, sys.stdout, explain=options.explain)


def _set(options: argparse.Namespace) -> int:
    from elkyn.namespaces import open_namespaces
    from elkyn.rules.files import check_file

    code = check_file(options.file, sys.stdout)
    if code == 0:
        with open_namespaces(options.data) as stores:
            stores[options.namespace].set_rules(FilePath(options.file).read_bytes())
    return code


def _show(options: argparse.Namespace) -> int:
    from elkyn.namespaces import open_namespaces

    with open_namespaces(options.data) as stores:
        rules = existing(stores, options.namespace).rules
        if rules is None:
            raise NotFound("rules", hint="elkyn rules set FILE; without rules only admins get in")
        print(rules.source.rstrip())
    return 0
