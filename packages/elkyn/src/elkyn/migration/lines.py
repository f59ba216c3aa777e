"""JSON Lines: one record per line."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any, TextIO

from elkyn.migration.keys import escape_key
from sennit_core.errors import UsageError

__all__ = ["read_lines", "write_lines"]


def read_lines(stream: Iterable[str], key_field: str | None) -> Iterator[tuple[str | None, Any]]:
    """Yield the records with their keys.

    Args:
        stream: lines of JSON; empty ones are skipped.
        key_field: the member of a record that is its key; None: a line `{"key": …, "value": …}`
            has its key, and any other record has none and is pushed.

    Raises:
        UsageError: a line is not JSON, or has no key; the error names the line.
    """
    for number, line in enumerate(stream, 1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise UsageError(f"line {number} is not JSON: {error}") from None
        if key_field is not None:
            yield _key(record, key_field, number), record
        elif isinstance(record, dict) and record.keys() == {"key", "value"}:
            yield escape_key(str(record["key"])), record["value"]
        else:
            yield None, record


def _key(record: Any, field: str, number: int) -> str:
    key = record.get(field) if isinstance(record, dict) else None
    if isinstance(key, bool) or not isinstance(key, (str, int)):
        raise UsageError(f'line {number} has no string or integer in "{field}"')
    return escape_key(str(key))


def write_lines(children: Iterable[tuple[str, Any]], stream: TextIO) -> int:
    """Write `{"key": …, "value": …}` for each child; returns how many."""
    count = 0
    for key, value in children:
        json.dump({"key": key, "value": value}, stream, ensure_ascii=False)
        stream.write("\n")
        count += 1
    return count
