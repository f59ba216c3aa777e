"""Sample rows of text files at positions spread over them, reading a bounded number of bytes."""

from __future__ import annotations

import json
import struct
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

from emsqrt._kernel import Columns, CsvParser, RecordFault
from emsqrt.expr.literals import make_literal
from emsqrt.io.csv_options import CsvOptions, read_header
from emsqrt.io.sources import ByteSource, open_source
from sennit_core.errors import SennitError
from sennit_core.schema import DataType, Schema

PIECES = 32
SAMPLE_BYTES = 512 << 10
SMALL_SAMPLE_BYTES = 64 << 10
"""Sample size in a process under a cap: a sample's Python objects are ten times as large."""
# Pieces begin and end in the middle of a record, which is lost: very small ones would have no whole
# one.
_PIECE_BYTES_MIN = 2 << 10
_PACKED = 4
"""Assumed compression ratio of a compressed file."""
_EPOCH_DAY = date(1970, 1, 1).toordinal()
_EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001 - a zone is put on where the type has one
_PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
_FORMATS = {1: "b", 2: "h", 3: "i", 4: "q", 5: "B", 6: "H", 7: "I", 8: "Q", 9: "f", 10: "d"}
_BOOL, _DECIMAL, _TEXT, _BYTES = 0, 11, 12, 13


@dataclass(frozen=True, slots=True)
class SampledRows:
    """Sampled rows of a source, in pieces.

    Args:
        pieces: for each position the columns' values by name, None for NULL; all of equal length.
        rows: in all pieces.
        bytes: how much was read for them.
        stored_bytes: of all the source's files, uncompressed where that is known.
        whole: whether these are all rows.
        text_bytes: total text length of columns whose values are not requested.
    """

    pieces: tuple[Mapping[str, Sequence[Any]], ...]
    rows: int
    bytes: int
    stored_bytes: int
    whole: bool = False
    text_bytes: Mapping[str, int] = field(default_factory=dict)

    def values(self, name: str) -> list[Any]:
        """Return a column's values that are not NULL."""
        return [value for piece in self.pieces for value in piece[name] if value is not None]


def sample_text(
    paths: Sequence[Path],
    kind: str,
    options: Mapping[str, Any],
    schema: Schema,
    sample_bytes: int = SAMPLE_BYTES,
    names: Collection[str] | None = None,
) -> SampledRows:
    """Read pieces of text files, at equal distances as if the files were one.

    Args:
        paths: the files.
        kind: "csv" or "jsonl".
        options: the format options, as in a plan.
        schema: the columns to read.
        sample_bytes: how much to read.
        names: the columns whose values are needed; of other texts only the length is computed. All
            when None.
    """
    wanted = schema.names if names is None else [name for name in schema.names if name in names]
    sources = [open_source(path) for path in paths]
    read = _read_csv if kind == "csv" else _read_jsonl
    sizes = [(s.stored_bytes or 0) * (_PACKED if s.codec else 1) for s in sources]
    pieces, texts = list[_Piece](), Counter[str]()
    for source, offset, size in _places(sources, sizes, sample_bytes):
        piece = read(source, offset, size, options, _Wanted(schema, wanted))
        texts.update(piece.text_bytes)
        pieces.append(piece)
    whole = sum(sizes) <= sample_bytes and not any(source.codec for source in sources)
    return SampledRows(
        tuple(piece.values for piece in pieces if piece.rows),
        sum(piece.rows for piece in pieces),
        sum(piece.bytes for piece in pieces),
        sum(sizes),
        whole,
        texts,
    )


