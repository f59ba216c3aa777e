"""Summaries of the engines' outputs that can be compared: rows, a checksum, and the order.

The checksum depends neither on the order of rows, nor on the spelling of a number or a timestamp,
even in a text column (`emsqrt.race.timestamps`). Fractions count with 20 bits of their value,
because engines add them in different orders; integers with 53 bits, text in full. Needs numpy and
pyarrow; it runs after all measurements.
"""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emsqrt.race.timestamps import normalize_timestamps
from sennit_core.schema import Schema

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

_BLOCK_BYTES = 4 << 20
_WHOLE = ("Int", "UInt")
_FRACTIONS = ("Float", "Decimal")
_BITS = 20
_AWAY = 0.3719
"""Offset of rounding steps that no sum of decimals hits, so that no last digit decides the step."""
_TILT = 1.0471975511965976


@dataclass(frozen=True, slots=True)
class Answer:
    """Rows written, their checksum, and whether they were in the requested order."""

    rows: int
    checksum: str
    in_order: bool

    def __str__(self) -> str:
        said = f"{self.rows:,} rows, checksum {self.checksum}"
        return said if self.in_order else f"{said}, NOT in order"


def read_answer(
    path: Path, schema: Schema, keys: Sequence[tuple[str, bool]] = (), *, exact: bool = False
) -> Answer:
    """Read a file of rows and summarize it.

    Args:
        path: CSV with a header, or Parquet (also a folder of it).
        schema: its columns; a file may have them in any order.
        keys: (column, descending), NULL last, that the rows should be sorted by.
        exact: whether the checksum covers every digit of every row, in order; for few rows. Floats
            count with 12 digits.
    """
    if exact:
        return _read_exactly(path, schema)
    rows, total, in_order, last = 0, 0, True, None
    for batch in _batches(path, schema):
        if not batch.num_rows:
            continue
        rows += batch.num_rows
        total = (total + _sum_of_rows(batch, schema)) % (1 << 64)
        if keys and in_order:
            in_order, last = _check_order(batch, keys, last)
    return Answer(rows, f"{total:016x}", in_order)


def _read_exactly(path: Path, schema: Schema) -> Answer:
    digest, rows = hashlib.blake2b(digest_size=8), 0
    for row in _written_rows(path):
        spelled = [_spelled(row[each.name], str(each.type)) for each in schema]
        digest.update(repr(spelled).encode())
        rows += 1
    return Answer(rows, digest.hexdigest(), in_order=True)


def _written_rows(path: Path) -> Iterator[dict[str, Any]]:
    if path.suffix == ".csv":
        with path.open(newline="", encoding="utf-8") as file:
            yield from csv.DictReader(file)
        return
    import pyarrow.dataset

    for batch in pyarrow.dataset.dataset(path).to_batches():
        yield from batch.to_pylist()


def _spelled(value: object, kind: str) -> str:
    if value is None or value == "":
        return ""
    if kind.startswith("Float"):
        return f"{float(str(value)):.12g}"
    if _is_number(kind):
        return str(Decimal(str(value)).normalize())
    import pyarrow as pa

    return str(normalize_timestamps(pa.array([str(value)]))[0])


def _batches(path: Path, schema: Schema) -> Iterator[pa.RecordBatch]:
    import pyarrow as pa
    import pyarrow.csv
    import pyarrow.dataset

    if path.suffix != ".csv":
        yield from pyarrow.dataset.dataset(path).to_batches(columns=list(schema.names))
        return
    types = {
        each.name: pa.float64() if _is_number(str(each.type)) else pa.string() for each in schema
    }
    convert = pyarrow.csv.ConvertOptions(
        column_types=types,
        include_columns=list(schema.names),
        null_values=[""],
        strings_can_be_null=True,
    )
    read = pyarrow.csv.ReadOptions(block_size=_BLOCK_BYTES)
    with pyarrow.csv.open_csv(path, read_options=read, convert_options=convert) as reader:
        yield from reader


def _is_number(kind: str) -> bool:
    return kind.startswith((*_WHOLE, *_FRACTIONS))


