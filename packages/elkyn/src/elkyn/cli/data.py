"""The commands on values: get, set, update, push, delete, query, watch, stats."""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

from elkyn.cli.command import Subparsers, add_command, read_json, write_json
from elkyn.cli.remote import RemoteTree
from elkyn.cli.target import add_target, open_target
from sennit_core.errors import UsageError
from sennit_core.units import format_bytes

__all__ = ["register"]

_BOUNDS = ("start-at", "start-after", "end-at", "end-before", "equal-to")


def register(subparsers: Subparsers) -> None:
    """Add the commands."""
    get = _verb(subparsers, "get", _get, "print the value at a path as JSON")
    get.add_argument("path", nargs="?", default="/")
    for name, run, text in (
        ("set", _set, "replace the value at a path"),
        ("update", _update, "replace several children of a path in one write"),
        ("push", _push, "add a value under a new key, and print the key"),
    ):
        command = _verb(subparsers, name, run, text)
        command.add_argument("path")
        command.add_argument("value", help="JSON; - reads standard input")
    delete = _verb(subparsers, "delete", _delete, "delete the value at a path, with its children")
    delete.add_argument("path")
    _register_query(subparsers)
    watch = _verb(subparsers, "watch", _watch, "print the value at a path, and every change")
    watch.add_argument("path", nargs="?", default="/")
    watch.add_argument("--count", type=int, help="stop after this number of events")
    stats = _verb(subparsers, "stats", _stats, "print a tree's size, or a server's counters")
    stats.add_argument("--json", action="store_true", help="as JSON")


def _register_query(subparsers: Subparsers) -> None:
    query = _verb(subparsers, "query", _query, "print the sorted and filtered children of a path")
    query.add_argument("path")
    query.add_argument(
        "--order-by", default="$key", help="$key, $value, $priority or a path in each child"
    )
    for name in _BOUNDS:
        query.add_argument(f"--{name}", metavar="JSON", help="a JSON value; strings need quotes")
    query.add_argument("--limit-to-first", type=int, metavar="N")
    query.add_argument("--limit-to-last", type=int, metavar="N")


def _verb(subparsers: Subparsers, name: str, run: Any, text: str) -> argparse.ArgumentParser:
    command = add_command(subparsers, name, run, text, data=False)
    add_target(command)
    return command


def _get(options: argparse.Namespace) -> int:
    with open_target(options) as tree:
        write_json(tree.get(options.path), sys.stdout)
    return 0


def _set(options: argparse.Namespace) -> int:
    value = _value(options)
    with open_target(options, create=True) as tree:
        tree.set(options.path, value)
    return 0


def _update(options: argparse.Namespace) -> int:
    values = _value(options)
    if not isinstance(values, dict):
        raise UsageError("an update needs a JSON object of children")
    with open_target(options, create=True) as tree:
        tree.update(options.path, values)
    return 0


def _push(options: argparse.Namespace) -> int:
    value = _value(options)
    with open_target(options, create=True) as tree:
        print(tree.push(options.path, value))
    return 0


def _delete(options: argparse.Namespace) -> int:
    with open_target(options) as tree:
        tree.delete(options.path)
    return 0


def _query(options: argparse.Namespace) -> int:
    window: dict[str, Any] = {}
    for name in (option.replace("-", "_") for option in _BOUNDS):
        text = getattr(options, name)
        if text is not None:
            window[name] = read_json(text, None)
    for name in ("limit_to_first", "limit_to_last"):
        if getattr(options, name) is not None:
            window[name] = getattr(options, name)
    with open_target(options) as tree:
        write_json(tree.query(options.path, order_by=options.order_by, **window), sys.stdout)
    return 0


def _watch(options: argparse.Namespace) -> int:
    with open_target(options) as tree:
        for number, event in enumerate(tree.watch(options.path), 1):
            line = {"type": event.type, "path": event.path, "data": event.data}
            print(json.dumps(line, ensure_ascii=False), flush=True)
            if number == options.count:
                break
    return 0


def _stats(options: argparse.Namespace) -> int:
    with open_target(options) as tree:
        if isinstance(tree, RemoteTree):
            found = _counters(tree.text("/metrics"))
        else:
            oplog = tree.oplog
            found = {
                "bytes": tree.admin.file_bytes,
                "position": tree.position,
                "oplog_first": oplog.first,
                "children": len(tree.keys("/")),
            }
    if options.json:
        write_json(found, sys.stdout)
        return 0
    width = max(map(len, found), default=0)
    for name, value in found.items():
        print(f"{name:{width}}  {format_bytes(int(value)) if name == 'bytes' else f'{value:g}'}")
    return 0


def _counters(page: str) -> dict[str, float]:
    lines = [line for line in page.splitlines() if line and not line.startswith("#")]
    return {name: float(value) for name, _space, value in (line.rpartition(" ") for line in lines)}


def _value(options: argparse.Namespace) -> Any:
    return read_json(options.value, sys.stdin if options.value == "-" else None)
