"""What is known of a source before it is read: rows, bytes, and for each column its spread.

Parquet says it in its footer; of text a few pieces are read. The number of different values in all
rows comes from those in the pieces by the estimator GEE of Charikar et al. (PODS 2000): values seen
once stand for sqrt(rows / sampled) others each.
"""

from __future__ import annotations

import csv
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain as chained
from pathlib import Path
from typing import Any

from emsqrt.expr.literals import parse_spelling
from emsqrt.plan import Files, Scan
from emsqrt.plan.check import scan_schema
from sennit_core.errors import SennitError, Unsupported
from sennit_core.schema import DataType, Schema

PIECES = 8
PIECE_BYTES = 64 << 10
SMALL_PIECE_BYTES = 8 << 10
"""In a process under a cap: what Python makes of a sample is ten times as much."""
HISTOGRAM_BOUNDS = 33
ROWS_UNKNOWN = 1_000_000
_PACKED = 4
"""A compressed file is taken to hold so many times its bytes."""
_FIXED_BYTES = {"Bool": 1, "Int8": 1, "UInt8": 1, "Int16": 2, "UInt16": 2, "Decimal": 16}
_FOUR_BYTES = ("Int32", "UInt32", "Float32", "Date")
_VARIABLE = ("Utf8", "Binary", "List", "Struct")


@dataclass(frozen=True, slots=True)
class ColumnStats:
    """What is known of one column.

    Args:
        bytes: a value's mean size in a packed row.
        nulls: the share of NULLs, 0 to 1.
        distinct: how many different values there are; None when nobody knows.
        minimum: the smallest value, None when unknown.
        maximum: the largest value.
        histogram: bounds between which equally many of the sampled values lie, sorted.
    """

    bytes: float
    nulls: float = 0.0
    distinct: float | None = None
    minimum: Any = None
    maximum: Any = None
    histogram: tuple[Any, ...] = ()


@dataclass(frozen=True, slots=True)
class SourceStats:
    """What is known of one source.

    Args:
        rows: how many.
        bytes: of its files, as they are stored.
        columns: by name.
        exact: whether the number of rows is counted and not estimated.
    """

    rows: float
    bytes: int
    columns: Mapping[str, ColumnStats] = field(default_factory=dict)
    exact: bool = False


def typical_bytes(kind: DataType) -> float:
    """Return the size in a packed row that a value of this type is taken to have."""
    if kind.name in _VARIABLE:
        return 24.0
    return float(_FIXED_BYTES.get(kind.name, 4 if kind.name in _FOUR_BYTES else 8))


def measure_source(
    scan: Scan, folder: Path | None = None, piece_bytes: int = PIECE_BYTES
) -> SourceStats:
    """Look at the files of a scan, without reading them whole; guesses where it cannot.

    Args:
        scan: with its schema.
        folder: where relative paths start.
        piece_bytes: how much of a text file is looked at in one place.
    """
    schema = scan_schema(scan)
    if not isinstance(scan.source, Files):
        return unknown_source(schema)
    paths = [(folder or Path()) / path for path in scan.source.paths]
    if not paths or not all(path.is_file() for path in paths):
        return unknown_source(schema)
    size = sum(path.stat().st_size for path in paths)
    try:
        if scan.source.format == "parquet":
            return _measure_parquet(paths, size, schema)
        if scan.source.format == "csv":
            return _measure_csv(paths, size, schema, scan, piece_bytes)
    except (OSError, ValueError, SennitError):  # whoever opens it for reading will say why
        return unknown_source(schema, size)
    return unknown_source(schema, size)


def unknown_source(schema: Schema, size: int | None = None) -> SourceStats:
    """Return what is assumed of a source that cannot be looked at, but for its size perhaps."""
    columns = {column.name: ColumnStats(typical_bytes(column.type)) for column in schema}
    row = sum(stats.bytes for stats in columns.values()) or 1.0
    rows = ROWS_UNKNOWN if size is None else max(1.0, size / row)
    return SourceStats(rows, int(rows * row) if size is None else size, columns)


# Text ------------------------------------------------------------------------------------------


def _measure_csv(
    paths: Sequence[Path], size: int, schema: Schema, scan: Scan, piece_bytes: int
) -> SourceStats:
    assert isinstance(scan.source, Files)
    options = scan.source.options
    texts = list(
        chained.from_iterable(_pieces(path, len(paths), piece_bytes) for path in paths[:PIECES])
    )
    sampled = sum(len(text) for text in texts)
    rows = _records("\n".join(text.decode("utf-8", "replace") for text in texts), options)
    names = rows[0] if rows and options.get("header", True) else scan.schema.names  # type: ignore[union-attr]
    body = [row for row in rows if row != names and len(row) == len(names)]
    if not body:
        return unknown_source(schema, size)
    packed = any(path.suffix in (".gz", ".zst") for path in paths)
    count = max(1.0, size * (_PACKED if packed else 1) * len(body) / max(1, sampled))
    places = {name: place for place, name in enumerate(names)}
    columns = {
        column.name: _column_stats([row[places[column.name]] for row in body], column.type, count)
        for column in schema
        if column.name in places
    }
    exact = not packed and sampled >= size
    return SourceStats(float(len(body)) if exact else count, size, columns, exact)


