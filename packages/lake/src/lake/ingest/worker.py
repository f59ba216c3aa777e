"""Executor entry `lake.ingest`: an upload's parts to Parquet shards in a folder of its own.

The worker only reads the parts and writes files beside each other; what becomes of them is decided
by the lake after it has answered, so a crash here leaves nothing that anyone sees.

Request: `paths` `name` `folder` `options` `schema` (append: the dataset's) `limits`.
Answer: `schema` `rows` `shards` `source` `report`.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from emsqrt.io.records import CsvDialect, record_ends
from lake.ingest import tables
from lake.ingest.columns import KINDS
from lake.ingest.encode import CsvEncoder, Report
from lake.ingest.names import settle_names
from lake.ingest.shards import Limits, Shard, ShardWriter
from lake.ingest.sniff import SAMPLE_BYTES, Sniffed, sniff, sniff_format
from lake.ingest.source import PartsFile, TextBlock, TextSource
from sennit_core.arrow_ipc import COLUMNS_MAX
from sennit_core.errors import BadInput, UsageError, nearest
from sennit_core.schema import Schema
from sennit_core.units import MIB

if TYPE_CHECKING:
    from emsqrt.executor import Context

__all__ = ["OPTIONS", "run"]

OPTIONS = (
    "name",
    "delimiter",
    "header",
    "encoding",
    "strict",
    "dateOrder",
    "keepSource",
)
_BLOCK_BYTES = MIB
_BLOCK_COPIES = 12  # the text, its parsed strings, typed columns and the widening's second try
_SHARD_SOURCE_MIN = 4 * MIB
_SHARDS_AIM = 8


def run(request: dict[str, Any], context: Context) -> dict[str, Any]:
    """Ingest one upload; see the module's first lines for request and answer."""
    options = check_options(request.get("options") or {})
    job = Job(request, options, context)
    limits = Limits(**(request.get("limits") or _limits_for(job.size)))
    needed = _BLOCK_BYTES * _BLOCK_COPIES + 2 * limits.group_bytes
    with context.budget.acquire(needed, "ingest"):
        form = sniff_format(job.head, job.name)
        shards, schema, report, found = _INGEST[form](job, limits)
    return {
        "schema": Schema.from_arrow(schema).to_json(),
        "rows": sum(shard.rows for shard in shards),
        "shards": [shard.to_json() for shard in shards],
        "source": {"format": form, "bytes": job.size, **found},
        "report": report.to_json(),
    }


def check_options(options: dict[str, Any]) -> dict[str, Any]:
    """The options, or `UsageError` naming the nearest one there is."""
    for name in options:
        if name not in OPTIONS:
            near = nearest(name, OPTIONS)
            hint = f"did you mean {near}?" if near else f"known are {', '.join(OPTIONS)}"
            raise UsageError(f"unknown ingest option {name!r}", hint=hint)
    if options.get("dateOrder") not in (None, "dmy", "mdy"):
        raise UsageError("dateOrder is dmy or mdy")
    return options


class Job:
    """The request, with the first bytes of the file."""

    def __init__(self, request: dict[str, Any], options: dict[str, Any], context: Context) -> None:
        self.paths = [Path(path) for path in request["paths"]]
        self.name: str = request["name"]
        self.folder = Path(request["folder"])
        self.options = options
        self.schema = Schema.from_json(request["schema"]) if request.get("schema") else None
        self.context = context
        self._bytes_done = 0
        self._rows = 0
        self._passes = 0
        with PartsFile(self.paths) as file:
            self.size = file.size
            self.head = read_head(file, SAMPLE_BYTES)
        if not self.size:
            raise BadInput(what=self.name, byte_offset=0, reason="the file is empty")

    def new_writer(self, limits: Limits) -> ShardWriter:
        self._passes += 1
        return ShardWriter(self.folder, limits, f"pass{self._passes}")

    def tick(self, bytes_read: int, rows: int) -> None:
        self._bytes_done += bytes_read
        if self._passes == 1:
            self._rows += rows
        self.context.check()
        self.context.progress(
            bytes_done=min(self._bytes_done, self.size),
            bytes_total=self.size,
            rows=self._rows,
            phase="reading" if self._passes == 1 else "widening",
        )


