"""Infer the types of a CSV file's columns from its first records.

Each column gets the first type of `CANDIDATES` that holds every value of the sample. Text that is
not UTF-8 is refused, because its encoding is unknown. Whole numbers beyond 64 bits are decimals: as
floats, different numbers could become equal. Numbers with leading zeros are text, because they are
codes: as a number, the postal code 02134 would lose its zero.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from emsqrt._kernel import Columns, CsvFormatter, CsvParser, RecordFault, csv_record_end
from emsqrt.io.csv_options import CsvOptions
from sennit_core.schema import DataType, Field, Schema

if TYPE_CHECKING:
    from typing_extensions import Buffer

CANDIDATES = (
    "Int64",
    "UInt64",
    "Bool",
    "Date",
    "Time",
    "Timestamp(s)",
    "Timestamp(s,UTC)",
    "Timestamp(us)",
    "Timestamp(us,UTC)",
    "Timestamp(ns)",
    "Timestamp(ns,UTC)",
    "Float64",
    "Utf8",
)
_SCRATCH_BYTES = 1 << 18
_ROOM_BYTES = 1 << 16
_LARGE = re.compile(rb"[0-9]{16}")
_TOO_LARGE = re.compile(rb"[0-9]{39}")
_NOT_WHOLE = re.compile(rb"[^0-9+\s\"-]")
_CODE = re.compile(rb'^"?[ \t]*[+-]?0[0-9]', re.MULTILINE)


def infer_columns(names: Sequence[str], sample: Buffer, options: CsvOptions) -> Schema:
    """Return the columns with the types inferred from a sample; all are nullable.

    Args:
        names: the columns, in the order of the fields.
        sample: whole records, without the header.
        options: the format of the records.

    Returns:
        The schema; a column without any value in the sample is Utf8.

    Raises:
        RecordFault: a record has another number of fields than there are names, or is not UTF-8.
    """
    if options.bad_rows != "fail":  # the reader rejects text that is not UTF-8, or sets it to NULL
        sample = bytes(sample).decode(errors="replace").encode()
    if options.bad_rows == "reject":
        sample = _without_ragged(len(names), sample, options)
    tried = [0] * len(names)
    while (wrong := _first_misfit(tried, sample, options)) is not None:
        tried[wrong] += 1
    types = [CANDIDATES[candidate] for candidate in tried]
    empty, unusual = _survey(tried, sample, options)
    for at, found in _whole_numbers(tried, sample, options).items():
        types[at] = "Utf8" if _TOO_LARGE in found else "Decimal(38,0)"
    for at in empty | _codes(unusual, len(tried), sample, options):
        types[at] = "Utf8"
    return Schema(
        tuple(Field(name, DataType.parse(kind)) for name, kind in zip(names, types, strict=True))
    )


def _without_ragged(count: int, sample: Buffer, options: CsvOptions) -> bytes:
    """Return the records that have as many fields as there are columns."""
    text = [CANDIDATES.index("Utf8")] * count
    kept, start = bytearray(), 0
    with memoryview(sample) as records:
        while start < len(records):
            try:
                for _ in _parsed(text, records[start:], options):
                    pass
                end = after = len(records)
            except RecordFault as fault:
                if fault.reason != "ragged":
                    return bytes(records)
                end = start + fault.offset
                mark = -1 if options.quote is None else ord(options.quote)
                size, delimiter = len(records), ord(options.delimiter)
                after = csv_record_end(records, end, size, delimiter, mark) or size
            kept += records[start:end]
            start = after
    return bytes(kept)


def _whole_numbers(
    tried: Sequence[int], sample: Buffer, options: CsvOptions
) -> dict[int, set[re.Pattern[bytes]]]:
    """Return the float columns of whole numbers of which some are not exact as floats."""
    number = CANDIDATES.index("Float64")
    looked_at = {at: set[re.Pattern[bytes]]() for at, one in enumerate(tried) if one == number}
    if not looked_at or not _LARGE.search(sample):
        return {}
    for at, texts in _texts(looked_at, len(tried), sample, options):
        # A value longer than the buffer is not a number of 38 digits.
        patterns = (_LARGE, _TOO_LARGE, _NOT_WHOLE)
        looked_at[at] |= {p for p in patterns if p.search(texts)} if texts else {_NOT_WHOLE}
    return {
        at: found for at, found in looked_at.items() if _LARGE in found and _NOT_WHOLE not in found
    }


def _survey(tried: Sequence[int], sample: Buffer, options: CsvOptions) -> tuple[set[int], set[int]]:
    """Return the columns without any value, and those with a number in an unusual spelling.

    The kernel's exact spelling has no leading zeros, but some other spellings are unusual to it
    too: only these few columns need to be searched for codes.
    """
    spelled, unusual = list(tried), set[int]()
    while True:
        empty = set(range(len(tried)))
        try:
            for columns in _parsed(spelled, sample, options, exact=True):
                empty = {at for at in empty if columns.null_count(at) == len(columns)}
        except RecordFault as fault:
            spelled[fault.field] = CANDIDATES.index("Utf8")
            unusual.add(fault.field)
        else:
            return empty, unusual


def _codes(wanted: set[int], count: int, sample: Buffer, options: CsvOptions) -> set[int]:
    """Return those of the wanted columns in which a number has leading zeros."""
    texts = _texts(wanted, count, sample, options) if wanted else ()
    return {at for at, lines in texts if _CODE.search(lines)}


def _texts(
    wanted: Iterable[int], count: int, sample: Buffer, options: CsvOptions
) -> Iterator[tuple[int, memoryview]]:
    """Yield (column, some of its values as lines); the lines are empty where a value is too long.

    Args:
        wanted: the columns.
        count: fields of each record.
        sample: whole records.
        options: the format of the records.
    """
    room, formatter = memoryview(bytearray(_ROOM_BYTES)), CsvFormatter(["Utf8"])
    for columns in _parsed([CANDIDATES.index("Utf8")] * count, sample, options):
        for at in wanted:
            column, row, used_bytes = columns.select([at]), 0, 1
            while row < len(columns) and used_bytes:
                row, used_bytes = formatter.format(column, row, room)
                yield at, room[:used_bytes]


def _first_misfit(tried: Sequence[int], sample: Buffer, options: CsvOptions) -> int | None:
    """Return the first column whose type does not fit the sample, None if all fit."""
    try:
        for _ in _parsed(tried, sample, options):
            pass
    except RecordFault as fault:
        if fault.reason == "ragged" or tried[fault.field] + 1 == len(CANDIDATES):
            raise
        return fault.field
    return None


def _parsed(
    tried: Sequence[int], sample: Buffer, options: CsvOptions, *, exact: bool = False
) -> Iterator[Columns]:
    with memoryview(sample) as records:
        parser = _parser(tried, _SCRATCH_BYTES, options, exact)
        start, is_large = 0, False
        while start < len(records):
            try:
                columns, start = parser.parse(records, start)
            except RecordFault as fault:
                if is_large or fault.reason != "room":
                    raise
                parser = _parser(tried, max(_SCRATCH_BYTES, 2 * len(records)), options, exact)
                is_large = True
                continue
            yield columns
            parser.release()


def _parser(
    tried: Sequence[int], scratch_bytes: int, options: CsvOptions, exact: bool
) -> CsvParser:
    return CsvParser(
        bytearray(scratch_bytes),
        field_count=len(tried),
        columns=[(at, CANDIDATES[candidate]) for at, candidate in enumerate(tried)],
        delimiter=options.delimiter,
        quote=options.quote,
        null_values=options.null_values,
        exact=exact,
    )
