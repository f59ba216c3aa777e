"""Write Parquet files whose bytes depend on their rows alone.

Row groups are cut by content (`emsqrt.io.cutting`), and each is encoded at once. Its rows are
buffered in memory if the budget has room, else in a temporary file that is mapped for encoding:
mapped pages of a file are not charged to the process. The output is the same in both cases.
"""

from __future__ import annotations

import base64
import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pyarrow as pa
from pyarrow import parquet

from emsqrt.io.cutting import PIECE_BYTES, Cutter, least_bytes
from emsqrt.io.formats import plain_batch, plain_schema
from emsqrt.io.locations import Location
from emsqrt.io.outputs import Output, open_output
from emsqrt.io.parquet_dictionaries import table_as
from emsqrt.io.parquet_encodings import Encodings, choose_encodings
from emsqrt.io.row_room import RowRoom
from emsqrt.memory import BudgetGuard, MemoryBudget
from sennit_core.errors import Unsupported, UsageError
from sennit_core.ids import new_id
from sennit_core.units import format_bytes, parse_bytes

GROUP_BYTES = 8 << 20
GROUP_ROWS = 1 << 20
_GROUP_BYTES_MIN = 64 << 10
_PAGE_BYTES = 256 << 10
_PAGE_ROWS = 1 << 30
"""So large that pages end by their bytes alone."""
_LIST_PAGE_BYTES = 16 << 10
"""A page of lists may have a value per bit, and Arrow needs eight bytes or more for each."""
_GATHERED_BYTES = 32 << 10
"""Small pages are written together, up to this size."""
_DICTIONARY_BYTES = 32 << 10
"""While a dictionary grows, Arrow needs 400 bytes per value, and crashes without them."""
_ENCODER_BYTES = 3 << 19
"""Memory of the compressor, and of a column's page and dictionary while they are encoded."""
_TEXT_BYTES = 3 << 19
"""Another page of texts, which are concatenated separately from their lengths: measured."""
_COLUMN_BYTES_MAX = 4 << 20
"""The largest column's pages while its dictionary still grows: measured, for any row group."""
_INDEX_BYTES = 2
"""Bytes of a row's index into a dictionary that fits one page."""
_FOOTER_BYTES = 1 << 10
"""Memory of a writer for each column of each row group it has written."""
_ARROW_SCHEMA = "ARROW:schema"
_ROW_COPIES, _ROW_COPIES_WITH_STATISTICS = 6, 12
"""Copies of a long row while it is copied, encoded and compressed: measured. Twice as many with
statistics."""
_CODECS = ("zstd", "snappy", "gzip", "lz4", "none")


@dataclass(frozen=True, slots=True)
class ParquetOptions:
    """A plan's options for Parquet files.

    Args:
        row_group_bytes: a row group ends with the piece that reaches this size, as counted by
            `Cutter`.
        row_group_rows: a row group ends at this number of rows.
        compression: "zstd", "snappy", "gzip", "lz4" or "none".
    """

    row_group_bytes: int = GROUP_BYTES
    row_group_rows: int = GROUP_ROWS
    compression: str = "zstd"

    def __post_init__(self) -> None:
        """Check the options."""
        if self.row_group_bytes < _GROUP_BYTES_MIN:
            raise UsageError(f"rowGroupBytes is at least {format_bytes(_GROUP_BYTES_MIN)}")
        if self.row_group_rows < 1:
            raise UsageError("rowGroupRows is at least 1")
        if self.compression not in _CODECS:
            raise Unsupported(
                f"Parquet is not written with {self.compression!r}; there are {', '.join(_CODECS)}"
            )

    @classmethod
    def from_json(cls, options: Mapping[str, Any]) -> ParquetOptions:
        """Read the plan's JSON options, already checked for unknown names."""
        return cls(
            parse_bytes(options.get("rowGroupBytes", GROUP_BYTES)),
            int(options.get("rowGroupRows", GROUP_ROWS)),
            str(options.get("compression", "zstd")),
        )

    @property
    def group_bytes(self) -> int:
        """Memory of a row group that is buffered, and of its copy while it is written."""
        return (self.row_group_bytes + PIECE_BYTES) * 3 // 2


