"""What verbs share: a parser with the options of every verb, JSON in and out, an open namespace."""

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
    """Return the parser of a new verb; `run(options)` returns the exit code.

    Args:
        subparsers: where the verb belongs.
        name: the verb.
        run: does it.
        help_text: one line.
        data: whether the verb takes `--data` and `--namespace`.
    """
    command: argparse.ArgumentParser = subparsers.add_parser(
        name, help=help_text, description=help_text
    )
    if data:
        command.add_argument(
            "--data", type=FilePath, required=True, help="folder of the namespaces"
        )
        command.add_argument("--namespace", default="default", help="which tree (default)")
    command.set_defaults(run=run)
    return command


def existing(stores: Stores, name: str) -> ElkynStore:
    """Return the store of a namespace that there is already."""
    if name not in stores:
        hint = f"it has: {', '.join(stores) or 'none'}"
        raise NotFound("namespace", name, hint=hint)
    return stores[name]


def read_json(text: str, stream: TextIO | None) -> Any:
    """Parse `text`, or what `stream` (then named `text` in errors) holds."""
    try:
        return json.loads(text) if stream is None else json.load(stream)
    except (ValueError, RecursionError) as error:
        what = f"{text!r} is not JSON" if stream is None else f"{text} does not hold JSON"
        hint = "text needs quotes of its own: '\"text\"'" if stream is None else None
        raise UsageError(f"{what}: {error}", hint=hint) from None


def write_json(value: Any, stream: TextIO) -> None:
    """Print `value` for people to read."""
    json.dump(value, stream, ensure_ascii=False, indent=2)
    stream.write("\n")
