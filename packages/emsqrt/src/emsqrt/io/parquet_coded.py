"""Dictionary-encoded text columns: texts that a file stores once in a dictionary.

Some are decoded a few rows at a time. Arrow decodes as many rows as requested, and page headers do
not contain the decoded size: a few long texts in a dictionary can make gigabytes of a page. Such
columns are read as indices, and rows are cut by their decoded size before they are decoded. Others
are not decoded at all, if an operator can work with indices into a small dictionary.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from emsqrt._kernel import gather_texts, measure_texts
from sennit_core.errors import BadInput

SMALL_BYTES = 4 << 10
"""The largest small dictionary; a batch, and caches, hold another copy of it."""
COUNT_MAX = 4096
"""The most texts of a dictionary to keep coded, because every batch would copy a larger one."""


class Dictionary(NamedTuple):
    """The most texts, and bytes of texts, in some dictionaries together."""

    value_count: int
    size_bytes: int


def text_columns(schema: Any) -> set[str]:
    """Return the top-level text columns of a file.

    Args:
        schema: the file's Arrow schema.
    """
    return {field.name for field in schema if pa.types.is_string(field.type)}


def refuse_grown(batch: Any, counts: Mapping[str, int], what: str, row_group: int) -> None:
    """Refuse a batch with a dictionary of more texts than its page header stated.

    Args:
        batch: rows of one row group.
        counts: the number of texts in page headers, for columns that are dictionary arrays.
        what: the file, for errors.
        row_group: the row group, for errors.

    Raises:
        BadInput: there are more texts.
    """
    for name, count in counts.items():
        found = len(batch.column(name).dictionary)
        if found > count:
            wrong = f"its dictionary has {found} values, and its page header says {count}"
            raise BadInput(
                what,
                reason=f"row group {row_group}, column {name}: {wrong}",
                hint="the file is damaged, or was changed while it was read",
            )


def joined(parts: Sequence[Mapping[str, Dictionary]]) -> dict[str, Dictionary]:
    """Return the columns that are coded in all files, with the sums of their dictionaries."""
    common = set.intersection(*map(set, parts)) if parts else set()
    return {
        name: Dictionary(*map(sum, zip(*(part[name] for part in parts), strict=True)))
        for name in sorted(common)
    }


def coded_columns(long: Collection[str], plain: Collection[str], schema: Any) -> set[str]:
    """Return the text columns that are decoded a few rows at a time.

    Columns in which plain values follow a dictionary are left out: Arrow would add every plain
    value to the dictionary.

    Args:
        long: columns whose dictionaries may make some rows too long for the memory.
        plain: columns with plain values, or with many values in a dictionary.
        schema: the file's Arrow schema.
    """
    return {
        name
        for name in long
        if name not in plain and name in schema.names and _is_text(schema.field(name).type)
    }


def with_plain_texts(batches: Iterable[Any], names: Collection[str]) -> Iterator[Any]:
    """Yield batches with these columns, if present, decoded to plain texts."""
    for batch in batches:
        for at, field in enumerate(batch.schema):
            if field.name in names:
                texts = _plain(batch.column(at))
                batch = batch.set_column(at, field.with_type(texts.type), texts)
        yield batch
        del batch  # before the next one is made


def _plain(column: Any) -> Any:
    """Return a dictionary array's texts; five times faster than Arrow's cast."""
    dictionary, rows = column.dictionary, len(column)
    if column.null_count or dictionary.null_count or dictionary.offset or not len(dictionary):
        return column.dictionary_decode()
    _, places = column.indices.buffers()
    places = places.slice(4 * column.indices.offset, 4 * rows)
    _, ends, texts = dictionary.buffers()
    ends = ends.slice(0, 4 * (len(dictionary) + 1))
    plain_ends = pa.allocate_buffer(4 * (rows + 1))
    try:
        plain = pa.allocate_buffer(measure_texts(places, ends, plain_ends))
        gather_texts(places, ends, texts or b"", plain)
    except ValueError as error:
        raise pa.ArrowInvalid(str(error)) from error
    return pa.Array.from_buffers(pa.string(), rows, [None, plain_ends, plain], 0)


def decoded(batch: Any, bytes_max: int, kept: Collection[str] = ()) -> Iterator[Any]:
    """Yield a batch's rows with plain texts, cut into batches of about `bytes_max`.

    A longer row is a batch of its own. Columns in `kept` are not decoded.
    """
    coded = [
        at
        for at, field in enumerate(batch.schema)
        if pa.types.is_dictionary(field.type)
        and _is_text(field.type.value_type)
        and field.name not in kept
    ]
    if not coded:
        yield batch
        return
    ends = np.cumsum(sum(_text_bytes(batch.column(at)) for at in coded))
    start = before = 0
    while start < batch.num_rows:
        stop = max(start + 1, int(np.searchsorted(ends, before + bytes_max, "right")))
        piece = batch.slice(start, stop - start)
        for at in coded:
            field = pa.field(batch.schema.names[at], batch.schema.types[at].value_type)
            piece = piece.set_column(at, field, piece.column(at).dictionary_decode())
        yield piece
        start, before = stop, int(ends[stop - 1])


def _text_bytes(column: Any) -> Any:
    """Return the bytes of each text of a column with a dictionary."""
    if not len(column.dictionary):
        return np.zeros(len(column), np.int64)
    lengths = pc.fill_null(pc.binary_length(column.dictionary), 0).to_numpy().astype(np.int64)
    sizes = lengths[pc.fill_null(column.indices, 0).to_numpy()]
    if column.null_count:
        sizes[column.is_null().to_numpy(zero_copy_only=False)] = 0
    return sizes


def _is_text(kind: Any) -> bool:
    return any(
        check(kind)
        for check in (
            *(pa.types.is_string, pa.types.is_binary, pa.types.is_large_string),
            *(pa.types.is_large_binary, pa.types.is_string_view, pa.types.is_binary_view),
        )
    )
