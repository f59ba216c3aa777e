"""Write batches as Parquet shards of limited size, with their statistics."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from lake.encryption.sealed import Seal, seal_file
from lake.ingest.encodings import EncodingChooser
from lake.ingest.statistics import column_stats
from lake.objects.disk_space import WriteBudget, WriteLimit
from lake.objects.durable import storage_errors
from sennit_core.hashing import ObjectDigest, hash_file
from sennit_core.units import MIB

__all__ = ["Limits", "Shard", "ShardWriter"]


@dataclass(frozen=True)
class Limits:
    """Size limits of shards and row groups.

    Args:
        shard_bytes: Maximum bytes of a shard's Parquet file.
        source_bytes: Source bytes after which a new shard starts, so that a file of moderate size
            has several shards for parallel work.
        group_rows: Maximum rows of a row group.
        group_bytes: Maximum Arrow bytes of a row group.
    """

    shard_bytes: int = 64 * MIB
    source_bytes: int = 256 * MIB
    group_rows: int = 122_880
    group_bytes: int = 16 * MIB


@dataclass
class Shard:
    """One finished shard.

    Args:
        path: The Parquet file, durable but not yet an object.
        schema: Its Arrow schema.
        rows: Number of rows.
        start: Source offset of its first record; None if the source has no record offsets.
        stop: Source offset after its last record.
        line: Line of its first record.
        first_row: Number of rows in earlier shards; set when all shards are known.
        plain: The file in memory that `path` is the encryption of; None if it is not encrypted.
        floats: For each column of floats, how many of its values are NULL, and how many NaN.
        partition: The values of the partition fields, as in `ShardInfo`; hidden if it is encrypted.
    """

    path: Path
    schema: pa.Schema
    rows: int
    start: int | None
    stop: int | None
    line: int
    first_row: int = 0
    plain: Path | None = None
    floats: dict[str, dict[str, int]] = field(default_factory=dict)
    partition: dict[str, Any] = field(default_factory=dict)
    digest: ObjectDigest = field(init=False)
    stats: dict[str, Any] = field(init=False)

    def __post_init__(self) -> None:
        # In the executor, on bytes that are still in the page cache; the node only moves the file.
        self.digest = hash_file(self.path)
        self.stats = column_stats(self.plain or self.path)
        for name, counts in self.floats.items():
            self.stats[name] = {**self.stats.get(name, {}), **counts}
        if self.plain is not None:
            # A manifest is not encrypted: it must not have values.
            self.stats = {
                name: {"nulls": each["nulls"]} for name, each in self.stats.items() if each
            }
            self.plain.unlink()

    def to_json(self) -> dict[str, Any]:
        """Return the worker's report: the file, its digest, and the fields of `ShardInfo`."""
        return {
            "file": str(self.path),
            "object": self.digest.object,
            "chunkBytes": self.digest.chunk_bytes,
            "chunks": list(self.digest.chunks),
            "bytes": self.digest.size,
            "rows": self.rows,
            "stats": self.stats,
            "partition": self.partition,
            "byteStart": self.start,
            "byteEnd": self.stop,
            "firstRow": self.first_row,
        }


class ShardWriter:
    """Writes batches in order; a batch with another schema starts a new shard.

    Args:
        folder: Folder of the files.
        limits: Size limits.
        prefix: Prefix of the files' names.
        columns: The id of each column; None numbers them from 1.
        budget: The room for all files of the ingest or statement; None for no limit but the disk.
        seal: Encrypts the shards; they are on the disk only when they are encrypted.
    """

    def __init__(
        self,
        folder: Path,
        limits: Limits,
        prefix: str,
        columns: Sequence[int] | None = None,
        *,
        budget: WriteBudget | None = None,
        seal: Seal | None = None,
    ) -> None:
        self.partition: dict[str, Any] = {}  # of the current shard; set it after `cut`
        # Columns with NaN so far. Parquet's bounds leave it out, and DuckDB, to which NaN is greater
        # than all numbers, would skip its rows: such columns have no bounds.
        self._unbounded: frozenset[str] = frozenset()
        self._seal = seal
        self._budget = budget or WriteBudget(WriteLimit(0, 0), folder, "the shard")
        self.shards: list[Shard] = []
        self._folder = folder
        self._limits = limits
        self._prefix = prefix
        self._columns = columns
        self._encodings = EncodingChooser()
        self._open: _OpenShard | None = None

    def write(
        self, batch: pa.RecordBatch, *, start: int | None, stop: int | None, line: int = 1
    ) -> None:
        """Append the batch, which was parsed from the source range [start, stop)."""
        with_nan = _with_nan(batch) - self._unbounded
        self._unbounded |= with_nan
        if self._open is not None and (with_nan or not self._open.accepts(batch)):
            # Another schema: a column was widened. Shards before it are encoded again at the end
            # (`lake.ingest.encode`).
            self.cut()
        if self._open is None:
            folder = self._folder if self._seal is None else self._seal.folder
            path = folder / f"{self._prefix}-{len(self.shards):05d}.parquet"
            schema = _with_ids(batch.schema, self._columns)
            self._open = _OpenShard(
                path,
                schema,
                self._limits,
                start,
                line,
                self._encodings,
                self._budget,
                self._unbounded,
            )
        self._open.append(batch, stop)

    def cut(self) -> None:
        """Finish the current shard, if any."""
        if self._open is not None:
            shard = self._open.finish
            found = shard() if self._seal is None else shard(self._seal, self._folder)
            found.partition = self.partition
            if self._seal is not None:
                found.partition = self._seal.hidden(self.partition)
            self.shards.append(found)
            self._open = None

    def discard(self) -> None:
        """Close an unfinished file after a failure; the folder's owner removes it."""
        if self._open is not None:
            self._open.close()
            self._open = None


