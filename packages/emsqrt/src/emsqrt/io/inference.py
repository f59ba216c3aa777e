"""Infer the columns of files without a schema."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from emsqrt._kernel import RecordFault
from emsqrt.io.csv_inference import infer_columns
from emsqrt.io.csv_options import CsvOptions, first_block, read_header
from emsqrt.io.inputs import opened_locations, reads_partitions
from emsqrt.io.json_lines import JsonlOptions, first_lines, infer_lines
from emsqrt.io.partitions import merged_schema
from emsqrt.io.records import way_on
from emsqrt.io.sources import ByteSource, line_at, open_source
from emsqrt.plan import DatasetRef, Files
from emsqrt.process_setup import require_arrow
from sennit_core.errors import BadInput, UsageError
from sennit_core.schema import DataType, Field, Schema

_SAMPLE_BYTES = 1 << 20


def infer_schema(
    source: Files | DatasetRef, folder: Path | None = None, cap_bytes: int | None = None
) -> Schema:
    """Return the columns of a source: those of its first file, then those of folder names.

    Args:
        source: the files.
        folder: the folder of relative paths.
        cap_bytes: the run's memory cap, which limits the length of a first line of JSON.
    """
    places, options, _ = opened_locations(source, folder)
    assert isinstance(source, Files), "only files have paths"
    if not places:
        raise UsageError("a source without files needs a schema of its own")
    schema = _infer_first(open_source(places[0]), source.format, options, cap_bytes)
    return merged_schema(schema, places) if reads_partitions(source) else schema


def _infer_first(
    first: ByteSource, kind: str, options: dict[str, Any], cap_bytes: int | None
) -> Schema:
    if kind == "csv":
        return infer_csv_schema(first, CsvOptions.from_json(options))
    if kind == "jsonl":
        JsonlOptions.from_json(options)
        return infer_lines(first_lines(first, _SAMPLE_BYTES, cap_bytes), first.name)
    require_arrow(f"the columns of {kind} files")
    if kind == "parquet":
        from emsqrt.io.parquet_scan import infer_parquet_schema

        return infer_parquet_schema(first)
    from emsqrt.io.arrow_scan import infer_arrow_schema

    return infer_arrow_schema(first)


def infer_csv_schema(source: ByteSource | Path, options: CsvOptions) -> Schema:
    """Return the columns with types inferred from the first megabyte; all are nullable.

    A column without any value in it is Utf8. Later rows that do not fit the type are `BadInput`;
    a schema in the plan avoids that.
    """
    source = options.decoded(source)
    names, start = read_header(source, options)
    data, offset = first_block(source, options, _SAMPLE_BYTES)
    data = data[start - offset :]
    if not data.strip():
        return Schema(tuple(Field(name, DataType("Utf8")) for name in names))
    try:
        return infer_columns(names, data, options)
    except RecordFault as fault:
        place = start + fault.offset
        if fault.reason == "ragged":
            reason = f"{fault.field} fields, expected {len(names)}"
        elif fault.reason == "encoding":
            reason = f"column {names[fault.field]!r} is not UTF-8"
        else:
            reason = f"column {names[fault.field]!r} cannot be read: {fault.reason}"
        line = line_at(source, place)
        hint = way_on(fault.reason, names)
        raise BadInput(
            source.name,
            line=line,
            byte_offset=source.stored_offset(place),
            reason=reason,
            hint=hint,
        ) from None