def read_head(file: PartsFile, count: int) -> bytes:
    """Up to `count` bytes from the file's start, across parts."""
    pieces = []
    while count > 0 and (piece := file.read(count)):
        pieces.append(piece)
        count -= len(piece)
    return b"".join(pieces)


def _limits_for(size: int) -> dict[str, int]:
    """Cut a file of moderate size into about eight shards, so that work on it has parts."""
    return {"source_bytes": max(_SHARD_SOURCE_MIN, size // _SHARDS_AIM)}


Ingested = tuple[list[Shard], pa.Schema, Report, dict[str, Any]]


Ingest = Callable[["Job", Limits], Ingested]


def _ingest_csv(job: Job, limits: Limits) -> Ingested:
    _refuse_columns(job.head.partition(b"\n")[0], b",;\t|", job.name)
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
    fields, start, line = _first_record(source, sniffed, job)
    found = fields if sniffed.header else _unnamed(len(fields), job.schema)
    names, renamed = settle_names(found, strict=strict and sniffed.header, what=job.name)
    encoder = CsvEncoder(
        source,
        names,
        what=job.name,
        strict=strict,
        date_order=job.options.get("dateOrder"),
        tick=job.tick,
    )
    if job.schema is not None:
        encoder.fix(_kinds_of(job.schema, names, job.name))
    if sniffed.header:
        encoder.report.renamed = renamed
    shards = encoder.encode(start, job.size, line, lambda: job.new_writer(limits))
    return shards, encoder.schema, encoder.report, sniffed.to_json()


def _first_record(source: TextSource, sniffed: Sniffed, job: Job) -> tuple[list[str], int, int]:
    """Fields of the first record; offset and line of the first record of data."""
    for block in source.blocks(sniffed.start, job.size):
        found = _record_in(block, source, job)
        if found is not None:
            return found if sniffed.header else (found[0], sniffed.start, 1)
    raise BadInput(what=job.name, byte_offset=0, reason="the file holds no records")


def _unnamed(count: int, schema: Schema | None) -> list[str]:
    """Names where the file has none: those of the dataset that it is appended to."""
    if schema is not None and len(schema) == count:
        return list(schema.names)
    return [""] * count


def _record_in(block: TextBlock, source: TextSource, job: Job) -> tuple[list[str], int, int] | None:
    """The block's first record that is not blank, and the offset and line after it."""
    data, start = block.data, 0
    for end in chain(record_ends(data, len(data), source.dialect), (len(data),)):
        record = data[start:end]
        if record.strip(b"\r\n"):
            fields = _fields_of(record, source.dialect.delimiter, job.name)
            lines = data[:end].count(source.line_end)
            return fields, block.start + source.length(data[:end]), block.line + lines
        start = end
    return None


def _fields_of(record: bytes, delimiter: str, what: str) -> list[str]:
    """Split the first record; refuses millions of columns before they are made."""
    _refuse_columns(record, delimiter.encode(), what)
    return next(csv.reader(io.StringIO(record.decode(), newline=""), delimiter=delimiter))


def _refuse_columns(record: bytes, delimiters: bytes, what: str) -> None:
    if b'"' in record:  # delimiters may be inside of a value
        return
    count = 1 + max(record.count(delimiter) for delimiter in delimiters)
    if count > COLUMNS_MAX:
        reason = f"it has {count} columns or more, at most {COLUMNS_MAX} are read"
        raise BadInput(what, line=1, reason=reason)


def _kinds_of(schema: Schema, names: list[str], what: str) -> list[str]:
    """Kinds that give exactly the dataset's types, for appending to it."""
    if tuple(names) != schema.names:
        raise BadInput(
            what=what,
            line=1,
            reason=f"its columns are {', '.join(names)}; the dataset has {', '.join(schema.names)}",
        )
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
    "jsonl": tables.ingest_json_lines,
}
