"""Flips bits of a Parquet file one after the other and reads it; prints what was not right.

    python damaged_parquet.py FILE FIRST STEP BITS

Each line is the JSON of [byte, bit, what happened]; the last one is ["done", flips]. What ends the
process has a line before it that begins with "at".
"""

from __future__ import annotations

import json
import sys
import tempfile
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa

from emsqrt.expr import col
from emsqrt.io.parquet_scan import ParquetScan, infer_parquet_schema
from emsqrt.io.pruning import conditions_of
from emsqrt.memory import MemoryBudget
from emsqrt.planner.footers import measure_parquet
from sennit_core.errors import (
    BadInput,
    CapTooSmall,
    Corrupt,
    SennitError,
    UnknownColumn,
    Unsupported,
)

OF_THE_FILE = (BadInput, CapTooSmall, Corrupt, UnknownColumn, Unsupported)
BUDGET_BYTES = 64 << 20


def read(path: Path) -> list[dict[str, Any]]:
    """Read a file as an engine does: its schema, its statistics, some row groups, all of them."""
    schema = infer_parquet_schema(path)
    with suppress(OSError, ValueError, OverflowError, SennitError):  # as the planner does
        measure_parquet([path], path.stat().st_size, schema)
    conditions = conditions_of(col("id") > 250) if "id" in schema.names else ()
    list(batches(ParquetScan(path, schema, MemoryBudget(BUDGET_BYTES), conditions=conditions)))
    rows = ParquetScan(path, schema, MemoryBudget(BUDGET_BYTES))
    table = pa.Table.from_batches(batches(rows), schema.to_arrow())
    found: list[dict[str, Any]] = table.to_pylist()
    return found


def batches(scan: ParquetScan) -> Any:
    """Yield what a scan reads."""
    with MemoryBudget(BUDGET_BYTES).admit(scan.need_bytes, "scan", scan.need_because) as guard:
        yield from scan.batches(guard)


def flip(data: bytes, at: int, bit: int, path: Path, wanted: list[dict[str, Any]]) -> str | None:
    """Read a file with one bit flipped; return what is wrong with the outcome."""
    damaged = bytearray(data)
    damaged[at] ^= 1 << bit
    path.write_bytes(damaged)
    try:
        found = read(path)
    except OF_THE_FILE as error:
        named = path.name in str(error)  # a cap that is too small names the file by its name
        return None if named else f"names no file: {error}"
    except Exception as error:  # noqa: BLE001 - any other error is a finding
        return f"{type(error).__name__}: {error}"
    return None if as_bytes(found) == as_bytes(wanted) else "other rows"


def as_bytes(rows: list[dict[str, Any]]) -> list[Any]:
    """Return rows without names, texts as bytes: what a column means may be lost unseen."""
    return [bare(list(row.values())) for row in rows]


def bare(value: Any) -> Any:
    """Return a value without what says what it means: text, a span of seconds, a list."""
    if isinstance(value, str):
        return value.encode()
    if isinstance(value, timedelta):
        return value // timedelta(seconds=1)
    if isinstance(value, list):
        return [bare(item) for item in value]
    if not isinstance(value, dict):
        return value
    is_wrapped = len(value) == 1 and value.keys() <= {"list", "element"}
    return bare(*value.values()) if is_wrapped else bare([*value.values()])


def main(source: str, first: str, step: str, bits: str) -> None:
    data, wanted, flips = Path(source).read_bytes(), read(Path(source)), 0
    with tempfile.TemporaryDirectory() as folder:
        for at in range(int(first), len(data), int(step)):
            for bit in range(at % 8, at % 8 + int(bits)):
                report("at", at, bit % 8)
                wrong = flip(data, at, bit % 8, Path(folder) / "damaged.parquet", wanted)
                flips += 1
                if wrong is not None:
                    report(json.dumps([at, bit % 8, wrong]))
    report(json.dumps(["done", flips]))


def report(*words: object) -> None:
    print(*words, flush=True)  # noqa: T201 - the test reads these lines


if __name__ == "__main__":
    main(*sys.argv[1:])
