"""Parquet to Arrow under a budget: the pages are measured before the first one is read."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from emsqrt.io.casting import BatchCaster
from emsqrt.io.parquet_pages import ChunkPages, walk_chunks
from emsqrt.memory import BudgetGuard, MemoryBudget
from sennit_core.errors import BadInput
from sennit_core.schema import Schema
from sennit_core.units import format_bytes

_READ_BYTES = 1 << 16
_BATCH_BYTES_MAX = 1 << 20
_BATCH_BYTES_MIN = 1 << 17
_BATCH_ROWS_MAX = 1 << 16
_BATCH_COPIES = 3
"""A batch, what is decoded ahead of it, and slack."""


class ParquetScan:
    """Reads one Parquet file; `bytes_done` moves while it is iterated.

    Args:
        path: the file.
        schema: the wanted columns, in order, with their types.
        budget: its size decides the batches'; `need_bytes` is to be admitted before reading.

    Raises:
        BadInput: it is no Parquet file.
    """

    def __init__(self, path: Path, schema: Schema, budget: MemoryBudget) -> None:
        self._path = path
        self._names = list(schema.names)
        self.bytes_done = 0
        columns = frozenset(schema.names)
        with open_parquet(path) as file:
            self._caster = BatchCaster(file.schema_arrow, schema, str(path))
            page_bytes, self.need_because = _heaviest(path, file.metadata, columns)
            room_bytes = budget.free_bytes - page_bytes
            batch_bytes = max(_BATCH_BYTES_MIN, min(_BATCH_BYTES_MAX, room_bytes // 8))
            self._rows_at_once = _rows_at_once(file.metadata, columns, batch_bytes)
        self.need_bytes = page_bytes + batch_bytes * _BATCH_COPIES

    def batches(self, guard: BudgetGuard) -> Iterator[Any]:
        """Yield the file's batches; `guard` holds `need_bytes`."""
        assert guard.size_bytes >= self.need_bytes, "admitted before"
        size = self._path.stat().st_size
        with open_parquet(self._path) as file:
            total, done = max(file.metadata.num_rows, 1), 0
            batches = file.iter_batches(
                batch_size=self._rows_at_once, columns=self._names, use_threads=False
            )
            for batch in batches:
                done += batch.num_rows
                self.bytes_done = size * done // total
                yield self._caster.cast(batch)
        self.bytes_done = size


def open_parquet(path: Path) -> Any:
    """Open a file with a reader that neither reads ahead nor uses threads."""
    import pyarrow as pa
    from pyarrow import parquet

    try:
        return parquet.ParquetFile(path, buffer_size=_READ_BYTES, pre_buffer=False)
    except pa.ArrowInvalid as error:
        raise BadInput(str(path), reason=f"this is not a Parquet file: {error}") from error


def infer_parquet_schema(path: Path) -> Schema:
    """Return the file's columns."""
    with open_parquet(path) as file:
        return Schema.from_arrow(file.schema_arrow)


def _heaviest(path: Path, metadata: Any, columns: frozenset[str]) -> tuple[int, str]:
    """Return what the pages of the heaviest row group take, and its heaviest column in words."""
    groups: dict[int, list[ChunkPages]] = {}
    for chunk in walk_chunks(path, metadata, columns):
        groups.setdefault(chunk.row_group, []).append(chunk)
    if not groups:
        return 0, f"{path.name} has no rows"
    heaviest = max(groups.values(), key=_held_bytes)
    top = max(heaviest, key=lambda chunk: chunk.held_bytes)
    page = format_bytes(max(top.plain_bytes, top.dictionary_bytes))
    because = f"row group {top.row_group} of {path.name}, column {top.column} has a {page} page"
    return _held_bytes(heaviest), because


def _held_bytes(chunks: list[ChunkPages]) -> int:
    """What a reader holds for one row group: every column's page, and one still compressed."""
    return sum(chunk.held_bytes for chunk in chunks) + max(c.stored_bytes for c in chunks)


def _rows_at_once(metadata: Any, columns: frozenset[str], batch_bytes: int) -> int:
    total = sum(
        metadata.row_group(group).column(index).total_uncompressed_size
        for group in range(metadata.num_row_groups)
        for index in range(metadata.num_columns)
        if metadata.row_group(group).column(index).path_in_schema.partition(".")[0] in columns
    )
    row_bytes = max(total // max(metadata.num_rows, 1), 8 * len(columns), 1)
    rows: int = max(256, min(batch_bytes // row_bytes, _BATCH_ROWS_MAX))
    return rows
