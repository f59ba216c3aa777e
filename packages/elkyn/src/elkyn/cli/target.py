"""The target tree of a command: a folder, the server that has it open, or a server by its URL."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path as FilePath
from typing import TYPE_CHECKING, TypeAlias, Union

from elkyn.cli.command import existing
from elkyn.cli.remote import RemoteTree
from sennit_core.errors import UsageError

if TYPE_CHECKING:
    from elkyn.store import ElkynStore

__all__ = ["Target", "add_target", "find_server", "open_target", "server_of"]

Target: TypeAlias = Union["ElkynStore", RemoteTree]


def add_target(command: argparse.ArgumentParser, *, namespace: bool = True) -> None:
    """Add the options that select a tree; without `namespace`, only its folder or server."""
    command.add_argument("--data", type=FilePath, help="data folder with the namespaces")
    command.add_argument(
        "--url", default=os.environ.get("ELKYN_URL"), help="URL of a server (also ELKYN_URL)"
    )
    command.add_argument(
        "--token",
        default=os.environ.get("ELKYN_TOKEN"),
        help="credential for the server (also ELKYN_TOKEN)",
    )
    if namespace:
        command.add_argument(
            "--namespace", default="default", help="namespace of the tree (default)"
        )


@contextmanager
def open_target(options: argparse.Namespace, *, create: bool = False) -> Iterator[Target]:
    """Open the tree that the options select.

    Args:
        options: includes the options of `add_target`.
        create: whether to create a missing namespace.

    Raises:
        UsageError: the options select no tree, or two.
    """
    server = find_server(options)
    if server is not None:
        with RemoteTree(*server, options.namespace) as tree:
            yield tree
    else:
        from elkyn.namespaces import open_namespaces

        with open_namespaces(options.data) as stores:
            name = options.namespace
            yield stores[name] if create else existing(stores, name)


def find_server(options: argparse.Namespace) -> tuple[str, str | None] | None:
    """Return URL and token of the server that the options select; None for an unserved folder.

    Raises:
        UsageError: the options select neither a folder nor a server, or both.
    """
    if (options.data is None) == (options.url is None):
        raise UsageError(
            "select a folder or a server", hint="use either --data DIR or --url http://host:9000"
        )
    if options.url is not None:
        return options.url, options.token
    return server_of(options.data)


def server_of(data: FilePath) -> tuple[str, str] | None:
    """Return URL and admin token of the server that has `data` open."""
    with suppress(FileNotFoundError, ValueError, KeyError, ProcessLookupError):
        run = json.loads((data / "run.json").read_text(encoding="utf-8"))
        os.kill(run["pid"], 0)
        token_file = data / "admin.token"
        token = "owner" if run["emulator"] else token_file.read_text().strip()
        return run["url"], token
    return None
