"""Sinks of a plan's rows: a file that appears whole, or a stream to the client."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

import pyarrow as pa

from emsqrt.io.cells import has_any
from emsqrt.io.codecs import encoder_bytes
from emsqrt.io.cutting import Cutter, longest_row
from emsqrt.io.emitter import Emit
from emsqrt.io.formats import (
    SLICE_BYTES,
    CsvWriter,
    FormatWriter,
    JsonArrayWriter,
    JsonlWriter,
    open_format,
    plain_batch,
    plain_schema,
)
from emsqrt.io.locations import Location, parse_location
from emsqrt.io.outputs import codec_by_name, open_output
from emsqrt.io.parquet_sink import ParquetOptions, ParquetSink
from emsqrt.io.partition_sink import PartitionedSink
from emsqrt.io.records import CsvDialect
from emsqrt.io.row_room import RowRoom
from emsqrt.memory import MemoryBudget
from emsqrt.plan import FileTarget, StreamTarget
from sennit_core.errors import Unsupported, UsageError, nearest
from sennit_core.schema import Schema

_TEXT_BYTES_MIN = 1 << 20
_TEXT_SHARE = 6
_TEXT_COPIES = 4
"""Copies of a slice: its rows, its columns' texts, and the concatenated text."""
_ROW_COPIES, _ROW_COPIES_MARKED = 2, 7
"""Copies of a row that is longer than a slice; more if its texts need quotes."""
_MARKS = b'"\\'
_SPACE = 0x20
_MESSAGE_BYTES = 1 << 20
_MESSAGE_COPIES = 3
"""Copies of a row that is longer than a message: collected, and each buffer compressed."""
_OPTIONS = {
    "csv": ("delimiter", "header", "compression"),
    "jsonl": ("compression", "array"),
    "parquet": ("rowGroupBytes", "rowGroupRows", "compression", "partitionBy"),
    "arrow": ("compression",),
}
_CODECS = ("gzip", "zstd", "none")
_ARROW_CODECS = {"none": None, "lz4": "lz4", "zstd": "zstd"}


class RowSink(Protocol):
    """Writes batches to an output, which appears when the context is left without an error."""

    rows: int
    row_room: RowRoom

    @property
    def bytes(self) -> int:
        """Bytes written so far."""

    def write(self, batch: Any) -> None:
        """Append the batch's rows."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...


class TextSink:
    """Writes CSV or JSON Lines, compressed if the name or an option says so.

    Args:
        place: the output.
        make: creates the format's writer for a function that receives its pieces.
        codec: "gzip", "zstd" or None.
        budget: the budget for formatted text.
    """

    def __init__(
        self,
        place: Location,
        make: Callable[[Emit], FormatWriter],
        codec: str | None,
        budget: MemoryBudget,
    ) -> None:
        self.rows = 0
        self.bytes = 0
        self._place, self._make, self._codec = place, make, codec
        wanted = min(_TEXT_COPIES * SLICE_BYTES, budget.free_bytes // _TEXT_SHARE)
        text_bytes = max(_TEXT_BYTES_MIN, wanted)
        self._slice_bytes = text_bytes // _TEXT_COPIES
        self._guard = budget.admit(
            text_bytes + encoder_bytes(codec),
            "text sink",
            f"{place} is written{f' as {codec}' if codec else ''}",
        )
        self.row_room = RowRoom(
            self._guard, budget, place, row_bytes_max=self._slice_bytes, copies=_ROW_COPIES
        )
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self._output = stack.enter_context(open_output(self._place, self._codec))
            self._writer = stack.enter_context(self._make(self._output.write))
            self._writer.slice_bytes = self._slice_bytes
            self._stack = stack.pop_all()
        return self

    def write(self, batch: Any) -> None:
        """Append the batch's rows."""
        self._make_room(batch)
        self._writer.write(batch)
        self.rows, self.bytes = self._writer.rows, self._output.bytes

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with self._guard:
            self._stack.__exit__(kind, error, trace)
            self.bytes = self._output.bytes

    def _make_room(self, batch: Any) -> None:
        row_bytes = longest_row(batch) if batch.nbytes > self._slice_bytes else 0
        if row_bytes > self._slice_bytes:
            marks = _MARKS + self._writer.delimiter.encode()
            marked = any(_is_marked(column, marks) for column in batch.columns)
            self.row_room.make(row_bytes, _ROW_COPIES_MARKED if marked else _ROW_COPIES)


