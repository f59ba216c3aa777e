"""Executor entry `lake.ingest`: convert an upload's parts to Parquet shards in a separate folder.

The worker only reads the parts and writes files; the lake adopts them after the worker has
finished, so a crash here leaves no visible state.

Request: `paths` `name` `folder` `options` `schema` and `columns` (append: the dataset's) `limits` `bytesMax`
`space` (see `lake.disk_space.WriteLimit`) `seal` (see `lake.sealed.Seal`).
Response: `schema` `columns` `rows` `shards` `source` `report`.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator
from itertools import chain
from typing import TYPE_CHECKING, Any

from emsqrt.io.records import CsvDialect, record_ends
from lake.ingest import json_table, tables
from lake.ingest.columns import KINDS
from lake.ingest.compressed import Compression, find_compression, unpack
from lake.ingest.encode import CsvEncoder, Report
from lake.ingest.job import Ingested, Job
from lake.ingest.names import check_width, settle_names
from lake.ingest.shards import Limits
from lake.ingest.sniff import Sniffed, sniff, sniff_format
from lake.ingest.source import TextSource
from sennit_core.errors import BadInput, UsageError, nearest
from sennit_core.file_kinds import check_readable
from sennit_core.schema import Schema
from sennit_core.units import MIB

if TYPE_CHECKING:
    from emsqrt.executor import EntryContext

__all__ = ["OPTIONS", "run"]

OPTIONS = (
    "name",
    "delimiter",
    "header",
    "encoding",
    "strict",
    "dateOrder",
    "keepSource",
    "encrypt",
)
# Read and encoded at once: memory is a block with its copies and one row group, regardless of the
# file's size.
_BLOCK_BYTES = MIB
_BLOCK_COPIES = (
    12  # copies of a block: the text, parsed strings, typed columns, and a widening's second parse
)
_SHARD_SOURCE_MIN = 4 * MIB
# A file of moderate size is split for parallel work; below 4 MiB, more shards would only add files.
_SHARDS_AIM = 8


def run(request: dict[str, Any], context: EntryContext) -> dict[str, Any]:
    """Ingest one upload; the module's docstring describes request and response."""
    options = check_options(request.get("options") or {})
    job = Job(request, options, context)
    source: dict[str, Any] = {"bytes": job.size}
    # By its first bytes, so that an image, for example, is refused before anything is reserved.
    check_readable(job.head, job.name)
    compression = find_compression(job.head)
    if compression is not None:
        source |= {"compression": compression.name, "bytesUnpacked": _unpack(job, compression)}
    limits = Limits(**(request.get("limits") or _limits_for(job.size)))
    needed = _BLOCK_BYTES * _BLOCK_COPIES + 2 * limits.group_bytes
    # Reserved before it is allocated; a cap that is too small is refused here with its size.
    with context.budget.acquire(needed, "ingest"):
        form = sniff_format(job.head, job.inner_name)
        shards, schema, report, found = _INGEST[form](job, limits)
    if compression is not None:
        for shard in shards:  # an offset in the unpacked text is not an offset in the uploaded file
            shard.start = shard.stop = None
    if job.schema is not None:
        for field in job.schema:
            if not field.nullable:
                nulls = sum(shard.stats[field.name]["nulls"] for shard in shards)
                tables.check_not_null(field.name, nulls)
    return {
        "schema": (job.schema or Schema.from_arrow(schema)).to_json(),
        "columns": job.columns,
        "rows": sum(shard.rows for shard in shards),
        "shards": [shard.to_json() for shard in shards],
        "source": {"format": form, **source, **found},
        "report": report.to_json(),
    }


def _unpack(job: Job, compression: Compression) -> int:
    """Replace the upload by the unpacked file; return its size in bytes."""
    packed_bytes = job.size
    target = job.folder / "unpacked"

    def tick(bytes_read: int) -> None:
        job.context.check()
        job.context.progress(
            bytes_done=bytes_read, bytes_total=packed_bytes, rows=0, phase="unpacking"
        )

    unpack(
        job.paths,
        compression,
        target,
        what=job.name,
        bytes_max=job.bytes_max,
        space=job.space.without_quota(),
        tick=tick,
    )
    # From here on the unpacked file is the upload: its size and its head replace those of the
    # parts.
    job.read_from([target])
    check_readable(job.head, f"{job.inner_name} in {job.name}")
    again = find_compression(job.head)
    if again is not None:
        raise BadInput(
            what=job.name,
            reason=f"the {compression.name} file holds a {again.name} file",
            hint="unpack it once, and upload the file in it",
        )
    return job.size


