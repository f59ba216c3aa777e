"""Export a dataset or the result of a query to a file.

The file appears whole or not at all: it is written under another name, synced and renamed.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path

from sennit_core.errors import NotFound, UsageError

__all__ = ["FORMATS", "export_format", "export_query", "write_file"]

FORMATS = {
    ".csv": "csv",
    ".parquet": "parquet",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".arrow": "arrow",
    ".xlsx": "xlsx",
}
"""Formats by the ending of the file's name."""


def export_format(path: Path, asked: str | None = None) -> str:
    """Return the format of a file: the one asked for, else by the ending of its name.

    Raises:
        UsageError: The ending names no format.
    """
    found = asked or FORMATS.get(path.suffix.lower(), "")
    if found not in FORMATS.values():
        raise UsageError(
            f"{asked or path.name!r} names no format to export to",
            hint=f"end the name with one of {', '.join(FORMATS)}, or use --format",
        )
    return found


def export_query(source: str, *, is_dataset: bool) -> str:
    """Return the query of an export.

    Args:
        source: A dataset, or a query.
        is_dataset: Whether there is a dataset of this name or id.

    Raises:
        NotFound: It is one word, and no dataset.
    """
    if is_dataset:
        quoted = source.replace('"', '""')
        return f'SELECT * FROM "{quoted}"'
    if not re.search(r"\s", source.strip()):
        raise NotFound("dataset", source, hint="name a dataset, or write a query")
    return source


def write_file(path: Path, pieces: Iterable[bytes | memoryview]) -> int:
    """Write a file that appears when it is whole, replacing one of its name; return its size.

    The new file has the modes that the user's umask allows, as any file that a program makes.
    """
    staged = path.with_name(f".{path.name}.{os.getpid()}.incoming")
    size = 0
    try:
        with staged.open("xb") as file:
            for piece in pieces:
                size += file.write(piece)
            file.flush()
            os.fsync(file.fileno())
        staged.replace(path)
    except BaseException:
        staged.unlink(missing_ok=True)
        raise
    return size
