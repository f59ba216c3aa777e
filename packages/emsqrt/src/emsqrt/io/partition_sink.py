"""Write Parquet files to folders by column values, as Hive does: `out/country=DE/part-0.parquet`.

Rows of many partitions arrive mixed. Each partition collects its rows; when all rows together
exceed their memory, they are appended to one temporary file with an index of spans per partition.
At the end one partition after the other is read back in order and written. So only one Parquet
writer is open at a time, and each file's bytes depend on its rows alone.
The folder is written under a temporary name and renamed at the end.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pyarrow as pa

from emsqrt.io.cells import text_cells
from emsqrt.io.cutting import Cutter
from emsqrt.io.files import replace_folder
from emsqrt.io.formats import plain_batch, plain_schema
from emsqrt.io.locations import Location
from emsqrt.io.outputs import open_output
from emsqrt.io.parquet_sink import ParquetFileWriter, ParquetOptions, admit_groups, row_room
from emsqrt.io.partitions import folder_name
from emsqrt.io.staging import locked, staged_name, sweep_staged
from emsqrt.memory import MemoryBudget
from emsqrt.system_errors import translating_os_errors
from sennit_core.errors import Conflict, UnknownColumn, Unsupported, UsageError

FILE_NAME = "part-0.parquet"
_HELD_BYTES_MAX = 32 << 20
_HELD_BYTES_MIN = 1 << 20
_PARTITION_BYTES = 2 << 10
"""Memory of a partition's Python objects."""
_ARRAY_BYTES = 700
"""Memory of a column of a batch without its values, measured."""
_SPAN_BYTES = 128
_KINDS = "integers, decimals, text, booleans, dates, times and timestamps"

Key = tuple[str | None, ...]


class _Partition:
    """One partition's rows: batches in memory, and spans of the temporary file."""

    __slots__ = ("batches", "spans")

    def __init__(self) -> None:
        self.batches: list[Any] = []
        self.spans: list[tuple[int, int]] = []


