"""Any CSV, in any parts and blocks, is read as Python's `csv` reads it; any type keeps its text."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from emsqrt.io.records import CsvDialect
from lake.ingest.columns import KINDS, first_misfit, infer_kind, read_column, wider_kind
from lake.ingest.names import settle_names
from lake.ingest.source import PartsFile, TextSource

from .conftest import Encode

cells = st.text(st.sampled_from('ab"," \n\r\té日😀0.-'), max_size=8)
relaxed = settings(
    deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def written(rows: list[list[str]], quoting: int) -> str:
    out = io.StringIO()
    csv.writer(out, quoting=quoting, lineterminator="\n").writerows(rows)  # type: ignore[arg-type]
    return out.getvalue()


@pytest.mark.slow
@relaxed
@given(
    rows=st.lists(st.lists(cells, min_size=3, max_size=3), min_size=1, max_size=12),
    quoting=st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
    part_bytes=st.integers(1, 40),
    block_bytes=st.integers(8, 64),
)
def test_blocks_hold_the_records_that_csv_sees(
    tmp_path_factory: pytest.TempPathFactory,
    rows: list[list[str]],
    quoting: int,
    part_bytes: int,
    block_bytes: int,
) -> None:
    raw = written(rows, quoting).encode()
    paths = _parts(tmp_path_factory.mktemp("parts"), raw, part_bytes)
    source = TextSource(paths, "utf-8", CsvDialect(), block_bytes=block_bytes)

    blocks = list(source.blocks(0, len(raw)))

    assert b"".join(block.data for block in blocks) == raw
    seen = [row for b in blocks for row in csv.reader(io.StringIO(b.data.decode(), newline=""))]
    assert seen == list(csv.reader(io.StringIO(raw.decode(), newline="")))
    assert [b.stop for b in blocks[:-1]] == [b.start for b in blocks[1:]]
    for block in blocks:
        assert block.line == 1 + raw[: block.start].count(b"\n")


@pytest.mark.slow
@relaxed
@given(
    rows=st.lists(
        st.lists(st.sampled_from(["", "1", "-2", "2.5", "007", "x", 'a"b', "a,b", "é\nz", "NA"]),
                 min_size=2, max_size=2),
        min_size=1,
        max_size=30,
    ),
    part_bytes=st.integers(1, 50),
)  # fmt: skip
def test_text_columns_keep_every_value_and_typed_ones_its_number(
    encode: Encode, rows: list[list[str]], part_bytes: int
) -> None:
    done = encode(
        written([["p", "q"], *rows], csv.QUOTE_MINIMAL), part_bytes=part_bytes, header=True
    )

    for index, name in enumerate(("p", "q")):
        values = done.table[name].to_pylist()
        assert len(values) == len(rows)
        for text, value in zip((row[index] for row in rows), values, strict=True):
            if value is None:
                assert text in ("", "NA")
            elif isinstance(value, str):
                assert value == text
            else:
                assert value == float(text)


@relaxed
@given(values=st.lists(st.integers(-(2**70), 2**70), min_size=1, max_size=20))
def test_integers_become_numbers_only_when_no_digit_is_lost(values: list[int]) -> None:
    text = pa.array([str(value) for value in values])

    guess = infer_kind(text).kind
    read = read_column(guess, text)

    assert read is not None
    if guess == "int":
        assert read.to_pylist() == values
    else:
        assert guess == "text"


@relaxed
@given(values=st.lists(st.floats(allow_nan=False), min_size=1, max_size=20))
def test_floats_round_trip_bit_for_bit(values: list[float]) -> None:
    text = pa.array([repr(value) for value in values])

    read = read_column("float", text)

    if read is not None:
        assert [v.hex() for v in read.to_pylist()] == [v.hex() for v in values]
    else:
        assert any(v == float("inf") or len(repr(v)) > 16 for v in map(abs, values))


words = st.sampled_from(
    [
        "1",
        "2.5",
        "x",
        "",
        "NA",
        "2013-01-01",
        "2013-01-01 10:00:00",
        "31/12/2013",
        "true",
        "1,5",
        "07",
    ]
)


@relaxed
@given(first=st.lists(words, min_size=1, max_size=6), then=st.lists(words, min_size=1, max_size=6))
def test_a_wider_type_reads_values_that_broke_the_narrower(
    first: list[str], then: list[str]
) -> None:
    sample = pa.array([word or None for word in first], pa.string())
    later = pa.array([word or None for word in then], pa.string())
    kind = infer_kind(sample).kind
    assert read_column(kind, sample) is not None
    if read_column(kind, later) is not None:
        return

    bad = first_misfit(kind, later)
    wider = wider_kind(kind, later)

    assert read_column(kind, later.slice(bad, 1)) is None
    assert read_column(kind, later.slice(0, bad)) is not None
    assert read_column(wider, later) is not None
    assert wider in KINDS


@given(st.lists(st.text(st.sampled_from("aA_23 \x00"), max_size=4), min_size=1, max_size=8))
def test_settled_names_are_present_and_differ_in_any_case(found: list[str]) -> None:
    names, changes = settle_names(found, strict=False, what="f")

    assert all(names)
    assert len({name.casefold() for name in names}) == len(found)
    assert settle_names(names, strict=True, what="f") == (names, [])
    assert {change["column"] for change in changes} >= {
        i for i, (old, new) in enumerate(zip(found, names, strict=True)) if old.strip() != new
    } - {i for i, old in enumerate(found) if "\x00" in old}


@relaxed
@given(data=st.binary(max_size=60), part_bytes=st.integers(1, 20), seek=st.integers(0, 70))
def test_parts_read_as_one_file(
    tmp_path_factory: pytest.TempPathFactory, data: bytes, part_bytes: int, seek: int
) -> None:
    paths = _parts(tmp_path_factory.mktemp("parts"), data, part_bytes)

    with io.BufferedReader(PartsFile(paths)) as file:
        file.seek(seek)
        assert file.read() == data[seek:]
        file.seek(-min(5, len(data)), io.SEEK_END)
        assert file.read() == data[max(0, len(data) - 5) :]


def _parts(folder: Path, data: bytes, part_bytes: int) -> list[Path]:
    paths = []
    for start in range(0, len(data), part_bytes):
        paths.append(folder / f"{start:06d}")
        paths[-1].write_bytes(data[start : start + part_bytes])
    return paths
