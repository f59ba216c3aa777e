"""Convert DuckDB's errors to Sennit's: with position and suggestion, without file paths."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from pathlib import Path

import duckdb

from lake.errors import damaged_shard
from lake.objects.verification import ShardFile
from sennit_core.errors import (
    Corrupt,
    Denied,
    InternalError,
    MemoryCapExceeded,
    NotFound,
    SennitError,
    SqlError,
    StorageFull,
    UnknownColumn,
    nearest,
)

__all__ = ["as_duckdb_error", "query_error", "syntax_error"]

# DuckDB reports position, names and suggestions only within the message. A pattern that no longer
# matches after an upgrade costs the detail, never the error itself.
_LINE = re.compile(r"\n+LINE (\d+): (.*)\n( *)\^", re.DOTALL)
_COLUMN = re.compile(
    r'Referenced column "(.*?)" not found|column named "?(.*?)"? (?:was )?not found'
)
_TABLE = re.compile(r"Table with name (.*?) does not exist")
_MEANT = re.compile(r'Did you mean "(.*?)"')
_MEANT_LINE = re.compile(r'\n?Did you mean ".*?"\??')
_KIND = re.compile(r"^(?:[A-Z][A-Za-z ]*Error|INTERNAL Error): ")
_PATH = re.compile(r"(?:/[^\s/'\",:;]+){2,}/?")
# Advice to change a setting of DuckDB's, which no statement may.
_SETTING = r"['\"]?(?:SET|set|PRAGMA) \w+ ?="
_SETTING_CLAUSE = re.compile(rf",? or (?:use )?{_SETTING}[^.\n]*")
_SETTING_SENTENCE = re.compile(rf"(?<=[.!?\n]) *[^.!?\n]*{_SETTING}[^.\n]*\.?")
_ELLIPSIS = "..."
_OF_FILES = (duckdb.IOException, duckdb.InvalidInputException, duckdb.SerializationException)
_STREAMED = re.compile(r"(?:Arrow\w*: )?([A-Z][A-Za-z ]*Error): ")
_ALLOCATION = re.compile(
    # The last is of Zstandard: DuckDB then calls its own temporary file corrupt.
    r"failed to allocate|allocation failure|bad_alloc|malloc of size|allocation error : not enough",
    re.IGNORECASE,
)
_CLASSES: dict[str, type[duckdb.Error]] = {
    "Out of Memory Error": duckdb.OutOfMemoryException,
    "Permission Error": duckdb.PermissionException,
    "IO Error": duckdb.IOException,
    "INTERNAL Error": duckdb.InternalException,
    "FATAL Error": duckdb.FatalException,
}


def syntax_error(error: duckdb.Error, sql: str) -> SqlError:
    """Return the error for a parser error, with its position."""
    return _placed(str(error), sql)


def as_duckdb_error(error: BaseException) -> duckdb.Error | None:
    """Return the DuckDB error that an exception represents, or None.

    Errors while rows are read are raised as Arrow exceptions or as OSErrors without errno, with
    DuckDB's message; failed allocations of DuckDB or Arrow are raised as one of several types.
    """
    if isinstance(
        error, SennitError
    ):  # some are also MemoryErrors or OSErrors, such as CapTooSmall
        return None
    text = str(error)
    if isinstance(error, MemoryError) or _ALLOCATION.search(text):
        return duckdb.OutOfMemoryException(text)
    if isinstance(error, duckdb.Error):
        return error
    found = _STREAMED.match(text)
    return _CLASSES.get(found[1], duckdb.Error)(text[found.start(1) :]) if found else None


def query_error(
    error: duckdb.Error,
    sql: str,
    *,
    shards: Iterable[ShardFile],
    columns: Iterable[str],
    cap_bytes: int,
) -> SennitError:
    """Return the Sennit error for a failed query.

    Args:
        error: DuckDB's exception.
        sql: The statement, to locate the error in it.
        shards: The files that the query reads: an error that names one of them means damage.
        columns: Columns of the datasets in the query, for suggestions.
        cap_bytes: The query's memory cap.
    """
    text = str(error)
    if isinstance(error, _OF_FILES):
        # Compared with known paths rather than parsed, as paths may contain anything.
        for shard in shards:
            if shard.path in text:
                return _unreadable_shard(shard, text)
    match error:
        case duckdb.OutOfMemoryException():
            return _out_of_memory(text, cap_bytes)
        case duckdb.PermissionException():
            return Denied("reading or changing something outside the datasets", needed="a dataset")
        case duckdb.IOException():
            return _input_output(text)
        case duckdb.InternalException() | duckdb.FatalException():
            return InternalError(f"the query engine failed: {_clean(text)}")
    if found := _COLUMN.search(text):
        return _unknown_column(found[1] or found[2], text, columns)
    if found := _TABLE.search(text):
        return NotFound(kind="dataset", name=found[1], suggestion=None)
    return _placed(text, sql)


def _unknown_column(name: str, text: str, columns: Iterable[str]) -> UnknownColumn:
    known = tuple(dict.fromkeys(columns))
    place = _LINE.search(text)
    where = f" (line {place[1]}, column {_column(place)})" if place else ""
    shown = f'there is no column "{name}"{where}'
    return UnknownColumn(name=name, known=known, suggestion=nearest(name, known), message=shown)


def _placed(text: str, sql: str) -> SqlError:
    place = _LINE.search(text)
    meant = _MEANT.search(text)
    hint = f'did you mean "{meant[1]}"?' if meant else None
    message = _clean(_MEANT_LINE.sub("", _LINE.split(text)[0]))
    if place is None:
        return SqlError(message, hint=hint)
    line, column = int(place[1]), _column(place)
    # Only LF: DuckDB counts lines so, and `splitlines` would also split at other characters.
    lines = sql.split("\n")
    shown = place[2]
    if shown.startswith(_ELLIPSIS) or shown.endswith(_ELLIPSIS):
        # DuckDB shows an excerpt of a long line; find its offset to compute the column.
        window = shown.removeprefix(_ELLIPSIS).removesuffix(_ELLIPSIS)
        start = lines[line - 1].find(window) if line <= len(lines) else -1
        cut = len(_ELLIPSIS) if shown.startswith(_ELLIPSIS) else 0
        column = max(1, start + column - cut) if start >= 0 else column
    offset = sum(len(each) + 1 for each in lines[: line - 1]) + column - 1
    return SqlError(message, line=line, column=column, offset=min(offset, len(sql)), hint=hint)


def _column(place: re.Match[str]) -> int:
    """Return the column of the caret under the line, in characters from 1."""
    # The caret is below the shown line, which begins after "LINE n: ".
    cells = len(place[3]) - len(f"LINE {place[1]}: ")
    column = 0
    for column, character in enumerate(place[2]):  # noqa: B007 - the last one counts
        if cells <= 0:
            break
        cells -= _cells(character)
    return column + 1


def _cells(character: str) -> int:
    """Return the character's width in terminal cells, by which DuckDB places its caret."""
    if unicodedata.combining(character):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def _out_of_memory(text: str, cap_bytes: int) -> SennitError:
    # DuckDB reports a full disk while it spills as a lack of memory.
    if "max_temp_directory_size" in text or "No space left" in text:
        return StorageFull(path="the query's temporary files")
    return MemoryCapExceeded(
        cap_bytes=cap_bytes,
        what="the query",
        hint="start the node with more --memory, use engine=emsqrt, which spills to disk, or let "
        "the query need less memory (fewer groups, no big sort, shorter rows)",
    )


def _input_output(text: str) -> SennitError:
    if "No space left" in text:
        return StorageFull(path="the query's temporary files")
    return Corrupt(what="a shard of the dataset", expected="a readable file", found=_clean(text))


def _unreadable_shard(shard: ShardFile, text: str) -> SennitError:
    """Return the error for a shard that changed or was removed after its verification."""
    part = "the file"
    return damaged_shard(
        shard.dataset, shard.index, Path(shard.path).name, part, "a readable file", _clean(text)
    )


def _clean(text: str) -> str:
    text = _SETTING_SENTENCE.sub("", _SETTING_CLAUSE.sub("", _KIND.sub("", text.strip())))
    return _PATH.sub("<file>", text).strip()