def _sum_of_rows(batch: pa.RecordBatch, schema: Schema) -> int:
    import numpy as np

    rows = np.zeros(batch.num_rows, dtype=np.uint64)
    for at, field in enumerate(schema, 1):
        column = batch.column(batch.schema.get_field_index(field.name))
        kind = str(field.type)
        hashed = _numbers(column, kind) if _is_number(kind) else _texts(column)
        rows += _mixed(hashed * np.uint64(2 * at + 1) + np.uint64(at))
    return int(_mixed(rows).sum(dtype=np.uint64))


def _numbers(column: pa.Array, kind: str) -> np.ndarray[Any, Any]:
    import numpy as np
    import pyarrow as pa

    values = column.cast(pa.float64()).fill_null(float("nan")).to_numpy(zero_copy_only=False)
    if kind.startswith(_WHOLE):
        return np.asarray(values + 0.0).view(np.uint64)
    mantissa, exponent = np.frexp(np.asarray(values) * _TILT)
    known = np.isfinite(mantissa)
    steps = np.floor(np.where(known, mantissa, 3.0) * 2.0**_BITS + _AWAY)
    return np.asarray(steps.astype(np.int64) * 4096 + exponent * known).view(np.uint64)


def _texts(column: pa.Array) -> np.ndarray[Any, Any]:
    """Hash text by weights of its positions: sum of (byte + 1) * weight[position]."""
    import numpy as np
    import pyarrow as pa

    column = normalize_timestamps(column.cast(pa.large_string())).fill_null("")
    _, ends, data = column.buffers()
    offsets = np.frombuffer(ends, np.int64)[column.offset : column.offset + len(column) + 1]
    if data is None or offsets[0] == offsets[-1]:
        return np.zeros(len(column), np.uint64)
    octets = np.frombuffer(data, np.uint8)[offsets[0] : offsets[-1]]
    lengths = np.diff(offsets)
    positions = np.arange(len(octets)) - np.repeat(offsets[:-1] - offsets[0], lengths)
    weights = _mixed(np.arange(1, int(lengths.max()) + 1, dtype=np.uint64))
    terms = (octets.astype(np.uint64) + np.uint64(1)) * weights[positions]
    sums = np.concatenate([np.zeros(1, np.uint64), np.cumsum(terms, dtype=np.uint64)])
    at = offsets - offsets[0]
    return np.asarray(sums[at[1:]] - sums[at[:-1]])


def _mixed(values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Mix bits with the finaliser of SplitMix64."""
    import numpy as np

    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(values ^ (values >> np.uint64(31)))


def _comparable(batch: pa.RecordBatch, name: str) -> pa.Array:
    """Return a column in comparable form: timestamps in text as their UTC time."""
    import pyarrow as pa

    column = batch.column(batch.schema.get_field_index(name))
    return normalize_timestamps(column) if pa.types.is_string(column.type) else column


def _check_order(
    batch: pa.RecordBatch, keys: Sequence[tuple[str, bool]], last: Mapping[str, Any] | None
) -> tuple[bool, Mapping[str, Any]]:
    """Return whether no row precedes its predecessor in the order, and the last row's keys."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    undecided = np.ones(batch.num_rows - (last is None), dtype=bool)
    wrong = False
    for name, descending in keys:
        column = _comparable(batch, name)
        if last is not None:
            column = pa.concat_arrays([pa.array([last[name]], column.type), column])
        before, after = column[:-1], column[1:]
        less, more = (pc.greater, pc.less) if descending else (pc.less, pc.greater)
        missing, known = before.is_null(), after.is_valid()
        falls = pc.fill_null(more(before, after), False)
        falls = pc.or_(falls, pc.and_(missing, known)).to_numpy(zero_copy_only=False)
        rises = pc.fill_null(less(before, after), False)
        rises = pc.or_(rises, pc.and_(before.is_valid(), after.is_null()))
        wrong |= bool(np.any(undecided & falls))
        undecided &= ~(falls | rises.to_numpy(zero_copy_only=False))
    row = batch.slice(batch.num_rows - 1)
    ends = {name: _comparable(row, name)[0].as_py() for name, _ in keys}
    return not wrong, ends
