"""The cap that a refusal names: enough for the run, and not much more than it needs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import csv, parquet

from emsqrt import Engine, EngineConfig, scan
from emsqrt.io import records
from emsqrt.io.json_lines import split_lines
from emsqrt.io.records import CsvDialect, RecordTooLong, split_records
from emsqrt.pipeline import Pipeline
from sennit_core.errors import CapTooSmall
from sennit_core.schema import Schema
from sennit_core.units import MIB

LONG_BYTES = 3 * MIB
FIRST_BYTES = {"csv": 16 * MIB, "parquet": 40 * MIB}
Verb = Callable[[Pipeline, Pipeline], Pipeline]
VERBS: dict[str, Verb] = {
    "sort": lambda t, u: t.sort("id"),
    "sort by text": lambda t, u: t.sort("t"),
    "count by text": lambda t, u: t.group_by("t").agg(n="count(*)"),
    "max": lambda t, u: t.group_by("k").agg(m="max(t)"),
    "different": lambda t, u: t.group_by("k").agg(n="count(distinct t)"),
    "distinct": lambda t, u: t.distinct(),
    "join": lambda t, u: t.join(u, on="id"),
    "sort of a join": lambda t, u: t.join(u, on="id").sort("k"),
}
ARROW: dict[str, Verb] = {
    "distinct by": lambda t, u: t.distinct("id"),
    "full join": lambda t, u: t.join(u, on="id", how="full"),
    "cross join": lambda t, u: t.join(u, how="cross"),
    "window": lambda t, u: t.window("k", "id", n="row_number()"),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two tables with some long texts each, as CSV and Parquet."""
    folder, ids = tmp_path_factory.mktemp("refused"), list(range(6))
    texts = [chr(97 + at) * (7 if at % 3 else LONG_BYTES) for at in ids]
    tables = {
        "t": pa.table({"id": ids, "k": [1, 2, 1, 3, 2, 1], "t": texts}),
        "u": pa.table({"id": ids[::-1], "u": texts}),
    }
    for name, table in tables.items():
        csv.write_csv(table, folder / f"{name}.csv")
        parquet.write_table(table, folder / f"{name}.parquet", row_group_size=2)
    return folder


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Engine:
    return Engine(EngineConfig(spill_dir=tmp_path_factory.mktemp("spill")))


def pipeline(verb: Verb, kind: str, folder: Path, target: Path) -> Pipeline:
    schemas = {
        "t": Schema.of(id="Int64", k="Int64", t="Utf8"),
        "u": Schema.of(id="Int64", u="Utf8"),
    }
    t, u = (scan(folder / f"{name}.{kind}", schema=schema) for name, schema in schemas.items())
    return verb(t, u).sink(target / f"out.{kind}")


@pytest.mark.sample(1)
@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "name"),
    [*(("csv", name) for name in VERBS), *(("parquet", name) for name in VERBS | ARROW)],
)
def test_the_cap_that_is_named_is_enough_and_no_more_than_half_too_much(
    kind: str, name: str, folder: Path, tmp_path: Path, engine: Engine
) -> None:
    made = pipeline((VERBS | ARROW)[name], kind, folder, tmp_path)
    is_arrow = kind == "parquet"  # its child begins anew every time; the run is the same here
    with pytest.raises(CapTooSmall) as refused:
        made.run(FIRST_BYTES[kind], engine=engine, in_process=is_arrow)
    named = refused.value.needed_bytes
    assert made.run(named, engine=engine, in_process=is_arrow).rows_out > 0
    with pytest.raises(CapTooSmall) as again:
        made.run(named * 7 // 10, engine=engine, in_process=is_arrow)
    assert again.value.needed_bytes < named * 3 // 2


class Trickle:
    """A stream that returns a few bytes at a time."""

    def __init__(self, data: bytes, step: int) -> None:
        self._data, self._step = data, step

    def readinto(self, buffer: memoryview, /) -> int:
        step = min(self._step, len(buffer))
        piece, self._data = self._data[:step], self._data[step:]
        buffer[: len(piece)] = piece
        return len(piece)


@pytest.mark.parametrize("step", [1, 2, 3, 7, 64])
@pytest.mark.parametrize(
    "record",
    [
        b"a," + b"x" * 90 + b"\n",
        b"a," + b"x" * 90 + b"\r",
        b'a,"' + b'x""\n' * 30 + b'",b\n',
        b'"' + b"x,\r\n" * 30 + b'"y"z,"q"\n',
        b'a"b,"",' + b'"",' * 30 + b"\n",
    ],
)
def test_a_record_that_is_too_long_is_measured(record: bytes, step: int) -> None:
    stream = Trickle(record + b'p,"q"\n' * 9, step)
    with pytest.raises(RecordTooLong) as refused:
        list(split_records(stream, CsvDialect(), block_bytes=16, record_bytes_max=32))
    assert refused.value.record_bytes == len(record)


def test_a_record_whose_end_is_far_off_is_not_read_to_its_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(records, "LOOK_AHEAD_BYTES", 0)
    stream = Trickle(b'a,"' + b"x" * 100_000, 16)
    with pytest.raises(RecordTooLong) as refused:
        list(split_records(stream, CsvDialect(), block_bytes=16, record_bytes_max=32))
    assert refused.value.record_bytes is None


def test_a_line_that_is_too_long_is_measured() -> None:
    stream = Trickle(b"x" * 200 + b"\n{}\n", 9)
    with pytest.raises(RecordTooLong) as refused:
        list(split_lines(stream, block_bytes=16, record_bytes_max=64, what="lines"))
    assert refused.value.record_bytes == 201