class ParquetFileWriter:
    """Writes pieces of rows to one open output, group by group.

    Args:
        output: receives the file's bytes.
        schema: the rows' Arrow schema, without dictionaries.
        options: the options of the target.
        folder: the folder of the temporary file for a row group's rows; None buffers them in
            memory.
        room: the memory for long rows.
    """

    def __init__(
        self,
        output: Output,
        schema: Any,
        options: ParquetOptions,
        folder: Path | None,
        room: RowRoom,
    ) -> None:
        self._options, self._schema, self._room = options, schema, room
        self._has_statistics = any(map(pa.types.is_nested, schema.types))
        self._file = _OutputFile(output)
        self._stream = pa.output_stream(self._file, buffer_size=_GATHERED_BYTES)
        self._writer: Any = None
        self._group = _Group(schema, folder)

    def expect_row(self, row_bytes: int) -> None:
        """Reserve memory for a long row, before it is added to a piece."""
        self._room.make(
            row_bytes, _ROW_COPIES_WITH_STATISTICS if self._has_statistics else _ROW_COPIES
        )

    def write(self, piece: Any, size: int) -> None:
        """Append a piece; a row group is written when it is full."""
        self._group.add(piece, size)
        full = self._group.bytes >= self._options.row_group_bytes
        if full or self._group.rows >= self._options.row_group_rows:
            self.flush()

    def flush(self) -> None:
        """Write the buffered rows as a row group."""
        if self._group.rows:
            with self._group.table() as table:
                if self._writer is None:
                    encodings = choose_encodings(
                        table, _DICTIONARY_BYTES, self._options.compression
                    )
                    self._open(encodings, table.schema)
                table = table_as(table, self._writer.schema)
                if self._group.longest_bytes > 2 * PIECE_BYTES:
                    self.expect_row(self._group.longest_bytes)
                self._writer.write_table(table, row_group_size=table.num_rows)

    def close(self) -> None:
        """Write the last row group and the footer."""
        self.flush()
        if self._writer is None:
            codec = self._options.compression
            self._open(Encodings(dictionary=False, others={}, compression=codec), self._schema)
        self._writer.close()
        self._stream.close()

    def abort(self) -> None:
        """Close the file without a footer."""
        self._group.drop()
        self._file.shut = True
        if self._writer is not None:
            self._writer.close()
        self._stream.close()

    def _open(self, encodings: Encodings, coming: Any) -> None:
        """Begin the file, once the first row group has determined the encodings.

        Dictionary arrays and short decimals are written without a change of the file's schema.
        """
        coded = encodings.dictionary
        fields = [
            came
            if pa.types.is_decimal64(came.type) or (isinstance(coded, list) and came.name in coded)
            else field
            for field, came in zip(self._schema, coming, strict=True)
        ]
        schema = pa.schema(fields)
        is_plain = schema.equals(self._schema)
        self._has_statistics = encodings.statistics is True
        page_bytes = _LIST_PAGE_BYTES if any(map(_has_lists, schema.types)) else _PAGE_BYTES
        self._writer = parquet.ParquetWriter(
            self._stream,
            self._schema if is_plain else schema,
            store_schema=is_plain,
            compression=encodings.compression,
            use_dictionary=coded,
            column_encoding=encodings.others or None,
            data_page_size=page_bytes,
            max_rows_per_page=_PAGE_ROWS,
            dictionary_pagesize_limit=_DICTIONARY_BYTES,
            store_decimal_as_integer=True,
            write_statistics=encodings.statistics,
            write_page_checksum=True,
        )
        if not is_plain:
            stored_schema = base64.b64encode(self._schema.serialize()).decode()
            self._writer.add_key_value_metadata({_ARROW_SCHEMA: stored_schema})


