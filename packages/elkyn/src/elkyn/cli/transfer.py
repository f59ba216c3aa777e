"""`elkyn import` and `export`: JSON, JSON Lines, SQLite and Redis."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path as FilePath
from typing import Any, TextIO

from elkyn.cli.command import Subparsers, add_command, read_json, write_json
from elkyn.cli.target import Target, add_target, open_target
from elkyn.migration.lines import read_lines, write_lines
from elkyn.migration.redis import connect, read_keys, write_keys
from elkyn.migration.sqlite import read_tables, write_tables
from sennit_core.errors import BadInput, NotFound, UsageError

__all__ = ["register"]

FORMATS = ("json", "jsonl", "sqlite", "redis")
_BATCH_PLACES = 500


def register(subparsers: Subparsers) -> None:
    """Add the commands `import` and `export`."""
    imports = add_command(subparsers, "import", _import, "import data into a tree", data=False)
    imports.add_argument("source", help="a file, redis://host:port/0, or - for standard input")
    imports.add_argument("--key", metavar="FIELD", help="JSON Lines: the member to use as key")
    export = add_command(
        subparsers, "export", _export, "export a tree to a file or database", data=False
    )
    export.add_argument("target", nargs="?", default="-", help="as for import")
    for command in (imports, export):
        add_target(command)
        command.add_argument("--path", default="/", help="subtree to import or export (/)")
        command.add_argument(
            "--format", choices=FORMATS, help="format (inferred from the file name)"
        )


def _format(name: str, asked: str | None) -> str:
    if asked is not None:
        return asked
    if name.startswith(("redis:", "rediss:")):
        return "redis"
    ending = FilePath(name).suffix.lower()
    endings = {".jsonl": "jsonl", ".ndjson": "jsonl", ".db": "sqlite", ".sqlite": "sqlite"}
    return endings.get(ending, "sqlite" if ending == ".sqlite3" else "json")


def _import(options: argparse.Namespace) -> int:
    kind = _format(options.source, options.format)
    if kind == "json":
        with _reading(options.source) as stream:
            value = read_json(options.source, stream)
        with open_target(options, create=True) as tree:
            tree.set(options.path, value)
        return 0
    with open_target(options, create=True) as tree:
        count = _put_all(tree, options.path, _places(kind, options))
    print(f"{count} imported", file=sys.stderr)
    return 0


def _places(kind: str, options: argparse.Namespace) -> Iterator[tuple[str | None, Any]]:
    """Yield values with their relative paths; None for those to push."""
    if kind == "jsonl":
        with _reading(options.source) as stream:
            yield from read_lines(stream, options.key)
    elif kind == "sqlite":
        for (table, key), value in read_tables(FilePath(options.source)):
            yield f"{table}/{key}", value
    else:
        with connect(options.source) as redis:
            for path, value in read_keys(redis):
                yield "/".join(path), value


def _put_all(tree: Target, path: str, places: Iterator[tuple[str | None, Any]]) -> int:
    """Write places in batches; an ancestor or descendant of a batch's place starts a new batch."""
    count = 0
    batch: dict[str, Any] = {}
    for place, value in places:
        count += 1
        if place is None:
            tree.push(path, value)
            continue
        if len(batch) == _BATCH_PLACES or _overlaps(place, batch):
            tree.update(path, batch)
            batch = {}
        batch[place] = value
    if batch:
        tree.update(path, batch)
    return count


def _overlaps(place: str, batch: dict[str, Any]) -> bool:
    parts = place.split("/")
    above = any("/".join(parts[:depth]) in batch for depth in range(1, len(parts) + 1))
    return above or any(known.startswith(f"{place}/") for known in batch)


def _export(options: argparse.Namespace) -> int:
    kind = _format(options.target, options.format)
    with open_target(options) as tree:
        value = tree.get(options.path, export=kind == "json")
    if kind == "json":
        with _writing(options.target) as stream:
            write_json(value, stream)
        return 0
    children = _children(value)
    if kind == "jsonl":
        with _writing(options.target) as stream:
            count = write_lines(children, stream)
    elif kind == "sqlite":
        tables = ((name, _as_map(child)) for name, child in children)
        count = write_tables(FilePath(options.target), tables)
    else:
        with connect(options.target) as redis:
            count = write_keys(redis, _leaves((), value))
    print(f"{count} exported", file=sys.stderr)
    return 0


def _children(value: Any) -> list[tuple[str, Any]]:
    if value is None:
        return []
    if not isinstance(value, (dict, list)):
        raise UsageError("the value at this path has no children", hint="use --format json")
    return list(_as_map(value).items())


def _as_map(value: Any) -> dict[str, Any]:
    if isinstance(value, list):
        return {str(index): child for index, child in enumerate(value) if child is not None}
    return value if isinstance(value, dict) else {"value": value}


def _leaves(path: tuple[str, ...], value: Any) -> Iterator[tuple[tuple[str, ...], Any]]:
    if isinstance(value, (dict, list)):
        for key, child in _as_map(value).items():
            yield from _leaves((*path, key), child)
    elif value is not None:
        yield path, value


@contextmanager
def _reading(name: str) -> Iterator[TextIO]:
    if name == "-":
        yield sys.stdin
        return
    try:
        with FilePath(name).open(encoding="utf-8") as stream:
            yield stream
    except FileNotFoundError:
        raise NotFound("file", name) from None
    except UnicodeDecodeError as error:
        raise BadInput(name, reason=f"the input is not UTF-8: {error.reason}") from None


@contextmanager
def _writing(name: str) -> Iterator[TextIO]:
    """Write a file atomically; `-` is standard output."""
    if name == "-":
        yield sys.stdout
        return
    target = FilePath(name)
    fresh = target.with_name(f".{target.name}.{os.getpid()}.new")
    try:
        with fresh.open("w", encoding="utf-8") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        fresh.replace(target)
    finally:
        fresh.unlink(missing_ok=True)