def _pieces(path: Path, files: int, piece_bytes: int) -> Iterable[bytes]:
    """Yield whole lines from the begin of a file and from places spread over it."""
    if path.suffix in (".gz", ".zst"):
        return
    size, count = path.stat().st_size, max(1, PIECES // files)
    with path.open("rb") as file:
        if size <= count * piece_bytes:
            yield file.read().rstrip(b"\n")
            return
        for index in range(count):
            file.seek(index * (size - piece_bytes) // max(1, count - 1))
            text = file.read(piece_bytes)
            start = text.find(b"\n") + 1 if index else 0
            yield text[start : text.rfind(b"\n")]


def _records(text: str, options: Mapping[str, Any]) -> list[list[str]]:
    delimiter, quote = options.get("delimiter", ","), options.get("quote", '"')
    lines = text.splitlines()
    return list(csv.reader(lines, delimiter=delimiter, quotechar=quote or None))


def _column_stats(texts: Sequence[str], kind: DataType, rows: float) -> ColumnStats:
    given = [text for text in texts if text]
    values = _typed(given, kind)
    variable = kind.name in ("Utf8", "Binary")
    size = sum(map(len, texts)) / len(texts) + 4 if variable else typical_bytes(kind)
    nulls = 0.0 if kind.name == "Utf8" else 1 - len(given) / len(texts)
    if not values:
        return ColumnStats(size, nulls)
    distinct = guess_distinct(Counter(given), rows)
    return ColumnStats(size, nulls, distinct, values[0], values[-1], equal_parts(values))


def equal_parts(values: Sequence[Any], bounds: int = HISTOGRAM_BOUNDS) -> tuple[Any, ...]:
    """Return the bounds of parts in which equally many of the sorted values lie.

    (Piatetsky-Shapiro and Connell, "Accurate estimation of the number of tuples satisfying a
    condition", SIGMOD 1984.)
    """
    last = len(values) - 1
    count = min(bounds, len(values))
    return tuple(values[last * at // (count - 1)] for at in range(count)) if count > 1 else ()


def _typed(texts: Iterable[str], kind: DataType) -> list[Any]:
    """Return the texts as sorted values; those that are none are left out."""
    values = []
    for text in texts:
        try:
            value = parse_spelling(text, kind)
        except (SennitError, Unsupported):
            continue
        if not (isinstance(value, float) and math.isnan(value)):
            values.append(value)
    return sorted(values)


def guess_distinct(counts: Counter[str], rows: float) -> float:
    """Estimate the different values among `rows` from those of a sample (GEE)."""
    sampled = sum(counts.values())
    once = sum(1 for count in counts.values() if count == 1)
    factor = math.sqrt(max(1.0, rows / max(1, sampled)))
    return min(rows, (len(counts) - once) + once * factor)


# Parquet ---------------------------------------------------------------------------------------


def _measure_parquet(paths: Sequence[Path], size: int, schema: Schema) -> SourceStats:
    from pyarrow import parquet

    rows = 0
    chunks: dict[str, list[Any]] = {name: [] for name in schema.names}
    for path in paths:
        footer = parquet.read_metadata(path)
        rows += footer.num_rows
        for group in range(footer.num_row_groups):
            row_group = footer.row_group(group)
            for place in range(row_group.num_columns):
                chunk = row_group.column(place)
                name = chunk.path_in_schema.partition(".")[0]
                if name in chunks:
                    chunks[name].append(chunk)
    columns = {field.name: _chunk_stats(chunks[field.name], field.type, rows) for field in schema}
    return SourceStats(float(rows), size, columns, exact=True)


def _chunk_stats(chunks: Sequence[Any], kind: DataType, rows: int) -> ColumnStats:
    plain = sum(chunk.total_uncompressed_size for chunk in chunks)
    size = max(typical_bytes(kind), plain / max(1, rows))
    found = [chunk.statistics for chunk in chunks if chunk.statistics is not None]
    nulls = sum(stats.null_count or 0 for stats in found if stats.has_null_count)
    spread = [stats for stats in found if stats.has_min_max]
    if len(spread) < len(chunks) or not spread:
        return ColumnStats(size, nulls / max(1, rows))
    low, high = min(stats.min for stats in spread), max(stats.max for stats in spread)
    distinct = None
    if kind.is_integer:
        distinct = float(min(rows, high - low + 1))
    return ColumnStats(size, nulls / max(1, rows), distinct, low, high)