class PartitionedSink:
    """Writes a folder of partitions, which appears when the context is left without an error.

    Args:
        place: the folder; created, or replaced if it is an earlier partitioned output.
        schema: the rows' Arrow schema.
        names: the columns whose values name folders, outermost first; they are not in the files.
        options: the options of the Parquet files.
        budget: the budget for buffered rows and for encoding.

    Raises:
        UnknownColumn, UsageError, Unsupported: the columns cannot name folders.
        Conflict: `place` is not a partitioned output.
    """

    def __init__(
        self,
        place: Location,
        schema: Any,
        names: tuple[str, ...],
        options: ParquetOptions,
        budget: MemoryBudget,
    ) -> None:
        self.rows = 0
        self.bytes = 0
        self._schema = plain_schema(schema)
        self._names = names
        self._file_schema = _file_schema(self._schema, names)
        self._folder = _checked_folder(place)
        self._staged = staged_name(self._folder)
        self._options = options
        self._groups, in_memory = admit_groups(
            place, self._file_schema, options, budget, self._folder.parent
        )
        self._group_folder = None if in_memory else self._staged
        self.row_room = row_room(self._groups, budget, place)
        self.more_bytes = 0 if in_memory else options.group_bytes
        held = max(_HELD_BYTES_MIN, min(_HELD_BYTES_MAX, budget.free_bytes // 4))
        self._guard = budget.admit(held, "partitions", f"rows of {place} wait for their folder")
        self._held_max, self._held = held // 2, 0
        self._partitions: dict[Key, _Partition] = {}
        self._lock = ExitStack()
        self._spool: Any = None
        self._spool_bytes = 0

    def __enter__(self) -> Self:
        sweep_staged(self._folder)
        with translating_os_errors(str(self._folder), "writing"):
            self._staged.mkdir(parents=True)
            self._lock.enter_context(locked(self._staged))
        return self

    def write(self, batch: Any) -> None:
        """Append the batch's rows, each to its partition."""
        batch = plain_batch(batch, self._schema)
        self.rows += batch.num_rows
        for key, part in _parted(batch, self._names, self._file_schema):
            partition = self._partitions.get(key)
            if partition is None:
                partition = self._partitions[key] = _Partition()
                self._guard.resize(self._guard.size_bytes + _PARTITION_BYTES)
            partition.batches.append(part)
            self._held += part.nbytes + part.num_columns * _ARRAY_BYTES
        if self._held > self._held_max:
            self._append_all()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with self._guard, self._groups, self._lock:
            try:
                if kind is None:
                    self._write_partitions()
                    self._drop_spool()
                    replace_folder(self._staged, self._folder)
            finally:
                self._drop_spool()
                shutil.rmtree(self._staged, ignore_errors=True)

    def _append_all(self) -> None:
        """Append the rows of every partition to the temporary file."""
        if self._spool is None:
            self._spool = (self._staged / ".rows.tmp").open("w+b", buffering=0)
        spans = 0
        for partition in self._partitions.values():
            if not partition.batches:
                continue
            block = pa.concat_batches(partition.batches).serialize()
            partition.batches.clear()
            self._spool.write(memoryview(block))
            partition.spans.append((self._spool_bytes, block.size))
            self._spool_bytes += block.size
            spans += 1
        self._held = 0
        self._guard.resize(self._guard.size_bytes + spans * _SPAN_BYTES)

    def _write_partitions(self) -> None:
        order = sorted(self._partitions, key=lambda key: [(v is None, v or "") for v in key])
        for key in order:
            partition = self._partitions.pop(key)
            folders = [folder_name(n, v) for n, v in zip(self._names, key, strict=True)]
            path = self._staged.joinpath(*folders, FILE_NAME)
            with open_output(Location("file", str(path))) as output:
                writer = ParquetFileWriter(
                    output, self._file_schema, self._options, self._group_folder, self.row_room
                )
                pieces = Cutter(on_long=writer.expect_row)
                try:
                    for batch in self._rows_of(partition):
                        for piece, size in pieces.add(batch):
                            writer.write(piece, size)
                    for piece, size in pieces.finish():
                        writer.write(piece, size)
                    writer.close()
                except BaseException:
                    writer.abort()
                    raise
            self.bytes += output.bytes

    def _rows_of(self, partition: _Partition) -> Iterator[Any]:
        for offset, size in partition.spans:
            self._spool.seek(offset)
            yield pa.ipc.read_record_batch(pa.py_buffer(self._spool.read(size)), self._file_schema)
        yield from partition.batches

    def _drop_spool(self) -> None:
        if self._spool is not None:
            self._spool.close()
            self._spool = None
            (self._staged / ".rows.tmp").unlink(missing_ok=True)


def _parted(batch: Any, names: tuple[str, ...], schema: Any) -> Iterator[tuple[Key, Any]]:
    """Yield the rows of each partition in a batch, in their order."""
    texts = pa.table({str(at): text_cells(batch.column(name)) for at, name in enumerate(names)})
    rows = texts.append_column("row", pa.array(range(batch.num_rows), pa.int64()))
    keys = [str(at) for at in range(len(names))]
    grouped = rows.group_by(keys, use_threads=False).aggregate([("row", "list")])
    kept = batch.select(schema.names)
    if grouped.num_rows == 1:
        yield tuple(grouped[key][0].as_py() for key in keys), kept
        return
    for group in range(grouped.num_rows):
        indexes = grouped["row_list"][group].values
        yield tuple(grouped[key][group].as_py() for key in keys), kept.take(indexes)


def _file_schema(schema: Any, names: tuple[str, ...]) -> Any:
    if not names:
        raise UsageError("partitionBy names no column")
    for name in names:
        if name not in schema.names:
            raise UnknownColumn(name=name, known=tuple(schema.names))
        kind = schema.field(name).type
        if pa.types.is_nested(kind) or pa.types.is_binary(kind) or pa.types.is_floating(kind):
            raise Unsupported(
                f"column {name!r} is {kind}, and names no folders; {_KINDS} do",
                hint="make a column of one of these types for it",
            )
    kept = [field for field in schema if field.name not in names]
    if not kept:
        raise UsageError("every column is in partitionBy, so no column is left for the files")
    return pa.schema(kept)


def _checked_folder(place: Location) -> Path:
    if not place.is_local:
        raise Unsupported(
            f"{place}: a partitioned output must be a local folder, which can appear as a whole",
            hint="write it to a local folder and copy that",
        )
    folder = Path(place.path)
    if folder.exists() and not _is_partitioned(folder):
        raise Conflict(
            f"{folder} exists and is not a partitioned output, so it is not replaced",
            hint="use another folder, or remove this one",
        )
    return folder


def _is_partitioned(folder: Path) -> bool:
    """Return whether a folder contains partitions and nothing else."""
    return folder.is_dir() and all(
        path.is_dir() if "=" in path.name else path.name == FILE_NAME for path in folder.rglob("*")
    )
