"""A Parquet footer, looked through before Arrow sees it.

Arrow's C++ ends the process where what a footer says of a column contradicts itself or its schema:
that is told when the column's facts are asked for, where nobody can catch it. So these are compared
here, by the rules of parquet.thrift and those that Arrow checks.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from hashlib import blake2b
from typing import NamedTuple

from emsqrt.io.sources import ByteSource
from emsqrt.io.thrift import BINARY, I16, I32, I64, LIST, STRUCT, CompactReader, Fields, Shape
from sennit_core.errors import BadInput

MAGIC = b"PAR1"
_ENCRYPTED = b"PARE"
_TAIL_BYTES = len(MAGIC) + 4
_SCHEMA, _ROWS, _ROW_GROUPS = 2, 3, 4
_CHUNK_SIZES = 16
"""`ColumnMetaData.size_statistics`."""


def _of(**numbers: Iterable[int]) -> dict[int, tuple[int, Shape | None]]:
    kinds = {"i16": I16, "i32": I32, "i64": I64, "binary": BINARY, "list": LIST, "struct": STRUCT}
    return {each: (kinds[kind], None) for kind, fields in numbers.items() for each in fields}


_ELEMENT = _of(i32=(1, 2, 3, 5, 6, 7, 8, 9), binary=(4,), struct=(10,))
_STATISTICS = _of(binary=(1, 2, 5, 6), i64=(3, 4))
_SIZES = _of(i64=(1,), list=(2, 3))
_CHUNK = _of(i32=(1, 4, 15), list=(2, 3, 8, 13), i64=(5, 6, 7, 9, 10, 11, 14))
_CHUNK |= {12: (STRUCT, _STATISTICS), 16: (STRUCT, _SIZES)}
_COLUMN = _of(binary=(1, 9), i64=(2, 4, 6), i32=(5, 7), struct=(8,)) | {3: (STRUCT, _CHUNK)}
_GROUP = _of(i64=(2, 3, 5, 6), list=(4,), i16=(7,)) | {1: (LIST, _COLUMN)}
_FILE = _of(i32=(1,), i64=(3,), binary=(6, 9), list=(5, 7), struct=(8,))
_FILE |= {_SCHEMA: (LIST, _ELEMENT), _ROW_GROUPS: (LIST, _GROUP)}
"""`FileMetaData` and the structs in it, as parquet.thrift has them."""
_WIDTHS = {0: 1, 1: 4, 2: 8, 3: 12, 4: 4, 5: 8}
"""Of the physical types that have one: BOOLEAN, INT32, INT64, INT96, FLOAT, DOUBLE."""
_TEXT, _FIXED = 6, 7
_TYPES = range(8)
_REQUIRED, _OPTIONAL, _REPEATED = _REPETITIONS = range(3)
_CODECS = range(8)
_ENCRYPTION = {8, 9}
"""`ColumnChunk.crypto_metadata`, and what it hides."""
_EXTREMES = (1, 2, 5, 6)
"""max, min, max_value and min_value of `Statistics`."""


_sound: set[tuple[bytes, int]] = set()
"""Footers that were looked through: a run opens a file more than once."""
_SOUND_MAX = 1024


def read_footer(source: ByteSource) -> bytes:
    """Return a file's footer with its length and magic behind it, once it is known to be sound.

    Raises:
        BadInput: it is no Parquet file, encrypted, or damaged; says how.
    """
    size = source.stored_bytes or 0
    with source.open_ranges() as read_at:
        if read_at(0, 4) == _ENCRYPTED:
            raise BadInput(
                source.name,
                reason="this Parquet file is encrypted",
                hint="write it without encryption, or decrypt it first",
            )
        tail = read_at(max(0, size - _TAIL_BYTES), _TAIL_BYTES)
        if size < len(MAGIC) + _TAIL_BYTES or not tail.endswith(MAGIC):
            reason = "this is not a Parquet file: it does not end in PAR1"
            raise BadInput(source.name, byte_offset=max(0, size - len(MAGIC)), reason=reason)
        footer_bytes = int.from_bytes(tail[:4], "little")
        start = size - _TAIL_BYTES - footer_bytes
        if start < len(MAGIC):
            reason = f"this is not a Parquet file: its footer would have {footer_bytes} bytes"
            raise BadInput(source.name, byte_offset=size - _TAIL_BYTES, reason=reason)
        footer = read_at(start, footer_bytes)
    known = blake2b(footer, digest_size=16).digest(), start
    if known in _sound:
        return footer + tail
    try:
        _check(footer, start)
    except (IndexError, KeyError, TypeError, AttributeError, ValueError) as error:
        told = str(error) if isinstance(error, ValueError) else "it cannot be parsed"
        reason = f"the Parquet footer is damaged: {told}"
        raise BadInput(source.name, byte_offset=start, reason=reason) from error
    if len(_sound) >= _SOUND_MAX:
        _sound.clear()
    _sound.add(known)
    return footer + tail


def text_sizes(footer: bytes) -> dict[tuple[int, str], int]:
    """Return the bytes of all texts of column chunks that tell it, by row group and path.

    Args:
        footer: as `read_footer` gives it.
    """
    reader = CompactReader(footer)
    found: dict[tuple[int, str], int] = {}
    for number, kind in reader.fields():
        if number != _ROW_GROUPS:
            reader.read(kind)
            continue
        item, count = reader.list_head()
        for group in range(count):
            for column in reader.read(item, _GROUP)[1]:
                size = column[3].get(_CHUNK_SIZES, {}).get(1)
                if size is not None:
                    found[group, b".".join(column[3][3]).decode()] = size
    return found


class _Leaf(NamedTuple):
    """A column as the schema has it."""

    path: list[bytes]
    kind: int
    width: int
    repetition: int
    definition: int


def _check(footer: bytes, end: int) -> None:
    """Look a footer through.

    Args:
        footer: `FileMetaData`.
        end: where its columns' pages end at the latest.
    """
    reader = CompactReader(footer)
    leaves: list[_Leaf] = []
    rows = rows_in_groups = 0
    for number, kind in reader.fields():
        wanted, shape = _FILE.get(number, (kind, None))
        if kind != wanted:
            raise ValueError(f"field {number} has kind {kind}")
        if shape is None:
            value = reader.read(kind)
            rows = value if number == _ROWS else rows
            continue
        item, count = reader.list_head()
        if item != STRUCT:
            raise ValueError("a list of structs has none")
        if number == _SCHEMA:
            leaves = list(_leaves([reader.read(item, shape) for _ in range(count)]))
            continue
        for group in range(count):
            rows_in_groups += _check_group(group, reader.read(item, shape), leaves, end)
    if rows != rows_in_groups:
        raise ValueError(f"there are {rows} rows, and {rows_in_groups} in its row groups")


def _leaves(elements: list[Fields]) -> Iterator[_Leaf]:
    """Yield the columns of a schema, whose tree lies flat, each group before its children."""
    above = [(elements[0].get(5, 0), 0, 0)]
    """(children to come, repetition, definition) of the groups that are open, the root first."""
    names: list[bytes] = []
    for element in elements[1:]:
        while not above[-1][0]:
            above.pop()
            names.pop()
        left, repetition, definition = above[-1]
        above[-1] = left - 1, repetition, definition
        kind = element.get(3, _REQUIRED)
        if kind not in _REPETITIONS:
            raise ValueError(f"column {element[4].decode()} repeats in way {kind}")
        repetition += kind == _REPEATED
        definition += kind != _REQUIRED
        name = element[4]
        name.decode()  # whoever asks for it could not be told otherwise
        children = element.get(5, 0)
        if children < 0:
            raise ValueError(f"group {name.decode()} has {children} columns")
        if children or 1 not in element:
            above.append((children, repetition, definition))
            names.append(name)
            continue
        if element[1] not in _TYPES:
            raise ValueError(f"column {name.decode()} has type {element[1]}")
        width = element.get(2, 0) if element[1] == _FIXED else _WIDTHS.get(element[1], 0)
        yield _Leaf([*names, name], element[1], width, repetition, definition)
    if any(left for left, _, _ in above):
        raise ValueError("the schema ends too early")


def _check_group(number: int, group: Fields, leaves: list[_Leaf], end: int) -> int:
    """Return how many rows a row group has."""
    columns, rows = group[1], group[3]
    if len(columns) != len(leaves):
        raise ValueError(f"row group {number} has {len(columns)} columns of {len(leaves)}")
    if rows < 0:
        raise ValueError(f"row group {number} has {rows} rows")
    for column, leaf in zip(columns, leaves, strict=True):
        wrong = _wrong(column, leaf, rows, end)
        if wrong:
            name = b".".join(leaf.path).decode()
            raise ValueError(f"row group {number}, column {name}: {wrong}")
    return int(rows)


def _wrong(column: Fields, leaf: _Leaf, rows: int, end: int) -> str | None:
    """Return what is wrong with a column in a row group; without rows, offsets mean nothing."""
    if _ENCRYPTION.intersection(column):
        return "it is encrypted"
    facts = column[3]
    if facts[1] != leaf.kind or facts[3] != leaf.path:
        return "it is another one in the schema"
    if facts[4] not in _CODECS:
        return f"compression {facts[4]} is not known"
    values, plain, stored, first = facts[5], facts[6], facts[7], facts[9]
    if min(values, plain, stored) < 0:
        return f"it has {values} values in {stored} bytes, {plain} decompressed"
    if values != rows and not leaf.repetition:
        return f"it has {values} values, and the row group {rows} rows"
    start = min(first, facts.get(11) or first)
    if rows and not 0 <= start <= end - stored:
        return f"its pages lie at {start} to {start + stored} of {end}"
    return _wrong_statistics(facts.get(12, {}), facts.get(16, {}), leaf)


def _wrong_statistics(values: Fields, sizes: Fields, leaf: _Leaf) -> str | None:
    if any(len(values[each]) < leaf.width for each in _EXTREMES if each in values):
        return "its smallest or largest value is cut off"
    if 1 in sizes and leaf.kind != _TEXT:
        return "it has a length of texts, and no texts"
    for levels, most in ((sizes.get(2), leaf.repetition), (sizes.get(3), leaf.definition)):
        if levels and len(levels) != most + 1:
            return f"its levels are counted up to {len(levels) - 1}, and go to {most}"
    return None
