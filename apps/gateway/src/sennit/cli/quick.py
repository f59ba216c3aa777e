"""`platform sql` without Typer, whose import and setup cost more than a small query.

Only a valid command line is handled here; everything else, `--help` and all errors included, goes
to Typer, so that help and errors have one implementation.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

__all__ = ["OPTIONS", "parse_sql"]

OPTIONS: Mapping[str, tuple[str, Callable[[str], Any] | None]] = {
    "--limit": ("limit", int),
    "--csv": ("as_csv", None),
    "--engine": ("engine", str),
    "--priority": ("priority", str),
    "--allow-partial": ("allow_partial", None),
    "--queue": ("queue", None),
    "--data": ("data", Path),
    "--url": ("url", str),
    "--json": ("as_json", None),
}
"""The field of `sennit.cli.sql.Query` that each option sets, and the parser of its value (None: a
flag, which sets True). A test compares them with the options of the Typer command."""


def parse_sql(arguments: Sequence[str]) -> dict[str, Any] | None:
    """Return the fields of `Query` for `sql …`, or None to let Typer handle the arguments."""
    if not arguments or arguments[0] != "sql":
        return None
    members: dict[str, Any] = {}
    words = list(arguments[:0:-1])
    while words:
        word = words.pop()
        found = _option(word, words) if word.startswith("-") else ("sql", word)
        if found is None or (found[0] == "sql" and "sql" in members):
            return None
        members[found[0]] = found[1]
    return members if "sql" in members else None


def _option(word: str, words: list[str]) -> tuple[str, Any] | None:
    """Return the field that an option sets, and its value, which is popped from `words`."""
    name, equals, value = word.partition("=")
    if name not in OPTIONS:
        return None
    member, read = OPTIONS[name]
    if read is None:
        return None if equals else (member, True)
    if not equals:
        if not words or words[-1].startswith("-"):
            return None
        value = words.pop()
    try:
        return member, read(value)
    except ValueError:
        return None