class _OutputFile:
    """The file that Arrow writes to; once shut, it discards what the writer writes at its end."""

    closed = False

    def __init__(self, output: Output) -> None:
        self._output = output
        self._position = 0
        self.shut = False

    def write(self, data: Any) -> int:
        size = memoryview(data).nbytes
        if not self.shut:
            self._output.write(data)
        self._position += size
        return size

    def tell(self) -> int:
        return self._position

    def flush(self) -> None:
        """Do nothing: the owner flushes at the end."""

    def close(self) -> None:
        """Do nothing: the owner closes the file."""

    def readable(self) -> bool:
        return False

    def seekable(self) -> bool:
        return False

    def writable(self) -> bool:
        return True


class _Group:
    """The rows of the row group that is not full yet."""

    def __init__(self, schema: Any, folder: Path | None) -> None:
        self._schema, self._folder = schema, folder
        self._pieces: list[Any] = []
        self._descriptor: int | None = None
        self._file: Any = None
        self.rows = self.bytes = 0
        self.longest_bytes = 0
        """The size of a piece."""

    def add(self, piece: Any, size: int) -> None:
        self.rows += piece.num_rows
        self.bytes += size
        self.longest_bytes = max(self.longest_bytes, size)
        if self._folder is None:
            self._pieces.append(piece)
            return
        if self._file is None:
            self._descriptor = _nameless_file(self._folder)
            self._file = pa.ipc.new_file(_path_of(self._descriptor), self._schema)
        self._file.write_batch(piece)

    @contextmanager
    def table(self) -> Iterator[Any]:
        """Yield the rows as a table whose chunks are the pieces, then drop them."""
        try:
            if self._file is None:
                yield pa.Table.from_batches(self._pieces)
                return
            assert self._descriptor is not None, "it is opened together with the file"
            self._file.close()
            with pa.memory_map(_path_of(self._descriptor)) as mapped:
                yield pa.ipc.open_file(mapped).read_all()
        finally:
            self.drop()

    def drop(self) -> None:
        if self._file is not None:
            self._file.close()
        if self._descriptor is not None:
            os.close(self._descriptor)
        self._pieces, self._descriptor, self._file = [], None, None
        self.rows = self.bytes = self.longest_bytes = 0


def _nameless_file(folder: Path) -> int:
    """Open a file without a name, which the kernel removes when the process closes it or ends."""
    path = folder / f".{new_id()}.rows.tmp"
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    path.unlink()
    return descriptor


def _path_of(descriptor: int) -> str:
    return f"/proc/self/fd/{descriptor}"


class ParquetSink:
    """Writes one Parquet file, which appears when the context is left without an error.

    Args:
        place: the output.
        schema: the rows' Arrow schema.
        options: the options of the target.
        budget: the budget for encoding, and for the row group if it fits.
        scratch: the folder of a temporary file for a row group that does not fit the budget.
    """

    def __init__(
        self,
        place: Location,
        schema: Any,
        options: ParquetOptions,
        budget: MemoryBudget,
        scratch: Path,
    ) -> None:
        self.rows = 0
        self.bytes = 0
        self._place, self._options = place, options
        self._schema = plain_schema(schema)
        self._guard, in_memory = admit_groups(place, self._schema, options, budget, scratch)
        self._folder = None if in_memory else scratch
        self.more_bytes = 0 if in_memory else options.group_bytes
        """The additional memory that the sink would use with a larger budget."""
        self._accepts_stored = False
        self.row_room = row_room(self._guard, budget, place)
        self._stack = ExitStack()

    def take_as_stored(self, rows: Any) -> None:
        """Let `SortRows` return rows as they are stored, if the row group is buffered in memory.

        Args:
            rows: the operator whose batches will be written, with or without a meter.
        """
        yield_as_stored = getattr(getattr(rows, "passes_on", rows), "yield_as_stored", None)
        if yield_as_stored is not None and self._folder is None:
            yield_as_stored(_DICTIONARY_BYTES, _values_of_one_page(self._schema, self._options))
            self._accepts_stored = True  # batches of a sort are small

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self._output = stack.enter_context(open_output(self._place))
            if self._folder is not None:
                self._folder.mkdir(parents=True, exist_ok=True)
            self._writer = ParquetFileWriter(
                self._output, self._schema, self._options, self._folder, self.row_room
            )
            self._pieces = Cutter(slices=self._accepts_stored, on_long=self._writer.expect_row)
            self._stack = stack.pop_all()
        return self

    def write(self, batch: Any) -> None:
        """Append the batch's rows."""
        rows = batch if self._accepts_stored else plain_batch(batch, self._schema)
        for piece, size in self._pieces.add(rows):
            self._writer.write(piece, size)
        self.rows += batch.num_rows
        self.bytes = self._output.bytes

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with self._guard:
            if kind is not None:
                self._writer.abort()
                self._stack.__exit__(kind, error, trace)
                return
            with self._stack:
                for piece, size in self._pieces.finish():
                    self._writer.write(piece, size)
                self._writer.close()
            self.bytes = self._output.bytes


