"""Write results to local files as they arrive, so that they may be larger than memory."""

from __future__ import annotations

import json
import math
import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from sennit_core.errors import Unsupported

if TYPE_CHECKING:
    import pyarrow as pa

Write = Callable[[BinaryIO, "pa.Schema", "Iterator[pa.RecordBatch]"], None]


def write_file(
    form: str, path: str | os.PathLike[str], schema: pa.Schema, batches: Iterator[pa.RecordBatch]
) -> Path:
    """Write batches to a file that gets its final name when it is complete.

    Args:
        form: "csv", "json" (one object per line) or "parquet".
        path: The file; an existing one is replaced.
        schema: Schema of the batches.
        batches: The rows.

    Raises:
        Unsupported: The format cannot represent a column's type.
        OSError: The file cannot be written.
    """
    target = Path(path)
    with _replaced(target) as file:
        _FORMS[form](file, schema, batches)
    return target


@contextmanager
def _replaced(target: Path) -> Iterator[BinaryIO]:
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(4)}")
    try:
        with temporary.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _write_csv(file: BinaryIO, schema: pa.Schema, batches: Iterator[pa.RecordBatch]) -> None:
    import pyarrow as pa
    from pyarrow import csv

    for field in schema:
        if pa.types.is_nested(field.type) or pa.types.is_binary(field.type):
            raise Unsupported(
                f"CSV cannot represent column {field.name!r} of type {field.type}",
                hint="use write_parquet(...) or write_json(...), or drop the column",
            )
    with csv.CSVWriter(file, schema) as writer:
        for batch in batches:
            writer.write_batch(batch)


def _write_parquet(file: BinaryIO, schema: pa.Schema, batches: Iterator[pa.RecordBatch]) -> None:
    import pyarrow.parquet as pq

    with pq.ParquetWriter(file, schema, compression="zstd") as writer:
        for batch in batches:
            writer.write_batch(batch)


def _write_json(file: BinaryIO, schema: pa.Schema, batches: Iterator[pa.RecordBatch]) -> None:
    for batch in batches:
        file.writelines(_json_line(row) for row in batch.to_pylist())


def _json_line(row: dict[str, Any]) -> bytes:
    try:
        text = json.dumps(row, default=_json_value, ensure_ascii=False, allow_nan=False)
    except ValueError:  # JSON has no NaN and no Infinity: they become strings, as in results of SQL
        text = json.dumps(_without_odd_floats(row), default=_json_value, ensure_ascii=False)
    return text.encode() + b"\n"


def _without_odd_floats(value: Any) -> Any:
    match value:
        case dict():
            return {name: _without_odd_floats(each) for name, each in value.items()}
        case list():
            return [_without_odd_floats(each) for each in value]
        case float() if not math.isfinite(value):
            return str(value)
    return value


def _json_value(value: Any) -> Any:
    match value:
        case datetime() | date() | time():
            return value.isoformat()
        case timedelta() | Decimal():
            return str(value)
        case bytes():
            return value.hex()
    raise Unsupported(f"JSON cannot represent {value!r}", hint="use write_parquet(...)")


_FORMS: dict[str, Write] = {"csv": _write_csv, "json": _write_json, "parquet": _write_parquet}
