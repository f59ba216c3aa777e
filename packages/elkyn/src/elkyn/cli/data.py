"""`elkyn get`, `set`, `export` and `import`: trees in and out of a folder that no server has open."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path as FilePath

from elkyn.cli.command import Subparsers, add_command, existing, read_json, write_json
from elkyn.namespaces import open_namespaces

__all__ = ["register"]


def register(subparsers: Subparsers) -> None:
    """Add the verbs `get`, `set`, `export` and `import`."""
    get = add_command(subparsers, "get", _get, "print the value at a path as JSON")
    get.add_argument("path", nargs="?", default="/")
    put = add_command(subparsers, "set", _set, "replace the value at a path")
    put.add_argument("path")
    put.add_argument("value", help="JSON; - reads standard input")
    export = add_command(subparsers, "export", _export, "write the whole tree as JSON")
    export.add_argument("file", nargs="?", default="-", help="standard output when left out")
    imports = add_command(subparsers, "import", _import, "replace the tree by a JSON file")
    imports.add_argument("file", help="- reads standard input")
    imports.add_argument("--path", default="/", help="replace only what is at this path")


def _get(options: argparse.Namespace) -> int:
    with open_namespaces(options.data) as stores:
        write_json(existing(stores, options.namespace).get(options.path), sys.stdout)
    return 0


def _set(options: argparse.Namespace) -> int:
    value = read_json(options.value, sys.stdin if options.value == "-" else None)
    with open_namespaces(options.data) as stores:
        stores[options.namespace].set(options.path, value)
    return 0


def _export(options: argparse.Namespace) -> int:
    with open_namespaces(options.data) as stores:
        value = existing(stores, options.namespace).get("/")
    if options.file == "-":
        write_json(value, sys.stdout)
    else:
        with FilePath(options.file).open("w", encoding="utf-8") as stream:
            write_json(value, stream)
    return 0


def _import(options: argparse.Namespace) -> int:
    if options.file == "-":
        value = read_json("standard input", sys.stdin)
    else:
        with FilePath(options.file).open(encoding="utf-8") as stream:
            value = read_json(options.file, stream)
    with open_namespaces(options.data) as stores:
        stores[options.namespace].set(options.path, value)
    return 0
