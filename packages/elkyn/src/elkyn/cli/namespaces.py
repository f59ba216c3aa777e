"""`elkyn namespace`: create and list the namespaces of a folder or a server."""

from __future__ import annotations

import argparse
from collections.abc import Callable

from elkyn.cli.command import Subparsers, add_command
from elkyn.cli.remote import RemoteTree
from elkyn.cli.target import add_target, find_server

__all__ = ["register"]


def register(subparsers: Subparsers) -> None:
    """Add the commands."""
    text = "create and list namespaces: the trees of a folder or a server"
    group = subparsers.add_parser("namespace", help=text, description=text)
    verbs = group.add_subparsers(required=True, metavar="VERB")
    add = _verb(verbs, "add", _add, "create a namespace; an existing one stays unchanged")
    add.add_argument(
        "name", help="its name in ?ns= of requests, for example my-project-default-rtdb"
    )
    _verb(verbs, "list", _list, "print the names of the namespaces")


def _verb(
    verbs: Subparsers, name: str, run: Callable[[argparse.Namespace], int], text: str
) -> argparse.ArgumentParser:
    command = add_command(verbs, name, run, text, data=False)
    add_target(command, namespace=False)
    return command


def _add(options: argparse.Namespace) -> int:
    from elkyn.namespaces import open_namespaces

    server = find_server(options)
    if server is None:
        with open_namespaces(options.data) as stores:
            created = stores.add(options.name)
    else:
        with RemoteTree(*server) as tree:
            created = tree.create_namespace(options.name)
    print(f"namespace {options.name} {'created' if created else 'exists already'}")
    return 0


def _list(options: argparse.Namespace) -> int:
    from elkyn.namespaces import open_namespaces

    server = find_server(options)
    if server is None:
        with open_namespaces(options.data) as stores:
            names = list(stores)
    else:
        with RemoteTree(*server) as tree:
            names = tree.namespaces()
    for name in names:
        print(name)
    return 0
