"""The quick path into typed columns reads the same values as the text path, to the bit."""

from __future__ import annotations

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from emsqrt.io.records import CsvDialect
from lake.ingest.columns import read_column
from lake.ingest.direct import DirectReader
from lake.ingest.encode import _read_texts

KINDS = ["int", "float", "date", "timestamp", "timestamp-utc"]
ODD = [
    "", "NA", "N/A", "null", "\\N", "nan", "NaN", "inf", "-inf", "0", "-0", "+1", "007", "00", "1_000",
    "0x1F", "9223372036854775807", "-9223372036854775808", "9223372036854775808", "1.", ".5", "-.5",
    "1e5", "1E+05", "1e400", "1e-400", "5e-324", "0.1", "00.5", "-0.0", "12345678901234567", "1e",
    "123456789012345678901234567890.5", "0.30000000000000004", "1 2", " 1", "1 ", "\t1", " NA", "1,5",
    "2024-02-29", "2023-02-29", "2024-2-9", "0001-01-01", "9999-12-31", "24-01-01", "2024-01-01 ",
    "2024-01-01T10:00", "2024-01-01 10:00:00", "2024-01-01T10:00:00.123456", "2024-01-01T10:00:60",
    "2024-01-01T10:00:00.1234567", "2024-01-01T10:00:00Z", "2024-01-01 10:00+02:00", "2024-01-01T24:00",
    "2024-01-01T10:00:00+0230", "2024-01-01T10", "2024-01-01T10Z", " 2024-01-01T10:00", "true", "x",
    "1677-01-01T00:00:00", "2024-01-01T10:00:00.5+01", '"', "ä", "1\u00a0", "−1", "１",
]  # fmt: skip
cells = st.sampled_from(ODD) | st.integers().map(str) | st.floats().map(repr)
cells |= st.dates().map(str) | st.datetimes().map(str) | st.text("0123456789+-.eE TZ:", max_size=12)


def quoted(cell: str) -> str:
    return '"' + cell.replace('"', '""') + '"'


def written(cells: list[tuple[str, bool]]) -> bytes:
    lines = (quoted(c) if q or any(m in c for m in ',"') else c for c, q in cells)
    return "".join(f"{line},x\n" for line in lines).encode()


def check(kind: str, column: list[tuple[str, bool]]) -> bool:
    """Compare both paths; True when the quick one read the whole column."""
    data, names = written(column), ["c", "x"]
    reader = DirectReader(names, ",")
    found = reader.read(data, [kind, "text"])
    texts = _read_texts(data, names, CsvDialect(), lambda _: "error").combine_chunks()
    text = texts.column(0).chunk(0)
    assert found is not None
    assert found.column(1).equals(texts.column(1).chunk(0))
    if not reader.is_typed(0, kind):
        assert found.column(0).equals(text)
        return False
    expected = read_column(kind, text)
    assert expected is not None, "it reads what the text path refuses"
    assert bits(found.column(0)) == bits(expected)
    return True


def bits(column: pa.Array) -> list[object]:
    values = column.to_pylist() if not pa.types.is_timestamp(column.type) else column
    return [v.hex() if isinstance(v, float) else str(v) for v in values]


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("quote", [False, True])
def test_every_odd_value_is_read_alike_or_left(kind: str, quote: bool) -> None:
    quick = [check(kind, [(cell, quote)]) for cell in ODD]
    assert any(quick)
    assert not all(quick)


@pytest.mark.slow
@pytest.mark.sample(3)
@pytest.mark.parametrize("kind", KINDS)
@given(column=st.lists(st.tuples(cells, st.booleans()), min_size=1, max_size=5))
def test_any_column_is_read_alike_or_left(kind: str, column: list[tuple[str, bool]]) -> None:
    check(kind, column)


def test_a_harder_column_leaves_the_others_as_they_are() -> None:
    reader = DirectReader(["a", "b"], ",")
    found = reader.read(b"1,2\n007,3\n", ["int", "int"])
    assert found is not None
    assert (reader.is_typed(0, "int"), reader.is_typed(1, "int")) == (False, True)
    assert found.to_pydict() == {"a": ["1", "007"], "b": [2, 3]}
    assert reader.is_typed(0, "float")


@pytest.mark.parametrize("data", [b"1,2\n3\n", b"1,2,3\n"])
def test_ragged_records_are_left(data: bytes) -> None:
    assert DirectReader(["a", "b"], ",").read(data, ["int", "int"]) is None


def test_a_block_of_more_columns_than_text_is_put_together() -> None:
    data = b"1,2,3\n" * 100_000
    found = DirectReader(["a", "b", "c"], ",").read(data, ["int"] * 3)
    assert found is not None
    assert found.num_rows == 100_000
    assert found.column(2).unique().to_pylist() == [3]


def test_a_mark_at_the_start_of_a_block_stays() -> None:
    found = DirectReader(["a", "b"], ",").read("\ufeffx,1\n".encode(), ["text", "int"])
    assert found is not None
    assert found.column(0).to_pylist() == ["\ufeffx"]