class ArrowSink:
    """Writes an Arrow IPC file, or a stream if the name ends in `.arrows`.

    Record batches are cut by content, so that the file depends on its rows alone.

    Args:
        place: the output.
        schema: the rows' Arrow schema.
        codec: "lz4", "zstd" or "none", for the buffers.
        budget: the budget for the batch that is being collected.
    """

    def __init__(self, place: Location, schema: Any, codec: str, budget: MemoryBudget) -> None:
        if codec not in _ARROW_CODECS:
            raise Unsupported(f"Arrow IPC is written with {', '.join(_ARROW_CODECS)}, not {codec}")
        self.rows = 0
        self.bytes = 0
        self._place = place
        self._schema = plain_schema(schema)
        self._options = pa.ipc.IpcWriteOptions(compression=_ARROW_CODECS[codec])
        self._pieces = Cutter(_MESSAGE_BYTES, rows_max=1 << 16, on_long=self._make_room)
        self._guard = budget.admit(3 * _MESSAGE_BYTES, "arrow sink", f"{place} is written")
        self.row_room = RowRoom(
            self._guard, budget, place, row_bytes_max=_MESSAGE_BYTES, copies=_MESSAGE_COPIES
        )
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        is_stream = self._place.path.endswith(".arrows") or self._place.is_standard
        make = pa.ipc.new_stream if is_stream else pa.ipc.new_file
        with ExitStack() as stack:
            self._output = stack.enter_context(open_output(self._place))
            file = pa.PythonFile(self._output, mode="w")
            self._writer = make(file, self._schema, options=self._options)
            self._stack = stack.pop_all()
        return self

    def write(self, batch: Any) -> None:
        """Append the batch's rows."""
        for piece, _ in self._pieces.add(plain_batch(batch, self._schema)):
            self._writer.write_batch(piece)
        self.rows += batch.num_rows
        self.bytes = self._output.bytes

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with self._guard:
            if kind is None:
                with self._stack:
                    for piece, _ in self._pieces.finish():
                        self._writer.write_batch(piece)
                    self._writer.close()
            else:
                self._stack.__exit__(kind, error, trace)
            self.bytes = self._output.bytes

    def _make_room(self, row_bytes: int) -> None:
        self.row_room.make(row_bytes, _MESSAGE_COPIES)


def open_sink(
    target: FileTarget | StreamTarget,
    schema: Schema,
    budget: MemoryBudget,
    emit: Emit,
    folder: Path | None = None,
    scratch: Path | None = None,
) -> RowSink | FormatWriter:
    """Return the sink of a plan's target.

    Args:
        target: a file, or a stream of payloads.
        schema: the rows' columns.
        budget: the budget for the sink's buffers.
        emit: receives the pieces of a stream.
        folder: the folder of relative paths; the working directory when None.
        scratch: a folder on a disk for buffered rows; the output's folder when None.

    Raises:
        CapTooSmall: the budget does not hold the sink's buffers.
        UsageError, Unsupported: an option of the target is invalid.
    """
    if isinstance(target, StreamTarget):
        return open_format(target.format, schema.to_arrow(), emit)
    place = parse_location(target.path, folder)
    options = _checked(target)
    arrow_schema = schema.to_arrow()
    if target.format == "parquet":
        scratch = scratch or _output_folder(place)
        parquet = ParquetOptions.from_json(options)
        if "partitionBy" in options:
            names = tuple(options["partitionBy"])
            return PartitionedSink(place, arrow_schema, names, parquet, budget)
        return ParquetSink(place, arrow_schema, parquet, budget, scratch)
    if target.format == "arrow":
        return ArrowSink(place, arrow_schema, str(options.get("compression", "none")), budget)
    return TextSink(
        place, _text_maker(target.format, arrow_schema, options), _codec(place, options), budget
    )


def _checked(target: FileTarget) -> Mapping[str, Any]:
    known = _OPTIONS[target.format]
    for name in target.options:
        if name not in known:
            guess = nearest(name, known)
            raise UsageError(
                f"a {target.format} target has no option {name!r}; it has {', '.join(known)}",
                hint=f'did you mean "{guess}"?' if guess else None,
            )
    return target.options


def _codec(place: Location, options: Mapping[str, Any]) -> str | None:
    codec = options.get("compression")
    if codec is None:
        return codec_by_name(place)
    if codec not in _CODECS:
        raise Unsupported(f"text is compressed with {', '.join(_CODECS)}, not {codec!r}")
    return None if codec == "none" else str(codec)


def _text_maker(
    format: str,  # noqa: A002 - the word of the plan
    schema: Any,
    options: Mapping[str, Any],
) -> Callable[[Emit], FormatWriter]:
    if format == "jsonl":
        writer = JsonArrayWriter if options.get("array", False) else JsonlWriter
        return lambda emit: writer(schema, emit, None)
    delimiter = CsvDialect(options.get("delimiter", ",")).delimiter
    header = bool(options.get("header", True))
    made = type("_Csv", (CsvWriter,), {"delimiter": delimiter, "header": header})
    return lambda emit: made(schema, emit, None)


def _is_marked(column: Any, marks: bytes) -> bool:
    """Return whether a column may need quotes; nested columns always do."""
    kind = column.type
    if pa.types.is_string(kind):
        return has_any(column, marks, below=_SPACE)
    return bool(pa.types.is_nested(kind) or pa.types.is_dictionary(kind))


def _output_folder(place: Location) -> Path:
    if place.is_local:
        return Path(place.path).parent
    from emsqrt.spill import default_spill_dir

    return default_spill_dir()