def admit_groups(
    place: Location, schema: Any, options: ParquetOptions, budget: MemoryBudget, scratch: Path
) -> tuple[BudgetGuard, bool]:
    """Reserve memory for row groups; also return whether they may be buffered in memory.

    They may if that needs at most a third of the memory that encoding leaves: operators need the
    rest.

    Raises:
        CapTooSmall: the budget is too small even for encoding.
    """
    from emsqrt.spill.placement import is_in_memory

    encoder = _ENCODER_BYTES + _GATHERED_BYTES + 2 * PIECE_BYTES + len(schema) * _FOOTER_BYTES
    if any(pa.types.is_string(kind) or pa.types.is_binary(kind) for kind in schema.types):
        encoder += _TEXT_BYTES
    groups = options.group_bytes
    mapped_counts = is_in_memory(scratch)  # mapped pages of such a file are memory
    if mapped_counts or 3 * groups <= budget.free_bytes - encoder:
        return budget.admit(
            encoder + groups, "parquet sink", _because(place, schema, options)
        ), True
    encoder += min(_index_bytes(schema, options), _COLUMN_BYTES_MAX)
    return budget.admit(encoder, "parquet sink", _because(place, schema, options)), False


def _index_bytes(schema: Any, options: ParquetOptions) -> int:
    """Return a bound on a column's dictionary indices, which are buffered until it is complete."""
    if any(pa.types.is_nested(kind) for kind in schema.types):
        return options.row_group_bytes // 4
    rows = _rows_max(schema, options)
    return rows * _INDEX_BYTES + min(_PAGE_BYTES, options.row_group_bytes // 4)


def row_room(guard: BudgetGuard, budget: MemoryBudget, place: Location) -> RowRoom:
    """Return the memory for long rows of a Parquet writer with this guard."""
    return RowRoom(guard, budget, place, row_bytes_max=PIECE_BYTES, copies=_ROW_COPIES)


def _rows_max(schema: Any, options: ParquetOptions) -> int:
    """Return the most rows of a row group, if no column is nested."""
    row_bytes = sum(least_bytes(kind) for kind in schema.types)
    return min(options.row_group_rows, (options.row_group_bytes + PIECE_BYTES) // row_bytes)


def _values_of_one_page(schema: Any, options: ParquetOptions) -> int:
    """Return the largest dictionary for which all indices of a row group fit one page.

    For a dictionary array Arrow writes all indices with the bits of the largest one; for plain
    values, the indices of a page with the bits needed so far. On a single page both are the same.
    """
    if any(pa.types.is_nested(kind) for kind in schema.types):
        return 0
    eights = -(-_rows_max(schema, options) // 8)
    bits = _PAGE_BYTES // 2 // eights - 1  # Arrow adds a byte per eight indices
    return 1 << min(bits, 16) if bits > 0 else 0


def _has_lists(kind: Any) -> bool:
    if pa.types.is_struct(kind):
        return any(_has_lists(field.type) for field in kind)
    return bool(pa.types.is_nested(kind))


def _because(place: Location, schema: Any, options: ParquetOptions) -> str:
    return (
        f"{place} is written with {len(schema)} columns in row groups of "
        f"{format_bytes(options.row_group_bytes)}; rowGroupBytes makes them smaller"
    )
