"""Uploads that carry types: Parquet, Arrow IPC and JSON lines, written again as shards."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyarrow import json as arrow_json

from emsqrt.io.json_depth import refuse_deep_json
from emsqrt.io.records import CsvDialect
from lake.ingest.encode import Report
from lake.ingest.names import settle_names
from lake.ingest.shards import Limits, Shard
from lake.ingest.source import PartsFile, TextSource
from sennit_core.arrow_ipc import DAMAGE, check_schema, open_arrow, validate_batch
from sennit_core.errors import BadInput, SennitError
from sennit_core.schema import Schema
from sennit_core.units import MIB

if TYPE_CHECKING:
    from lake.ingest.worker import Ingested, Job

__all__ = ["ingest_arrow", "ingest_json_lines", "ingest_parquet"]

_BATCH_ROWS = 16_384
_ARROW_COPIES = 3  # a batch as stored, decompressed, and cast to the dataset's types
_LINES = CsvDialect(delimiter=",", quote=None)


def ingest_parquet(job: Job, limits: Limits) -> Ingested:
    """Validate a Parquet file by reading it whole, and cut it into shards."""
    with _open(job, "Parquet") as source, pq.ParquetFile(source) as parquet:
        batches = (validate_batch(b, job.name) for b in parquet.iter_batches(_BATCH_ROWS))
        return _write(job, limits, parquet.schema_arrow, batches)


def ingest_arrow(job: Job, limits: Limits) -> Ingested:
    """Read an Arrow IPC stream or file (Feather v2) and cut it into shards."""
    most = job.context.left_bytes_under(job.context.cap_bytes) // _ARROW_COPIES
    with (
        _open(job, "Arrow") as source,
        open_arrow(source, job.name, batch_bytes_max=most) as reader,
    ):
        return _write(job, limits, reader.schema, reader)


@contextmanager
def _open(job: Job, form: str) -> Iterator[pa.NativeFile]:
    """The parts as one Arrow file; what Arrow cannot read is the file's fault."""
    with (
        PartsFile(job.paths) as file,
        io.BufferedReader(file) as whole,
        pa.PythonFile(whole, mode="r") as source,
    ):
        try:
            yield source
        except SennitError:
            raise
        except DAMAGE as error:
            reason = f"not a readable {form} file: {error}"
            raise BadInput(what=job.name, reason=reason) from error


def ingest_json_lines(job: Job, limits: Limits) -> Ingested:
    """Read JSON lines; the columns and types are those of the whole file, found in a first pass."""
    text = TextSource(job.paths, "utf-8", _LINES, block_bytes=MIB, what=job.name)
    schema = pa.schema([])
    for block in text.blocks(0, job.size):
        found = _read_json(job, block.data, block.line, None).schema
        try:
            schema = pa.unify_schemas([schema, found], promote_options="permissive")
        except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
            raise BadInput(what=job.name, line=block.line, reason=str(error)) from error
        job.context.check()
    schema = pa.schema([_settled(field) for field in schema])
    batches = (
        batch
        for block in text.blocks(0, job.size)
        for batch in _read_json(job, block.data, block.line, schema).to_batches()
    )
    with closing(batches):
        return _write(job, limits, schema, batches)


def _settled(field: pa.Field) -> pa.Field:
    if pa.types.is_null(field.type):
        return field.with_type(pa.string())
    if pa.types.is_timestamp(field.type):
        return field.with_type(pa.timestamp("us", tz=field.type.tz))
    return field


def _read_json(job: Job, data: bytes, line: int, schema: pa.Schema | None) -> pa.Table:
    refuse_deep_json(data, job.name, line)
    options = arrow_json.ParseOptions(explicit_schema=schema)
    blocks = arrow_json.ReadOptions(use_threads=False, block_size=len(data) + 1)
    try:
        with pa.BufferReader(data) as source:
            return arrow_json.read_json(source, read_options=blocks, parse_options=options)
    except pa.ArrowInvalid as error:
        reason = f"{error} (in the records from this line on)"
        raise BadInput(what=job.name, line=line, reason=reason) from error


def _write(
    job: Job, limits: Limits, schema: pa.Schema, batches: Iterable[pa.RecordBatch]
) -> Ingested:
    report = Report()
    strict = bool(job.options.get("strict"))
    check_schema(schema, job.name)
    names, report.renamed = settle_names(list(schema.names), strict=strict, what=job.name)
    target = _plain_schema(schema, names)
    # Refuses, by name, a type that no engine here could answer for.
    target = Schema.from_arrow(target).to_arrow()
    if job.schema is not None:
        target = _same_columns(job, target)
    writer = job.new_writer(limits)
    try:
        for batch in _plain_batches(batches, target):
            writer.write(batch, start=None, stop=None)
            job.tick(batch.nbytes, batch.num_rows)
        if not writer.shards:
            writer.write(pa.RecordBatch.from_pylist([], schema=target), start=None, stop=None)
        writer.cut()
    finally:
        writer.discard()
    _number(writer.shards)
    return writer.shards, target, report, {}


def _plain_schema(schema: pa.Schema, names: list[str]) -> pa.Schema:
    """No dictionaries, views or large offsets, and no metadata of other systems."""
    fields = zip(names, schema, strict=True)
    return pa.schema([pa.field(name, _plain_type(field.type)) for name, field in fields])


def _plain_type(arrow_type: pa.DataType) -> pa.DataType:
    types = pa.types
    if types.is_dictionary(arrow_type):
        return _plain_type(arrow_type.value_type)
    if types.is_large_string(arrow_type) or types.is_string_view(arrow_type):
        return pa.string()
    if types.is_large_binary(arrow_type) or types.is_binary_view(arrow_type):
        return pa.binary()
    if types.is_null(arrow_type):
        return pa.string()
    if types.is_large_list(arrow_type):
        return pa.list_(_plain_type(arrow_type.value_type))
    return arrow_type


def _same_columns(job: Job, schema: pa.Schema) -> pa.Schema:
    """The dataset's own schema, when this one's values fit it without loss."""
    assert job.schema is not None
    own = job.schema.to_arrow()
    if own.names != schema.names:
        raise BadInput(
            what=job.name,
            reason=f"its columns are {', '.join(schema.names)}; the dataset has "
            f"{', '.join(own.names)}",
        )
    return own


def _plain_batches(
    batches: Iterable[pa.RecordBatch], schema: pa.Schema
) -> Iterator[pa.RecordBatch]:
    for batch in batches:
        columns: list[Any] = []
        for column, field in zip(batch.columns, schema, strict=True):
            try:
                if pa.types.is_run_end_encoded(column.type):
                    column = pc.run_end_decode(column)
                columns.append(column.cast(field.type))
            except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
                raise BadInput(what=f"column {field.name!r}", reason=str(error)) from error
        yield pa.RecordBatch.from_arrays(columns, schema=schema)


def _number(shards: list[Shard]) -> None:
    rows = 0
    for shard in shards:
        shard.first_row = rows
        rows += shard.rows
