"""`elkyn rules`: check rules, run their tests, and set them in a tree that no server has open."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path as FilePath
from typing import TYPE_CHECKING

from elkyn.auth.principal import UNAUTHENTICATED, Principal
from elkyn.cli.command import Subparsers, add_command, existing, read_json
from elkyn.tree.paths import parse_path
from sennit_core.errors import NotFound, UsageError

if TYPE_CHECKING:
    from elkyn.rules import RuleSet
    from elkyn.store import ElkynStore

__all__ = ["register"]


def register(subparsers: Subparsers) -> None:
    """Add the commands of this module."""
    help_text = "check, test, set and show the rules of a tree"
    rules = subparsers.add_parser("rules", help=help_text, description=help_text)
    verbs = rules.add_subparsers(required=True, metavar="VERB")
    check = add_command(verbs, "check", _check, "report the problems of a rules file", data=False)
    check.add_argument("file")
    test = add_command(verbs, "test", _test, "run the cases of a rule test file", data=False)
    test.add_argument("file")
    test.add_argument(
        "--explain",
        action="store_true",
        help="show which rule decided each case, and the values that it read",
    )
    help_text = "evaluate a tree's rules for a request; show the deciding rule and its values"
    explain = add_command(verbs, "explain", _explain, help_text)
    explain.add_argument("path")
    explain.add_argument(
        "--as", dest="user", help="a uid, or JSON with uid and claims (unauthenticated)"
    )
    explain.add_argument("--write", metavar="JSON", help="write this value instead of reading")
    put = add_command(verbs, "set", _set, "replace the rules of a tree with those of a file")
    put.add_argument("file")
    add_command(verbs, "show", _show, "print the rules of a tree as they were set")


def _check(options: argparse.Namespace) -> int:
    from elkyn.rules.files import check_file

    return check_file(options.file, sys.stdout)


def _test(options: argparse.Namespace) -> int:
    from elkyn.rules.files import run_test_file

    return run_test_file(options.file, sys.stdout, explain=options.explain)


def _explain(options: argparse.Namespace) -> int:
    from elkyn.namespaces import open_namespaces
    from elkyn.tree.reader import Overlay
    from elkyn.tree.values import prepare, resolve

    path, now_ms, principal = parse_path(options.path), int(time.time() * 1000), _user(options.user)
    with open_namespaces(options.data) as stores:
        store = existing(stores, options.namespace)
        rules = _rules_of(store)
        with store.admin.snapshot() as view:
            if options.write is None:
                explanation = rules.explain_read(view, path, principal, now_ms)
            else:
                new = prepare(read_json(options.write, None), path).value
                places = [(path, resolve(new, view.get, path, now_ms))]
                after = Overlay(view, places)
                explanation = rules.explain_write(view, after, places, principal, now_ms)
    print(explanation)
    return 0 if explanation.allowed else 1


def _user(text: str | None) -> Principal:
    from elkyn.rules.cases import principal_of

    if text is None:
        return UNAUTHENTICATED
    user = read_json(text, None) if text.startswith("{") else {"uid": text}
    if not isinstance(user.get("uid"), str):
        raise UsageError(
            "a user needs a uid", hint='--as ann, or --as \'{"uid": "ann", "admin": true}\''
        )
    return principal_of(user)


def _rules_of(store: ElkynStore) -> RuleSet:
    if store.rules is None:
        raise NotFound("rules", hint="elkyn rules set FILE; without rules only admins have access")
    return store.rules


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
        print(_rules_of(existing(stores, options.namespace)).source.rstrip())
    return 0
