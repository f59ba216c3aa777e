"""The types of a CSV file's columns, as its first records suggest them.

Each column takes the first of `CANDIDATES` that holds every value of the sample. The order is the
one of Arrow's CSV reader, so both tiers of the engine read a file alike.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from emsqrt._kernel import Columns, CsvParser, RecordFault
from emsqrt.io.csv_options import CsvOptions
from sennit_core.schema import DataType, Field, Schema

if TYPE_CHECKING:
    from typing_extensions import Buffer

CANDIDATES = (
    "Int64",
    "Bool",
    "Date",
    "Time",
    "Timestamp(s)",
    "Timestamp(s,UTC)",
    "Timestamp(ns)",
    "Timestamp(ns,UTC)",
    "Float64",
    "Utf8",
    "Binary",
)
_SCRATCH_BYTES = 1 << 18


def infer_columns(names: Sequence[str], sample: Buffer, options: CsvOptions) -> Schema:
    """Return the columns with the types that a sample suggests; all may be NULL.

    Args:
        names: the columns, in the order of the fields.
        sample: whole records, without the header.
        options: how they are written.

    Returns:
        The schema; a column without any value in the sample is Utf8.

    Raises:
        RecordFault: a record has another number of fields than there are names.
    """
    tried = [0] * len(names)
    while (wrong := _first_misfit(tried, sample, options)) is not None:
        tried[wrong] += 1
    empty = _columns_without_values(tried, sample, options)
    return Schema(
        tuple(
            Field(name, DataType.parse("Utf8" if at in empty else CANDIDATES[tried[at]]))
            for at, name in enumerate(names)
        )
    )


def _first_misfit(tried: Sequence[int], sample: Buffer, options: CsvOptions) -> int | None:
    """Return the first column whose type does not hold the sample, None when all do."""
    try:
        for _ in _parsed(tried, sample, options):
            pass
    except RecordFault as fault:
        if fault.reason == "ragged" or tried[fault.field] + 1 == len(CANDIDATES):
            raise
        return fault.field
    return None


def _columns_without_values(
    tried: Sequence[int], sample: Buffer, options: CsvOptions
) -> frozenset[int]:
    empty = set(range(len(tried)))
    for columns in _parsed(tried, sample, options):
        empty = {at for at in empty if columns.null_count(at) == len(columns)}
    return frozenset(empty)


def _parsed(tried: Sequence[int], sample: Buffer, options: CsvOptions) -> Iterator[Columns]:
    with memoryview(sample) as records:
        parser = _parser(tried, _SCRATCH_BYTES, options)
        start, is_large = 0, False
        while start < len(records):
            try:
                columns, start = parser.parse(records, start)
            except RecordFault as fault:
                if is_large or fault.reason != "room":
                    raise
                parser = _parser(tried, max(_SCRATCH_BYTES, 2 * len(records)), options)
                is_large = True
                continue
            yield columns
            parser.release()


def _parser(tried: Sequence[int], scratch_bytes: int, options: CsvOptions) -> CsvParser:
    return CsvParser(
        bytearray(scratch_bytes),
        field_count=len(tried),
        columns=[(at, CANDIDATES[candidate]) for at, candidate in enumerate(tried)],
        delimiter=options.delimiter,
        quote=options.quote,
        null_values=options.null_values,
    )