def _places(
    sources: Sequence[ByteSource], sizes: Sequence[int], sample_bytes: int
) -> Iterator[tuple[ByteSource, int, int]]:
    """Yield source, offset and size of each piece; of a compressed file only its beginning."""
    total = sum(sizes)
    if total <= sample_bytes:
        yield from ((source, 0, size) for source, size in zip(sources, sizes, strict=True))
        return
    # Pieces at equal distances from the start to the end, as if all files were one:
    #
    #     ▓▓░░░░░░░▓▓░░░░░░░▓▓░░░░░░░▓▓░░░░░░░▓▓
    size = max(_PIECE_BYTES_MIN, sample_bytes // PIECES)
    count = max(1, min(PIECES, sample_bytes // size))
    begun: set[int] = set()
    for piece in range(count):
        offset, at = (total - size) * piece // max(1, count - 1), 0
        while offset >= sizes[at] and at < len(sizes) - 1:
            offset, at = offset - sizes[at], at + 1
        if sources[at].codec is None:
            yield sources[at], max(0, min(offset, sizes[at] - size)), size
        # A compressed file can be read only from its start: one piece, as large as all of its
        # pieces would be.
        elif at not in begun:
            begun.add(at)
            yield sources[at], 0, size * max(1, count * sizes[at] // total)


class _Wanted(NamedTuple):
    """Columns of a source, and the names of those whose values are needed."""

    schema: Schema
    names: Sequence[str]

    @property
    def texts(self) -> list[str]:
        """The names of the other columns of variable length."""
        return [
            each.name
            for each in self.schema
            if each.name not in self.names and each.type.name in ("Utf8", "Binary")
        ]


class _Piece(NamedTuple):
    """The records that were read at one position."""

    values: Mapping[str, Sequence[Any]]
    rows: int
    bytes: int
    text_bytes: Mapping[str, int]


def _bytes_at(source: ByteSource, offset: int, size: int) -> bytes:
    return source.peek(size) if source.codec else source.read_at(offset, size)


def _read_csv(
    source: ByteSource, offset: int, size: int, format_options: Mapping[str, Any], wanted: _Wanted
) -> _Piece:
    """Parse the whole records of a piece; skip those that the kernel cannot read."""
    options = CsvOptions.from_json(format_options)
    source = options.decoded(source)
    names, first = read_header(source, options)
    if not offset:
        data, used = _bytes_at(source, 0, first + size)[first:], first + size
    else:
        data, used = _bytes_at(source, offset, size), size
        data = data[data.find(b"\n") + 1 :]
    ended = offset + used >= (source.plain_bytes or 0) and source.codec is None
    data = data if ended else data[: data.rfind(b"\n") + 1]
    texts = wanted.texts
    fields = [wanted.schema.field(name) for name in (*wanted.names, *texts)]
    fields = fields or [wanted.schema.fields[0]]
    memory = bytearray(4 * len(data) + (64 << 10) + 64 * len(fields))
    places = {name: place for place, name in enumerate(names)}
    columns = [(places[field.name], str(field.type)) for field in fields]
    parser = CsvParser(
        memory,
        field_count=len(names),
        columns=columns,
        delimiter=options.delimiter,
        quote=options.quote,
        null_values=options.null_values,
        on_error="skip",
    )
    made: dict[str, list[Any]] = {name: [] for name in wanted.names}
    text_bytes, count, start = Counter[str](), 0, 0
    try:
        while start < len(data):
            rows, start = parser.parse(data, start)
            count += len(rows)
            for at, name in enumerate(wanted.names):
                made[name] += values_of(rows, at, fields[at].type, memory)
            for at, name in enumerate(texts, len(wanted.names)):
                text_bytes[name] += _text_bytes(rows, at, memory)
    except RecordFault:  # a record alone is longer than the memory
        pass
    finally:
        parser.release()
    used = min(used, offset + len(data)) if ended else len(data)
    return _Piece(made, count, used, text_bytes)


def _read_jsonl(
    source: ByteSource, offset: int, size: int, _: Mapping[str, Any], wanted: _Wanted
) -> _Piece:
    data = _bytes_at(source, offset, size)
    if offset:
        data = data[data.find(b"\n") + 1 :]
    if offset + size < (source.plain_bytes or 0) or source.codec:
        data = data[: data.rfind(b"\n") + 1]
    fields = [wanted.schema.field(name) for name in wanted.names]
    made: dict[str, list[Any]] = {name: [] for name in wanted.names}
    texts, text_bytes, count = wanted.texts, Counter[str](), 0
    for line in data.splitlines():
        try:
            record = json.loads(line)
        except ValueError:
            continue
        if isinstance(record, dict):
            count += 1
            for each in fields:
                made[each.name].append(_member(record.get(each.name), each.type))
            for name in texts:
                text = record.get(name)
                text_bytes[name] += len(text) if isinstance(text, str) else 0
    return _Piece(made, count, len(data), text_bytes)


def _member(value: Any, kind: DataType) -> Any:
    """Return a JSON value as its column's type; as text if it has another type or no order."""
    try:
        return make_literal(value, kind).value
    except SennitError:
        return None if kind.name in ("List", "Struct") else json.dumps(value)


def values_of(columns: Columns, at: int, kind: DataType, memory: bytearray) -> list[Any]:
    """Return the Python values of one of the kernel's columns.

    Args:
        columns: the batch.
        at: which column.
        kind: its type.
        memory: the memory that contains the columns.
    """
    count = len(columns)
    if not count:
        return []
    code, offset, validity, values, ends = columns.addresses(at)
    base = _base(memory)
    end = offset + count
    plain = _plain_values(code, memory, values - base, ends - base, end)[offset:]
    # Arrow's layout: a bit per row, 1 for a value.
    if validity:
        bits = validity - base
        plain = [
            value if memory[bits + row // 8] >> row % 8 & 1 else None
            for row, value in enumerate(plain, offset)
        ]
    convert = _converter(kind)
    return plain if convert is None else [None if v is None else convert(v) for v in plain]


def _text_bytes(columns: Columns, at: int, memory: bytearray) -> int:
    """Return the total length of a column's texts."""
    count = len(columns)
    if not count:
        return 0
    _, offset, _, _, ends = columns.addresses(at)
    start = ends - _base(memory)
    first, last = (
        struct.unpack_from("=i", memory, start + 4 * n)[0] for n in (offset, offset + count)
    )
    return int(last - first)


def _base(memory: bytearray) -> int:
    # The address of the bytearray itself, from which the kernel's addresses are offsets.
    return Columns(1, [(1, 0, None, memory, None)]).addresses(0)[3]


def _plain_values(code: int, memory: bytearray, start: int, ends: int, count: int) -> list[Any]:
    if code in (_TEXT, _BYTES):
        places = struct.unpack_from(f"={count + 1}i", memory, ends)
        parts = [bytes(memory[start + one : start + other]) for one, other in pairwise(places)]
        return [part.decode() for part in parts] if code == _TEXT else list(parts)
    if code == _BOOL:
        return [bool(memory[start + row // 8] >> row % 8 & 1) for row in range(count)]
    if code == _DECIMAL:
        cells = range(start, start + 16 * count, 16)
        return [int.from_bytes(memory[at : at + 16], "little", signed=True) for at in cells]
    return list(struct.unpack_from(f"={count}{_FORMATS[code]}", memory, start))


def _converter(kind: DataType) -> Any:
    match kind.name:
        case "Decimal":
            return lambda value: Decimal(value).scaleb(-(kind.scale or 0))
        case "Date":
            return lambda value: date.fromordinal(_EPOCH_DAY + value)
        case "Timestamp":
            zone, per_second = UTC if kind.zone else None, _PER_SECOND[kind.unit or "us"]
            return lambda value: (_EPOCH + _delta(value, per_second)).replace(tzinfo=zone)
        case "Time":
            return lambda value: (_EPOCH + _delta(value, 10**6)).time()
        case "Duration":
            return lambda value: _delta(value, _PER_SECOND[kind.unit or "us"])
    return None


def _delta(value: int, per_second: int) -> timedelta:
    return timedelta(microseconds=value * 10**6 // per_second)