class _OpenShard:
    def __init__(  # noqa: PLR0913 - of one caller
        self,
        path: Path,
        schema: pa.Schema,
        limits: Limits,
        start: int | None,
        line: int,
        encodings: EncodingChooser,
        budget: WriteBudget,
        unbounded: frozenset[str],
    ) -> None:
        self._path = path
        self._unbounded = unbounded
        self._budget = budget
        self._counted = 0  # bytes of the file that the budget has counted
        self._encodings = encodings
        self._schema = schema
        self._limits = limits
        self._start = start
        self._stop = start
        self._line = line
        self._rows = 0
        # Batches of the next row group; `_held_rows` and `_held_bytes` are their sums.
        self._held: list[pa.RecordBatch] = []
        self._held_rows = 0
        self._held_bytes = 0
        self._floats = {
            each.name: {"nulls": 0, "nans": 0} for each in schema if pa.types.is_floating(each.type)
        }
        budget.check(0)  # a file costs an inode too
        with storage_errors(path, 0):
            self._file = path.open("wb")
        # Opened with the first row group, whose values determine the columns' encodings.
        self._writer: pq.ParquetWriter | None = None

    def accepts(self, batch: pa.RecordBatch) -> bool:
        if not batch.schema.equals(self._schema):
            return False
        # An upper bound, as what is held will be encoded and compressed.
        coming = self._file.tell() + self._held_bytes + batch.nbytes
        source = (self._stop or 0) - (self._start or 0)
        return coming <= self._limits.shard_bytes and source < self._limits.source_bytes

    def append(self, batch: pa.RecordBatch, stop: int | None) -> None:
        self._rows += batch.num_rows
        self._stop = stop
        for name, counts in self._floats.items():
            column = batch.column(name)
            counts["nulls"] += column.null_count
            if name in self._unbounded:
                counts["nans"] += pc.sum(pc.is_nan(column)).as_py() or 0
        for piece in _pieces(batch, self._limits.group_rows):
            self._held.append(piece)
            self._held_rows += piece.num_rows
            self._held_bytes += piece.nbytes
            full = self._held_rows >= self._limits.group_rows
            if full or self._held_bytes >= self._limits.group_bytes:
                self._flush()

    def finish(self, seal: Seal | None = None, folder: Path | None = None) -> Shard:
        self._flush()
        with storage_errors(self._path, 0):
            # A shard without rows still is a Parquet file with a schema.
            self._writer_for(self._schema.empty_table()).close()
            self._file.close()
        path, plain = self._path, None
        if seal is not None and folder is not None:
            path, plain = folder / f"{self._path.name}.sealed", self._path
            with storage_errors(path, 0):
                seal_file(plain, path, seal.key, seal.dataset)
        return Shard(
            path,
            self._schema,
            self._rows,
            self._start,
            self._stop,
            self._line,
            plain=plain,
            floats=self._floats,
        )

    def close(self) -> None:
        """Close the file after a failure; ignore further errors, as the first one is raised."""
        self._held.clear()
        if self._writer is not None:
            with contextlib.suppress(OSError):
                self._writer.close()
        with contextlib.suppress(OSError):
            self._file.close()

    def _flush(self) -> None:
        if self._held:
            self._budget.check(self._held_bytes)
            table = pa.Table.from_batches(self._held, self._schema)
            with storage_errors(self._path, self._held_bytes):
                # One row group, which the writer would otherwise divide by its own default.
                self._writer_for(table).write_table(table, row_group_size=max(1, len(table)))
                self._file.flush()
            written = self._file.tell()
            self._budget.add(written - self._counted)
            self._counted = written
            self._encodings.add(self._held_bytes)
            self._held, self._held_rows, self._held_bytes = [], 0, 0

    def _writer_for(self, table: pa.Table) -> pq.ParquetWriter:
        """Return the file's writer; the first table determines the encodings."""
        if self._writer is None:
            options = self._encodings.writer_options(table)
            self._writer = pq.ParquetWriter(
                self._file,
                self._schema,
                write_page_index=True,
                write_statistics=_with_bounds(self._schema, self._unbounded),
                **options,
            )
        return self._writer


def _with_nan(batch: pa.RecordBatch) -> frozenset[str]:
    return frozenset(
        name
        for name, column in zip(batch.schema.names, batch.columns, strict=True)
        if pa.types.is_floating(column.type) and pc.any(pc.is_nan(column)).as_py()
    )


def _with_bounds(schema: pa.Schema, unbounded: frozenset[str]) -> bool | list[str]:
    """Return the columns that Parquet has bounds of; True for all.

    Of nested columns with floats it has none, as it is not known whether NaN is in them.
    """
    hidden = unbounded | {
        each.name
        for each in schema
        if pa.types.is_nested(each.type) and any(map(pa.types.is_floating, _leaves(each.type)))
    }
    return not hidden or [
        each.name
        for each in schema
        if each.name not in hidden and not pa.types.is_nested(each.type)
    ]


def _leaves(kind: pa.DataType) -> Iterator[pa.DataType]:
    if not pa.types.is_nested(kind):
        yield kind
        return
    for index in range(kind.num_fields):
        yield from _leaves(kind.field(index).type)


def _with_ids(schema: pa.Schema, columns: Sequence[int] | None) -> pa.Schema:
    """Return the schema with the ids of columns as Parquet's field ids."""
    ids = columns or range(1, len(schema) + 1)
    return pa.schema(
        field.with_metadata({"PARQUET:field_id": str(column)})
        for field, column in zip(schema, ids, strict=True)
    )


def _pieces(batch: pa.RecordBatch, rows: int) -> Iterator[pa.RecordBatch]:
    for start in range(0, batch.num_rows, rows):
        yield batch.slice(start, rows)
