"""Ingest typed formats: rewrite Parquet and Arrow IPC files as shards."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from lake.ingest.column_match import ColumnMatch
from lake.ingest.encode import Report
from lake.ingest.job import Ingested, Job
from lake.ingest.names import settle_names
from lake.ingest.plain import check_fields, is_changed, plain_array, plain_schema
from lake.ingest.shards import Limits, Shard
from lake.ingest.source import PartsFile
from sennit_core.arrow_ipc import DAMAGE, check_schema, open_arrow, validate_batch
from sennit_core.errors import BadInput, SennitError
from sennit_core.schema import DataType, Schema

__all__ = ["check_not_null", "ingest_arrow", "ingest_parquet", "write_batches"]

_BATCH_ROWS_MIN, _BATCH_ROWS_MAX = 64, 16_384
_BATCH_BYTES = 8 << 20
_PAGE_BUFFER_BYTES = (
    1 << 20
)  # otherwise Arrow reads a column's whole row group before its first row
_ARROW_COPIES = 3  # copies of a batch: as stored, decompressed, and cast to the dataset's types


def ingest_parquet(job: Job, limits: Limits) -> Ingested:
    """Read a whole Parquet file, validate it, and write it as shards."""
    with (
        _open(job, "Parquet") as source,
        pq.ParquetFile(source, buffer_size=_PAGE_BUFFER_BYTES) as parquet,
    ):
        schema = check_schema(parquet.schema_arrow, job.name)
        # A number of rows must be chosen before any is read; wide rows need fewer.
        rows = _rows_at_once(parquet.metadata)
        batches = (validate_batch(batch, job.name) for batch in parquet.iter_batches(rows))
        return write_batches(job, limits, schema, batches)


def _rows_at_once(metadata: pq.FileMetaData) -> int:
    """Return the rows of a batch of about `_BATCH_BYTES`, from the uncompressed sizes."""
    groups = (metadata.row_group(index) for index in range(metadata.num_row_groups))
    row_bytes = max((g.total_byte_size // max(g.num_rows, 1) for g in groups), default=0)
    return min(max(_BATCH_BYTES // max(row_bytes, 1), _BATCH_ROWS_MIN), _BATCH_ROWS_MAX)


def ingest_arrow(job: Job, limits: Limits) -> Ingested:
    """Read an Arrow IPC stream or file (Feather v2) and write it as shards."""
    # Arrow IPC has no smaller unit than a batch, so a larger one is refused before it is allocated.
    most = job.context.left_bytes_under(job.context.cap_bytes) // _ARROW_COPIES
    with (
        _open(job, "Arrow") as source,
        open_arrow(source, job.name, batch_bytes_max=most) as reader,
    ):
        return write_batches(job, limits, reader.schema, reader)


@contextmanager
def _open(job: Job, form: str) -> Iterator[pa.NativeFile]:
    """Open the parts as one Arrow file; convert Arrow's read errors to BadInput."""
    with (
        PartsFile(job.paths) as file,
        io.BufferedReader(file) as whole,
        pa.PythonFile(whole, mode="r") as source,
    ):
        try:
            yield source
        # Some are also OSErrors or ValueErrors, and must not match the next clause.
        except SennitError:
            raise
        except DAMAGE as error:
            reason = f"not a readable {form} file: {error}"
            raise BadInput(what=job.name, reason=reason) from error


def write_batches(
    job: Job,
    limits: Limits,
    schema: pa.Schema,
    batches: Iterable[pa.RecordBatch],
    report: Report | None = None,
    source: dict[str, Any] | None = None,
) -> Ingested:
    """Write batches as shards, with column types that the engines support.

    Args:
        job: The ingest.
        limits: Size limits of shards.
        schema: The schema of the batches.
        batches: The rows.
        report: The findings so far; None creates a new report.
        source: The detected properties of the file, shown with the dataset.

    Raises:
        Unsupported: A column's type has no counterpart here; names the column.
        BadInput: There are too many columns, or a value does not fit its type.
    """
    report = report or Report()
    strict = bool(job.options.get("strict"))
    check_schema(schema, job.name)
    names, report.renamed = settle_names(list(schema.names), strict=strict, what=job.name)
    target = plain_schema(schema, names)
    for field in target:
        check_fields(field.name, field.type)
    # Refuse a type that the engines do not support, naming the column.
    target = Schema.from_arrow(target).to_arrow()
    for field, stored in zip(schema, target, strict=True):
        if is_changed(field.type):
            kind = DataType.from_arrow(stored.type)
            report.note(f"read from {field.type} as {kind}", column=stored.name)
    match = None
    if job.schema is not None:
        match = job.match(target.names, report)
        target = match.schema
    writer = job.new_writer(limits)
    try:
        for batch in _plain_batches(batches, target, match):
            writer.write(batch, start=None, stop=None)
            job.tick(batch.nbytes, batch.num_rows)
        if not writer.shards:
            writer.write(pa.RecordBatch.from_pylist([], schema=target), start=None, stop=None)
        writer.cut()
    finally:
        writer.discard()
    _number(writer.shards)
    return writer.shards, target, report, source or {}


def _plain_batches(
    batches: Iterable[pa.RecordBatch], schema: pa.Schema, match: ColumnMatch | None
) -> Iterator[pa.RecordBatch]:
    for batch in batches:
        found = batch.columns if match is None else match.arranged(batch.columns, batch.num_rows)
        columns: list[Any] = []
        for column, field in zip(found, schema, strict=True):
            try:
                columns.append(plain_array(column, field.type))
            except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
                raise BadInput(what=f"column {field.name!r}", reason=str(error)) from error
            if not field.nullable:
                check_not_null(field.name, columns[-1].null_count)
        yield pa.RecordBatch.from_arrays(columns, schema=schema)


def check_not_null(column: str, nulls: int) -> None:
    """Refuse NULLs in a column that may have none."""
    if nulls:
        raise BadInput(
            what=f"column {column!r}",
            reason=f"it is NOT NULL, and {nulls} rows have no value in it",
            hint=f"ALTER TABLE … ALTER COLUMN {column} DROP NOT NULL allows them",
        )


def _number(shards: list[Shard]) -> None:
    rows = 0
    for shard in shards:
        shard.first_row = rows
        rows += shard.rows
