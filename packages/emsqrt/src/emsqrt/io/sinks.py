"""Where a plan's rows end: a file that appears whole, or a stream to whoever asked."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

import pyarrow as pa
from pyarrow import parquet

from emsqrt.io.files import open_whole
from emsqrt.io.formats import FormatWriter, open_format
from emsqrt.io.pieces import Emit
from emsqrt.memory import MemoryBudget
from emsqrt.plan import FileTarget, StreamTarget
from sennit_core.schema import Schema
from sennit_core.units import format_bytes

_GROUP_BYTES_MAX = 16 << 20
_GROUP_BYTES_MIN = 1 << 20
_GROUP_COPIES = 2
"""Gathered batches, and their pages once encoded."""
_PAGE_BYTES = 256 << 10
_COLUMN_BYTES = 3 * _PAGE_BYTES
"""A column's encoder: page, dictionary, compressor."""


class RowSink(Protocol):
    """Takes batches; a context manager whose peaceful end makes the output visible."""

    rows: int

    @property
    def bytes(self) -> int:
        """Length of what was written so far."""

    def write(self, batch: Any) -> None:
        """Append the batch's rows."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...


class ParquetSink:
    """Writes one Parquet file; batches are gathered to row groups of a budgeted size."""

    def __init__(self, path: Path, schema: Schema, budget: MemoryBudget) -> None:
        self.rows = 0
        self.bytes = 0
        self._path = path
        self._schema = schema.to_arrow()
        encoder_bytes = len(schema) * _COLUMN_BYTES
        room_bytes = budget.free_bytes - encoder_bytes
        self._group_bytes = max(_GROUP_BYTES_MIN, min(_GROUP_BYTES_MAX, room_bytes // 6))
        self._guard = budget.admit(
            encoder_bytes + self._group_bytes * _GROUP_COPIES,
            "parquet sink",
            f"{path.name} is written with {len(schema)} columns "
            f"in row groups of {format_bytes(self._group_bytes)}",
        )
        self._held: list[Any] = []
        self._held_bytes = 0
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            file = stack.enter_context(open_whole(self._path))
            self._writer = stack.enter_context(
                parquet.ParquetWriter(
                    file,
                    self._schema,
                    compression="zstd",
                    data_page_size=_PAGE_BYTES,
                    dictionary_pagesize_limit=_PAGE_BYTES,
                )
            )
            self._stack = stack.pop_all()
        return self

    def write(self, batch: Any) -> None:
        """Append the batch's rows."""
        for part in _halved(batch, self._group_bytes):
            self._held.append(part)
            self._held_bytes += part.nbytes
            self.rows += part.num_rows
            if self._held_bytes >= self._group_bytes:
                self._flush()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with self._guard:
            if kind is not None:
                self._stack.__exit__(kind, error, trace)
                return
            with self._stack:
                self._flush()
            self.bytes = self._path.stat().st_size

    def _flush(self) -> None:
        if self._held:
            self._writer.write_table(pa.Table.from_batches(self._held, self._schema))
            self._held, self._held_bytes = [], 0


class CsvSink:
    """Writes one CSV file."""

    def __init__(self, path: Path, schema: Schema) -> None:
        self.rows = 0
        self.bytes = 0
        self._path = path
        self._schema = schema.to_arrow()
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            file = stack.enter_context(open_whole(self._path))
            self._writer = stack.enter_context(open_format("csv", self._schema, file.write))
            self._stack = stack.pop_all()
        return self

    def write(self, batch: Any) -> None:
        """Append the batch's rows."""
        self._writer.write(batch)
        self.rows, self.bytes = self._writer.rows, self._writer.bytes

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.__exit__(kind, error, trace)
        self.bytes = self._writer.bytes


def open_sink(
    target: FileTarget | StreamTarget,
    schema: Schema,
    budget: MemoryBudget,
    emit: Emit,
    folder: Path | None = None,
) -> RowSink | FormatWriter:
    """Return the sink of a plan's target.

    Args:
        target: a file, or a stream of payloads.
        schema: the rows' columns.
        budget: asked for what a sink buffers.
        emit: takes the pieces of a stream.
        folder: where relative paths start; the current folder when None.
    """
    if isinstance(target, StreamTarget):
        return open_format(target.format, schema.to_arrow(), emit)
    path = (folder or Path()) / target.path
    path.parent.mkdir(parents=True, exist_ok=True)
    return (
        ParquetSink(path, schema, budget) if target.format == "parquet" else CsvSink(path, schema)
    )


def _halved(batch: Any, bytes_max: int) -> list[Any]:
    if batch.nbytes <= bytes_max or batch.num_rows <= 1:
        return [batch]
    half = batch.num_rows // 2
    return [
        *_halved(batch.slice(0, half), bytes_max),
        *_halved(batch.slice(half), bytes_max),
    ]
