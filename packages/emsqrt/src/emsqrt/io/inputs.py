"""Resolve a source to its files: expand globs and folders, and find columns in folder names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from emsqrt.io.locations import Location, expand_locations
from emsqrt.io.partitions import partition_columns
from emsqrt.plan import DatasetRef, Files
from sennit_core.errors import Unsupported, UsageError, nearest

_SUFFIXES = {
    "csv": (".csv", ".tsv", ".csv.gz", ".tsv.gz", ".csv.zst", ".tsv.zst"),
    "jsonl": (".jsonl", ".ndjson", ".jsonl.gz", ".ndjson.gz", ".jsonl.zst", ".ndjson.zst"),
    "parquet": (".parquet", ".pq"),
    "arrow": (".arrow", ".arrows", ".feather"),
}
"""Suffixes of the files of a folder that each format reads."""


def source_locations(source: Files | DatasetRef, folder: Path | None = None) -> list[Location]:
    """Return the files of a source: globs and folders are expanded; all files exist."""
    if isinstance(source, DatasetRef):
        raise Unsupported(
            f"the dataset {source.dataset!r} is not resolved to files",
            hint="an engine reads files; a node resolves its datasets before it runs a plan",
        )
    return expand_locations(source.paths, folder, _SUFFIXES[source.format])


def opened_locations(
    source: Files | DatasetRef, folder: Path | None
) -> tuple[list[Location], dict[str, Any], frozenset[str]]:
    """Return the files, the reader's own options, and the columns in folder names."""
    places = source_locations(source, folder)
    assert isinstance(source, Files), "only files have paths"
    options = {name: value for name, value in source.options.items() if name != "partitions"}
    if options and source.format in ("parquet", "arrow"):
        guess = nearest(next(iter(options)), ("partitions",))
        raise UsageError(
            f"{source.format} has no option {next(iter(options))!r}; it has partitions",
            hint=f'did you mean "{guess}"?' if guess else None,
        )
    by_folder = partition_columns(places) if reads_partitions(source) else ()
    return places, options, frozenset(by_folder)


def reads_partitions(source: Files) -> bool:
    """Return whether columns are read from the names of folders."""
    return bool(source.options.get("partitions", True))
