"""Decide whether a file can be linked: whether DuckDB reads from it what its ingest would store.

The ingest's own reader infers the columns from the beginning of the file, and DuckDB reads the same
records where they are. The file is linked if both agree in every value; what comes later in the file
is guarded by the expressions of `lake.sql.linked_files`.

Request: `path` `name` `options` `file`. Response: `reader` and `schema`, or `reason`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from lake.ingest.compressed import find_compression
from lake.ingest.encode import CsvEncoder, Report
from lake.ingest.excel import is_workbook
from lake.ingest.job import Job
from lake.ingest.names import settle_names
from lake.ingest.plain import is_changed, plain_schema
from lake.ingest.sniff import sniff_format
from lake.ingest.worker import check_options, open_csv
from lake.links.local_files import LocalFile
from lake.sql.linked_files import LINKABLE_KINDS, LinkedFile
from lake.sql.session import open_session
from lake.sql.tables import Table
from lake.sql.types import quoted, shard_types
from sennit_core.arrow_ipc import DAMAGE, check_schema
from sennit_core.errors import BadInput, Unsupported
from sennit_core.file_kinds import check_readable
from sennit_core.schema import Schema

if TYPE_CHECKING:
    from emsqrt.executor import EntryContext
    from lake.sql.session import SqlLimits

__all__ = ["probe_link"]

_TABLE = "linked"
_GLOB = "*?[{"
_PARQUET_ROWS = 1024
# Options under which the ingest does more than DuckDB's reader can.
_INGEST_ONLY = (
    *("columns", "onBadRow", "dateOrder", "keepSource", "encrypt", "partitionBy", "sortBy"),
)


class _NotLinkable(Exception):
    """The reason for which a file must be ingested before it is queried."""


def probe_link(request: dict[str, Any], context: EntryContext, limits: SqlLimits) -> dict[str, Any]:
    """Examine a file; the module's docstring describes request and response.

    Raises:
        BadInput: The file holds no table, so that its ingest would fail too.
    """
    options = check_options(request.get("options") or {})
    job = Job(request | {"paths": [request["file"]["path"]]}, options, context)
    check_readable(job.head, job.name)
    try:
        return _probe(job, LocalFile.from_json(request["file"]), limits)
    except _NotLinkable as reason:
        return {"reason": str(reason)}


def _probe(job: Job, file: LocalFile, limits: SqlLimits) -> dict[str, Any]:
    _check_general(job, file)
    form = sniff_format(job.head, job.name)
    if form == "csv":
        link, schema, sample = _csv(job, file)
    elif form == "parquet":
        link, schema, sample = _parquet(job, file)
    else:
        raise _NotLinkable(f"{form} files are ingested before they are queried")
    _compare(link, schema, sample, limits)
    return {"reader": link.reader, "schema": schema.to_json()}


def _check_general(job: Job, file: LocalFile) -> None:
    if is_workbook(job.paths, job.head):
        raise _NotLinkable("it is an Excel workbook")
    compression = find_compression(job.head)
    if compression is not None:
        raise _NotLinkable(f"it is compressed with {compression.name}")
    if any(character in file.path for character in _GLOB):
        raise _NotLinkable("its path has a character of a file pattern")
    asked = next((name for name in _INGEST_ONLY if job.options.get(name)), None)
    if asked is not None:
        raise _NotLinkable(f"the option {asked} needs an ingest")


def _csv(job: Job, file: LocalFile) -> tuple[LinkedFile, Schema, pa.Table]:
    opened = open_csv(job, Report())
    if opened.source.encoding != "utf-8":
        raise _NotLinkable(f"its encoding is {opened.source.encoding}, not UTF-8")
    if opened.source.line_end != b"\n":
        raise _NotLinkable("its lines end with CR")
    if len(opened.names) == 1:
        # An empty line is a record of one column here, and none for DuckDB.
        raise _NotLinkable("it has a single column")
    encoder = CsvEncoder(opened.source, opened.names, what=job.name)
    block = next(opened.source.blocks(opened.start, job.size, opened.line), None)
    if block is None:
        raise _NotLinkable("it has no rows")
    sample = encoder.encode_block(block)
    if block.mended:
        raise _NotLinkable("it has bytes that are not UTF-8")
    assert encoder.kinds is not None
    for name, kind in zip(opened.names, encoder.kinds, strict=True):
        if kind not in LINKABLE_KINDS:
            raise _NotLinkable(f"DuckDB cannot read column {name!r} as {kind} values")
    link = LinkedFile(
        file, "csv", opened.source.dialect.delimiter, opened.line - 1, tuple(encoder.kinds)
    )
    return link, Schema.from_arrow(encoder.schema), pa.Table.from_batches([sample])


def _parquet(job: Job, file: LocalFile) -> tuple[LinkedFile, Schema, pa.Table]:
    try:
        with pq.ParquetFile(file.path) as parquet:
            found = check_schema(parquet.schema_arrow, job.name)
            batches = parquet.iter_batches(_PARQUET_ROWS)
            sample = pa.Table.from_batches(
                [batch for batch in [next(batches, None)] if batch is not None], found
            )
    except DAMAGE as error:
        reason = f"not a readable Parquet file: {error}"
        raise BadInput(what=job.name, reason=reason) from error
    names, renamed = settle_names(list(found.names), strict=False, what=job.name)
    if renamed or any(is_changed(field.type) for field in found):
        raise _NotLinkable("its columns are renamed or converted when they are ingested")
    try:
        schema = Schema.from_arrow(plain_schema(found, names))
    except Unsupported as error:
        raise BadInput(what=job.name, reason=str(error)) from error
    return LinkedFile(file, "parquet"), schema, sample.cast(schema.to_arrow())


def _compare(link: LinkedFile, schema: Schema, sample: pa.Table, limits: SqlLimits) -> None:
    """Read the sample's records with DuckDB too, and compare types and values."""
    import duckdb

    table = Table(_TABLE, "", schema, (), link=link)
    try:
        with open_session([table], [_TABLE], limits) as connection:
            described = connection.execute(f"DESCRIBE {quoted(_TABLE)}").fetchall()
            columns = ", ".join(
                f"NULL::{kind} AS {quoted(name)}" for name, kind in shard_types(schema).items()
            )
            if described != connection.execute(f"DESCRIBE SELECT {columns}").fetchall():
                raise _NotLinkable("DuckDB reads its columns with other types")
            query = f"SELECT * FROM {quoted(_TABLE)} LIMIT {len(sample)}"
            found = connection.sql(query).to_arrow_table()
    except (duckdb.Error, pa.ArrowException) as error:
        text = str(error).partition("\n")[0].replace(link.file.path, link.file.name)
        raise _NotLinkable(f"DuckDB cannot read its beginning ({text[:200]})") from None
    for name in schema.names:
        if not _equal(found.column(name), sample.column(name)):
            raise _NotLinkable(f"DuckDB reads column {name!r} differently")


def _equal(found: pa.ChunkedArray, expected: pa.ChunkedArray) -> bool:
    if found.type == expected.type and found.equals(expected):
        return True
    # By text, as NaN is not equal to itself, and nested types have fields of other names.
    return bool(len(found) == len(expected)) and repr(found.to_pylist()) == repr(
        expected.to_pylist()
    )
