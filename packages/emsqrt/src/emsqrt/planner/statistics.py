"""Statistics of a source before it is read: rows, bytes, and the distribution of each column.

Parquet files have most of it in their footers; text files are sampled.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from emsqrt.plan import Files, Scan
from emsqrt.plan.check import scan_schema
from emsqrt.planner.distinct import guess_distinct
from emsqrt.planner.sampling import SAMPLE_BYTES, SampledRows, sample_text
from sennit_core.errors import SennitError
from sennit_core.schema import DataType, Schema

# 32 parts.
HISTOGRAM_BOUNDS = 33
ROWS_UNKNOWN = 1_000_000
_FIXED_BYTES = {"Bool": 1, "Int8": 1, "UInt8": 1, "Int16": 2, "UInt16": 2, "Decimal": 16}
_FOUR_BYTES = ("Int32", "UInt32", "Float32", "Date")
_VARIABLE = ("Utf8", "Binary", "List", "Struct")


@dataclass(frozen=True, slots=True)
class ColumnStats:
    """Statistics of one column.

    Args:
        bytes: a value's mean size in a packed row.
        nulls: the share of NULLs, 0 to 1.
        distinct: the number of distinct values; None when unknown.
        minimum: the smallest value, None when unknown.
        maximum: the largest value.
        histogram: sorted bounds between which there are equally many sampled values.
        sampled: the sampled rows, and the column's name among them: columns that were sampled
            together lead to the number of distinct combinations.
    """

    bytes: float
    nulls: float = 0.0
    distinct: float | None = None
    minimum: Any = None
    maximum: Any = None
    histogram: tuple[Any, ...] = ()
    sampled: tuple[SampledRows, str] | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class SourceStats:
    """Statistics of one source.

    Args:
        rows: their number.
        bytes: stored size of its files.
        columns: by name.
        exact: whether the number of rows was counted, not estimated.
    """

    rows: float
    bytes: int
    columns: Mapping[str, ColumnStats] = field(default_factory=dict)
    exact: bool = False


def typical_bytes(kind: DataType) -> float:
    """Return the assumed size in a packed row of a value of this type."""
    if kind.name in _VARIABLE:
        return 24.0
    return float(_FIXED_BYTES.get(kind.name, 4 if kind.name in _FOUR_BYTES else 8))


def measure_source(
    scan: Scan,
    folder: Path | None = None,
    sample_bytes: int = SAMPLE_BYTES,
    names: Collection[str] | None = None,
) -> SourceStats:
    """Estimate a scan's statistics without reading its files whole; guess where that fails.

    Args:
        scan: with its schema.
        folder: base of relative paths.
        sample_bytes: how much of text files to read.
        names: of the text columns whose values matter; of others only the size. All when None.
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
            from emsqrt.planner.footers import measure_parquet

            return measure_parquet(paths, size, schema)
        if scan.source.format in ("csv", "jsonl"):
            source = scan.source
            sample = sample_text(paths, source.format, source.options, schema, sample_bytes, names)
            return _of_sample(sample, size, schema)
    except (OSError, ValueError, OverflowError, SennitError):  # opening the source will report it
        return unknown_source(schema, size)
    return unknown_source(schema, size)


def unknown_source(schema: Schema, size: int | None = None) -> SourceStats:
    """Return the assumed statistics of a source that cannot be read; its size may be known."""
    columns = {column.name: ColumnStats(typical_bytes(column.type)) for column in schema}
    row = sum(stats.bytes for stats in columns.values()) or 1.0
    rows = ROWS_UNKNOWN if size is None else max(1.0, size / row)
    return SourceStats(rows, int(rows * row) if size is None else size, columns)


def _of_sample(sample: SampledRows, size: int, schema: Schema) -> SourceStats:
    seen = sample.rows
    if not seen:
        return unknown_source(schema, size)
    # The sample's rows per byte, times all bytes.
    rows = float(seen if sample.whole else sample.stored_bytes * seen / sample.bytes)
    columns = {each.name: _column_stats(sample, each.name, each.type, rows) for each in schema}
    return SourceStats(rows, size, columns, sample.whole)


def _column_stats(sample: SampledRows, name: str, kind: DataType, rows: float) -> ColumnStats:
    size, seen = typical_bytes(kind), sample.rows
    # A text whose values no estimate needs: only its mean length was sampled, and four bytes of
    # offset.
    if name in sample.text_bytes:
        size = 4 + sample.text_bytes[name] / seen
    if name not in sample.pieces[0]:
        return ColumnStats(size)
    values = sample.values(name)
    if kind.name in ("Utf8", "Binary"):
        size = 4 + sum(map(len, values)) / seen
    nulls = 1 - len(values) / seen
    # All sampled values are NULL, or cannot be compared.
    if not values or kind.name in ("List", "Struct"):
        return ColumnStats(size, nulls, 0.0 if not values else None)
    pieces = [[v for v in piece[name] if v is not None] for piece in sample.pieces]
    distinct = guess_distinct(pieces, rows * (1 - nulls))
    ordered = sorted(value for value in values if _has_place(value, kind))
    least, most = (ordered[0], ordered[-1]) if ordered else (None, None)
    spread = equal_parts(ordered)
    return ColumnStats(size, nulls, distinct, least, most, spread, (sample, name))


def _has_place(value: Any, kind: DataType) -> bool:
    """Return whether a value can be ordered: no NaN, no text in place of an invalid value."""
    return value == value and (kind.name == "Utf8" or not isinstance(value, str))


def joint_distinct(columns: Sequence[ColumnStats], rows: float) -> float | None:
    """Estimate the number of distinct combinations of columns of one source.

    Args:
        columns: two or more.
        rows: of the source, or those left of them.

    Returns:
        None where they were not sampled together.
    """
    known = [stats.sampled for stats in columns if stats.sampled is not None]
    # Only columns of the same sample have their values row by row.
    if len(known) < len(columns) or any(sample is not known[0][0] for sample, _ in known):
        return None
    names = [name for _, name in known]
    pieces: list[list[Hashable]] = [
        list(zip(*(piece[name] for name in names), strict=True)) for piece in known[0][0].pieces
    ]
    return guess_distinct(pieces, rows)


def equal_parts(values: Sequence[Any], bounds: int = HISTOGRAM_BOUNDS) -> tuple[Any, ...]:
    """Return the bounds of parts with equally many of the sorted values.

    (Piatetsky-Shapiro and Connell, "Accurate estimation of the number of tuples satisfying a
    condition", SIGMOD 1984.)
    """
    last = len(values) - 1
    count = min(bounds, len(values))
    return tuple(values[last * at // (count - 1)] for at in range(count)) if count > 1 else ()
