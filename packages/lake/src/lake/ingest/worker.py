"""Executor entry `lake.ingest`: convert an upload's parts to Parquet shards in a separate folder.

The worker only reads the parts and writes files; the lake adopts them after the worker has
finished, so a crash here leaves no visible state.

Request: `paths` `name` `folder` `options` `schema` `columns` and `layout` (append: the dataset's) `limits` `bytesMax`
`space` (see `lake.objects.disk_space.WriteLimit`) `seal` (see `lake.encryption.sealed.Seal`) `statements` and `waits` (see
`lake.statements.foreground`).
Response: `schema` `columns` `layout` `rows` `shards` `source` `report`.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any

from emsqrt.io.records import CsvDialect, record_ends
from emsqrt.memory.malloc_tuning import keep_freed_blocks, return_freed_blocks
from lake.catalog.layouts import Layout, parse_layout
from lake.encryption.files import source_bytes
from lake.ingest import json_table, tables
from lake.ingest.column_match import ColumnMatch
from lake.ingest.compressed import Compression, find_compression, unpack
from lake.ingest.declared_types import declared_kind
from lake.ingest.encode import CsvEncoder, Report
from lake.ingest.excel import convert_sheet, is_workbook
from lake.ingest.job import Ingested, Job
from lake.ingest.names import check_width, settle_names
from lake.ingest.rejects import Rejects
from lake.ingest.shards import Limits, Shard
from lake.ingest.sniff import Sniffed, sniff, sniff_format
from lake.ingest.source import TextSource
from sennit_core.errors import BadInput, UsageError, nearest
from sennit_core.file_kinds import check_readable
from sennit_core.schema import DataType, Schema
from sennit_core.units import MIB

if TYPE_CHECKING:
    import pyarrow as pa

    from emsqrt.executor import EntryContext

__all__ = ["OPTIONS", "OpenedCsv", "check_options", "open_csv", "run"]

OPTIONS = (
    "name",
    "delimiter",
    "header",
    "encoding",
    "strict",
    "dateOrder",
    "keepSource",
    "encrypt",
    "sheet",
    "columns",
    "onBadRow",
    "partitionBy",
    "sortBy",
)
_TEXT_FORMATS = ("csv", "xlsx")
_TEXT_OPTIONS = ("columns", "onBadRow")
_LAYOUT_OPTIONS = {"partition_by": "partitionBy", "sort_by": "sortBy"}
# Read and encoded at once: memory is a block with its copies and one row group, regardless of the
# file's size.
_BLOCK_BYTES = MIB
_BLOCK_COPIES = (
    12  # copies of a block: the text, parsed strings, typed columns, and a widening's second parse
)
_KEPT_BYTES = 16 * MIB
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
    form = _open_source(job, source)
    limits = Limits(**(request.get("limits") or _limits_for(job.size)))
    needed = _BLOCK_BYTES * _BLOCK_COPIES + 2 * limits.group_bytes
    # Reserved before it is allocated; a cap that is too small is refused here with its size.
    with (
        context.budget.acquire(needed, "ingest"),
        _freed_blocks_kept(context),
        job.source_hash() if request.get("hashSource") else nullcontext() as hashing,
    ):
        shards, schema, report, found = _INGEST[form](job, limits)
        if hashing is not None:
            source["sha256"] = hashing.finish(context.check)
    if form == "xlsx" and (errors := source.pop("errors")):
        report.note(f"{errors:,} cells with an Excel error are NULL")
    if job.is_unpacked:
        for shard in shards:  # an offset in the unpacked text is not an offset in the uploaded file
            shard.start = shard.stop = None
    _check_not_null(job, shards)
    shards, layout = _arranged(job, shards, schema)
    return {
        "schema": (job.schema or Schema.from_arrow(schema)).to_json(),
        "columns": job.columns,
        "layout": layout.to_json(),
        "rows": sum(shard.rows for shard in shards),
        "shards": [shard.to_json() for shard in shards],
        "source": {"format": form, **source, **found},
        "report": report.to_json(),
        "rejects": job.rejects.write(job.folder / "rejects.jsonl") if job.rejects else None,
    }


@contextmanager
def _freed_blocks_kept(context: EntryContext) -> Iterator[None]:
    """Let malloc keep the memory of one block for the next, which saves a fifth of the CPU.

    The kernel clears each page that it hands out, and an ingest allocates each byte of the file
    several times.
    """
    if not context.owns_process:
        yield
        return
    with context.budget.acquire(0, "freed blocks") as guard:
        guard.resize(keep_freed_blocks(context.budget, _KEPT_BYTES))
        try:
            yield
        finally:
            return_freed_blocks()


def _open_source(job: Job, source: dict[str, Any]) -> str:
    """Return the format of an upload, after unpacking it; add what was found to `source`."""
    if not is_workbook(job.paths, job.head):
        compression = find_compression(job.head)
        if compression is not None:
            source |= {"compression": compression.name, "bytesUnpacked": _unpack(job, compression)}
    if is_workbook(job.paths, job.head):
        form = "xlsx"
        source |= _convert(job)
    else:
        form = sniff_format(job.head, job.inner_name)
    asked = next((name for name in _TEXT_OPTIONS if job.options.get(name)), None)
    if asked is not None and form not in _TEXT_FORMATS:
        raise UsageError(f"the option {asked} is for CSV and Excel, and this is {form}")
    return form


def _arranged(job: Job, shards: list[Shard], schema: pa.Schema) -> tuple[list[Shard], Layout]:
    """Return the shards by the layout of the dataset, and this layout."""
    columns = job.columns or range(1, len(schema) + 1)
    stored = job.schema or Schema.from_arrow(schema)
    layout = job.layout
    asked = {name: job.options.get(option) or () for name, option in _LAYOUT_OPTIONS.items()}
    if any(asked.values()):
        layout = parse_layout(stored, columns, **asked)
    if not layout:
        return shards, layout
    # DuckDB is in `lake.sql`, which ingests need for this alone.
    from lake.sql.arrange import arrange

    writer = job.new_shard_writer(Limits(), columns)
    found = arrange(
        shards, stored.to_arrow(), layout, columns, writer, seal=job.seal, context=job.context
    )
    return found, layout


def _check_not_null(job: Job, shards: list[Shard]) -> None:
    """Refuse NULL in columns of the dataset that do not allow it."""
    for field in job.schema or ():
        if not field.nullable:
            nulls = sum(shard.stats[field.name]["nulls"] for shard in shards)
            tables.check_not_null(field.name, nulls)


def _unpack(job: Job, compression: Compression) -> int:
    """Replace the upload by the unpacked file; return its size in bytes."""
    packed_bytes = job.size
    target = job.new_file("unpacked")

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


def _convert(job: Job) -> dict[str, Any]:
    """Replace the workbook by a CSV file of its sheet; return what to report about it."""
    target = job.new_file("sheet.csv")
    sheet = job.options.get("sheet")
    if sheet is not None and not isinstance(sheet, str | int):
        raise UsageError("sheet is the name of a sheet, or its number from 1")
    found = convert_sheet(
        job.paths,
        target,
        what=job.name,
        sheet=sheet,
        memory_bytes=job.context.left_bytes_under(job.context.cap_bytes) // 2,
        tick=lambda _: job.context.check(),
    )
    if not source_bytes(target):
        raise BadInput(what=job.name, reason=f"the sheet {found.name!r} is empty")
    job.read_from([target])
    # The converter's own choices, whatever the sheet's text looks like.
    job.options = {**job.options, "delimiter": ",", "encoding": "utf-8"}
    return {"sheet": found.name, "sheets": list(found.names), "errors": found.errors}


def check_options(options: dict[str, Any]) -> dict[str, Any]:
    """Return the options; raise `UsageError` for an unknown one, naming the nearest option."""
    for name in options:
        if name not in OPTIONS:
            near = nearest(name, OPTIONS)
            hint = f"did you mean {near}?" if near else f"options: {', '.join(OPTIONS)}"
            raise UsageError(f"unknown ingest option {name!r}", hint=hint)
    if options.get("dateOrder") not in (None, "dmy", "mdy"):
        raise UsageError("dateOrder must be dmy or mdy")
    if options.get("onBadRow") not in (None, "fail", "skip"):
        raise UsageError("onBadRow must be fail or skip")
    for name in _LAYOUT_OPTIONS.values():
        asked = options.get(name) or []
        if not isinstance(asked, list) or not all(isinstance(each, str) for each in asked):
            raise UsageError(f'{name} is a list of texts: ["month(ts)", "country"]')
    _types_of(options)
    return options


def _limits_for(size: int) -> dict[str, int]:
    """Return limits that split a file of moderate size into about eight shards."""
    return {"source_bytes": max(_SHARD_SOURCE_MIN, size // _SHARDS_AIM)}


@dataclass(frozen=True)
class OpenedCsv:
    """A CSV file whose layout is known.

    Args:
        sniffed: The detected properties.
        source: Its text.
        names: The columns' names.
        renamed: The names that were changed.
        start: Byte offset of the first record of data.
        line: Its line.
    """

    sniffed: Sniffed
    source: TextSource
    names: list[str]
    renamed: list[dict[str, Any]]
    start: int
    line: int


def open_csv(job: Job, report: Report) -> OpenedCsv:
    """Detect the layout of a CSV file, and read its header."""
    sniffed = sniff(job.head, job.name, job.options, whole=len(job.head) == job.size)
    source = TextSource(
        job.paths,
        sniffed.encoding,
        CsvDialect(delimiter=sniffed.delimiter),
        line_end=sniffed.newline.encode(),
        block_bytes=_BLOCK_BYTES,
        what=job.name,
    )
    # The header is read with Python's parser, because the columns' names are needed to configure
    # Arrow's.
    fields, start, line = _first_record(source, sniffed, job, report)
    if sniffed.trailing:
        fields.append("")
    check_width(len(fields), job.name)
    found = fields if sniffed.header else _unnamed(len(fields), job.schema)
    strict = bool(job.options.get("strict")) and sniffed.header
    names, renamed = settle_names(found, strict=strict, what=job.name)
    return OpenedCsv(sniffed, source, names, renamed, start, line)


def _ingest_csv(job: Job, limits: Limits) -> Ingested:
    report = Report()
    opened = open_csv(job, report)
    types = _types_of(job.options, opened.names, job.name)
    match = None
    if job.schema is not None:
        match = job.match(opened.names, report, line=1)
        types = _types_of_dataset(match, opened.names, types, job.name)
    rejects = Rejects(job.name) if job.options.get("onBadRow") == "skip" else None
    encoder = CsvEncoder(
        opened.source,
        opened.names,
        what=job.name,
        strict=bool(job.options.get("strict")),
        date_order=job.options.get("dateOrder"),
        report=report,
        tick=job.tick,
        types=types,
        rejects=rejects,
    )
    if match is not None:
        encoder.append_to(match)
    if opened.sniffed.header:
        report.renamed = opened.renamed
    shards = encoder.encode(opened.start, job.size, opened.line, lambda: job.new_writer(limits))
    if rejects is not None and len(rejects):
        job.rejects, report.rejected = rejects, len(rejects)
    return shards, encoder.schema, report, opened.sniffed.to_json()


def _ingest_sheet(job: Job, limits: Limits) -> Ingested:
    """Ingest the CSV file of a sheet, whose layout is no property of the workbook."""
    shards, schema, report, found = _ingest_csv(job, limits)
    return shards, schema, report, {"header": found["header"]}


def _types_of(
    options: dict[str, Any], names: list[str] | None = None, what: str = ""
) -> dict[str, pa.DataType]:
    """Return the types of the option `columns`; with `names`, each must be one of them."""
    asked = options.get("columns") or {}
    if not isinstance(asked, dict):
        raise UsageError('columns is an object: {"zip": "Utf8"}')
    found = {}
    for name, written in asked.items():
        if names is not None and name not in names:
            near = nearest(name, tuple(names))
            hint = f"did you mean {near!r}?" if near else f"it has {', '.join(names[:20])}"
            raise UsageError(f"{what} has no column {name!r}", hint=hint)
        found[name] = _declared_type(written)
    return found


def _declared_type(written: object) -> pa.DataType:
    try:
        found = DataType.parse(written).to_arrow() if isinstance(written, str) else None
    except UsageError as error:
        raise UsageError(f"columns: {error.message}", hint=error.hint) from None
    if found is None or declared_kind(found) is None:
        raise UsageError(
            f"columns: {written!r} is no type of a column of text",
            hint="one without items and fields, such as Int64, Decimal(12,2) or Utf8",
        )
    return found


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


def _types_of_dataset(
    match: ColumnMatch, names: list[str], asked: dict[str, pa.DataType], what: str
) -> dict[str, pa.DataType]:
    """Return the types of a file's columns in an append, by their names in the file."""
    types = {}
    for field, source in zip(match.schema, match.sources, strict=True):
        if source is None:
            continue
        found = DataType.from_arrow(field.type)
        if declared_kind(field.type) is None:
            raise BadInput(
                what=what,
                reason=f"column {field.name!r} is {found}, which text cannot be read as",
                hint="append Parquet, Arrow or JSON Lines",
            )
        if asked.get(names[source], field.type) != field.type:
            raise UsageError(
                f"columns: {field.name!r} is {found} in the dataset",
                hint="leave it out, or change the dataset: ALTER TABLE … ALTER COLUMN … TYPE",
            )
        types[names[source]] = field.type
    return types


_INGEST: dict[str, Callable[[Job, Limits], Ingested]] = {
    "csv": _ingest_csv,
    "xlsx": _ingest_sheet,
    "parquet": tables.ingest_parquet,
    "arrow": tables.ingest_arrow,
    "arrow-stream": tables.ingest_arrow,
    "jsonl": json_table.ingest_json_lines,
    "json": json_table.ingest_json,
}