def check_options(options: dict[str, Any]) -> dict[str, Any]:
    """Return the options; raise `UsageError` for an unknown one, naming the nearest option."""
    for name in options:
        if name not in OPTIONS:
            near = nearest(name, OPTIONS)
            hint = f"did you mean {near}?" if near else f"options: {', '.join(OPTIONS)}"
            raise UsageError(f"unknown ingest option {name!r}", hint=hint)
    if options.get("dateOrder") not in (None, "dmy", "mdy"):
        raise UsageError("dateOrder must be dmy or mdy")
    return options


def _limits_for(size: int) -> dict[str, int]:
    """Return limits that split a file of moderate size into about eight shards."""
    return {"source_bytes": max(_SHARD_SOURCE_MIN, size // _SHARDS_AIM)}


def _ingest_csv(job: Job, limits: Limits) -> Ingested:
    sniffed = sniff(job.head, job.name, job.options, whole=len(job.head) == job.size)
    source = TextSource(
        job.paths,
        sniffed.encoding,
        CsvDialect(delimiter=sniffed.delimiter),
        line_end=sniffed.newline.encode(),
        block_bytes=_BLOCK_BYTES,
        what=job.name,
    )
    strict = bool(job.options.get("strict"))
    report = Report()
    # The header is read with Python's parser, because the columns' names are needed to configure
    # Arrow's.
    fields, start, line = _first_record(source, sniffed, job, report)
    if sniffed.trailing:
        fields.append("")
    check_width(len(fields), job.name)
    found = fields if sniffed.header else _unnamed(len(fields), job.schema)
    names, renamed = settle_names(found, strict=strict and sniffed.header, what=job.name)
    encoder = CsvEncoder(
        source,
        names,
        what=job.name,
        strict=strict,
        date_order=job.options.get("dateOrder"),
        report=report,
        tick=job.tick,
    )
    if job.schema is not None:
        encoder.fix(_kinds_of(job.schema, names, job.name))
    if sniffed.header:
        report.renamed = renamed
    shards = encoder.encode(start, job.size, line, lambda: job.new_writer(limits))
    return shards, encoder.schema, report, sniffed.to_json()


def _first_record(
    source: TextSource, sniffed: Sniffed, job: Job, report: Report
) -> tuple[list[str], int, int]:
    """Return the fields of the table's first record; offset and line of the first data record."""
    above = sniffed.skipped
    for block in source.blocks(sniffed.start, job.size):
        for begin, end in _records_in(block.data, source):
            record = block.data[begin:end]
            line = block.line + block.data[:begin].count(source.line_end)
            # Reported, so that a title line is not lost silently.
            if above:
                above -= 1
                report.note(f"above the table, not read: {record.decode().strip()[:80]}", line=line)
                continue
            fields = next(
                csv.reader(
                    io.StringIO(record.decode(), newline=""), delimiter=source.dialect.delimiter
                )
            )
            if not sniffed.header:
                return fields, block.start + source.length(block.data[:begin]), line
            after = block.start + source.length(block.data[:end])
            return fields, after, line + record.count(source.line_end)
    raise BadInput(what=job.name, byte_offset=0, reason="the file holds no records")


def _unnamed(count: int, schema: Schema | None) -> list[str]:
    """Return names for a file without a header: the dataset's, if the file is appended to one."""
    if schema is not None and len(schema) == count:
        return list(schema.names)
    return [""] * count


def _records_in(data: bytes, source: TextSource) -> Iterator[tuple[int, int]]:
    """Yield start and end of each record that is not blank."""
    start = 0
    for end in chain(record_ends(data, len(data), source.dialect), (len(data),)):
        if data[start:end].strip(b"\r\n"):
            yield start, end
        start = end


def _kinds_of(schema: Schema, names: list[str], what: str) -> list[str]:
    """Return the kinds that yield exactly the dataset's types, for an append."""
    if tuple(names) != schema.names:
        raise BadInput(
            what=what,
            line=1,
            reason=f"its columns are {', '.join(names)}; the dataset has {', '.join(schema.names)}",
        )
    # One kind for each type, in the notation that the other kinds are converted to. Appended values
    # must have it, as there is no sample of the dataset's own text.
    plain = ("bool", "int", "float", "date", "timestamp", "timestamp-utc", "text")
    by_type = {KINDS[kind].type: kind for kind in plain}
    types = schema.to_arrow().types
    unknown = [n for n, t in zip(names, types, strict=True) if t not in by_type]
    if unknown:
        raise BadInput(what=what, reason=f"column {unknown[0]!r} cannot be read from CSV text")
    return [by_type[arrow_type] for arrow_type in types]


_INGEST: dict[str, Callable[[Job, Limits], Ingested]] = {
    "csv": _ingest_csv,
    "parquet": tables.ingest_parquet,
    "arrow": tables.ingest_arrow,
    "arrow-stream": tables.ingest_arrow,
    "jsonl": json_table.ingest_json_lines,
    "json": json_table.ingest_json,
}
