"""The structs of a Parquet footer, and checks that its columns are consistent.

Arrow's C++ ends the process if a footer's column metadata contradicts itself or the schema: it
throws when the metadata is accessed, where the exception cannot be caught. So the metadata is
checked here, by the rules of parquet.thrift and those that Arrow checks.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from emsqrt.io.thrift import BINARY, I16, I32, I64, LIST, STRUCT, Fields, Shape

SCHEMA, ROWS, ROW_GROUPS = 2, 3, 4
"""Fields of `FileMetaData`."""
CHUNK_SIZES = 16
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
GROUP = _of(i64=(2, 3, 5, 6), list=(4,), i16=(7,)) | {1: (LIST, _COLUMN)}
FILE = _of(i32=(1,), i64=(3,), binary=(6, 9), list=(5, 7), struct=(8,))
FILE |= {SCHEMA: (LIST, _ELEMENT), ROW_GROUPS: (LIST, GROUP)}
"""`FileMetaData` and the structs in it, from parquet.thrift."""
_WIDTHS = {0: 1, 1: 4, 2: 8, 3: 12, 4: 4, 5: 8}
"""Widths of fixed-width physical types: BOOLEAN, INT32, INT64, INT96, FLOAT, DOUBLE."""
_TEXT, _FIXED = 6, 7
_TYPES = range(8)
_REQUIRED, _OPTIONAL, _REPEATED = _REPETITIONS = range(3)
_CODECS = range(8)
_ENCRYPTION = {8, 9}
"""`ColumnChunk.crypto_metadata`, and the metadata that it encrypts."""
_EXTREMES = (1, 2, 5, 6)
"""max, min, max_value and min_value of `Statistics`."""


class Leaf(NamedTuple):
    """A column of the schema."""

    path: list[bytes]
    kind: int
    width: int
    repetition: int
    definition: int


def leaves_of(elements: list[Fields]) -> Iterator[Leaf]:
    """Yield the columns of a schema, a flattened tree with each group before its children."""
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
        name.decode()  # raises here: later code could not report a bad name
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
        yield Leaf([*names, name], element[1], width, repetition, definition)
    if any(left for left, _, _ in above):
        raise ValueError("the schema ends too early")


def check_group(number: int, group: Fields, leaves: list[Leaf], end: int) -> int:
    """Check a row group and return its number of rows."""
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


def _wrong(column: Fields, leaf: Leaf, rows: int, end: int) -> str | None:
    """Return the error in a column of a row group, if any; without rows, offsets are ignored."""
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
        return f"its pages are at {start} to {start + stored} of {end}"
    return _wrong_statistics(facts.get(12, {}), facts.get(16, {}), leaf)


def _wrong_statistics(values: Fields, sizes: Fields, leaf: Leaf) -> str | None:
    if any(len(values[each]) < leaf.width for each in _EXTREMES if each in values):
        return "its smallest or largest value is truncated"
    if 1 in sizes and leaf.kind != _TEXT:
        return "it has a size of texts, but no texts"
    for levels, most in ((sizes.get(2), leaf.repetition), (sizes.get(3), leaf.definition)):
        if levels and len(levels) != most + 1:
            return f"its levels are counted up to {len(levels) - 1}, and go to {most}"
    return None
