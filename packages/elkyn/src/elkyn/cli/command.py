"""Shared parts of the commands: common options, JSON input and output, an open namespace."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path as FilePath
from typing import TYPE_CHECKING, Any, TextIO, TypeAlias

from sennit_core.errors import NotFound, UsageError

if TYPE_CHECKING:
    from elkyn.namespaces import Stores
    from elkyn.store import ElkynStore

__all__ = ["Subparsers", "add_command", "existing", "read_json", "write_json"]

Subparsers: TypeAlias = Any
"""What `ArgumentParser.add_subparsers` returns (argparse names no public type for it)."""


def add_command(
    subparsers: Subparsers,
    name: str,
    run: Callable[[argparse.Namespace], int],
    help_text: str,
    *,
    data: bool = True,
) -> argparse.ArgumentParser:
    """Return the parser of a new command; `run(options)` returns the exit code.

    Args:
        subparsers: the group of the command.
        name: the command.
        run: runs the command.
        help_text: one line of help.
        data: whether the command has `--data` and `--namespace`.
    """
    command: argparse.ArgumentParser = subparsers.add_parser(
        name, help=help_text, description=help_text
    )
    if data:
        command.add_argument(
            "--data", type=FilePath, required=True, help="data folder with the namespaces"
        )
        command.add_argument(
            "--namespace", default="default", help="namespace of the tree (default)"
        )
    command.set_defaults(run=run)
    return command


def existing(stores: Stores, name: str) -> ElkynStore:
    """Return the store of an existing namespace."""
    if name not in stores:
        hint = f"existing namespaces: {', '.join(stores) or 'none'}"
        raise NotFound("namespace", name, hint=hint)
    return stores[name]


def read_json(text: str, stream: TextIO | None) -> Any:
    """Parse `text`, or the content of `stream`, which errors then call `text`."""
    try:
        return json.loads(text) if stream is None else json.load(stream)
    except (ValueError, RecursionError) as error:
        what = f"{text!r} is not JSON" if stream is None else f"{text} does not hold JSON"
        hint = "a JSON string needs its own quotes: '\"text\"'" if stream is None else None
        raise UsageError(f"{what}: {error}", hint=hint) from None


def write_json(value: Any, stream: TextIO) -> None:
    """Print `value` as indented JSON."""
    json.dump(value, stream, ensure_ascii=False, indent=2)
    stream.write("\n")
