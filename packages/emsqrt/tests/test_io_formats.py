from __future__ import annotations

import csv
import io
import json
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from emsqrt.io.emitter import PIECE_BYTES
from emsqrt.io.formats import open_format
from sennit_core.errors import Unsupported

FLIGHTS = pa.record_batch(
    {
        "carrier": ["UA", "", None, 'q"x', "a,b", "n\nl"],
        "distance": pa.array([1400, None, 2**60, 4, 5, 6], pa.int64()),
        "delay": [2.0, float("nan"), None, 0.1, 1e16, -0.5],
    }
)


def written(format: str, *batches: pa.RecordBatch, **options: Any) -> bytes:  # noqa: A002
    out = io.BytesIO()
    with open_format(format, batches[0].schema, out.write, **options) as writer:
        for batch in batches:
            writer.write(batch)
    assert writer.bytes == len(out.getvalue())
    return out.getvalue()


def test_json_is_the_document_of_the_contract() -> None:
    document = json.loads(written("json", FLIGHTS, FLIGHTS))
    assert document["columns"] == [
        {"name": "carrier", "type": "Utf8"},
        {"name": "distance", "type": "Int64"},
        {"name": "delay", "type": "Float64"},
    ]
    assert document["rows"][:3] == [["UA", 1400, 2], ["", None, "NaN"], [None, str(2**60), None]]
    assert document["rows"][6:] == document["rows"][:6]
    assert document["truncated"] is False


def test_an_empty_answer_is_a_whole_document() -> None:
    document = json.loads(written("json", FLIGHTS.slice(0, 0)))
    assert (len(document["columns"]), document["rows"]) == (3, [])
    assert written("csv", FLIGHTS.slice(0, 0)) == b"carrier,distance,delay\n"


def test_csv_quotes_only_what_needs_it_and_keeps_null_apart_from_empty() -> None:
    lines = written("csv", FLIGHTS).decode()
    assert lines.startswith('carrier,distance,delay\nUA,1400,2\n"",,nan\n,1152921504606846976,\n')
    rows = list(csv.reader(io.StringIO(lines, newline="")))
    assert [row[0] for row in rows[1:]] == ["UA", "", "", 'q"x', "a,b", "n\nl"]


@given(st.lists(st.none() | st.text(alphabet=st.sampled_from('a,"\r\n '), max_size=6), min_size=1))
def test_csv_is_read_back_by_the_standard_reader(values: list[str | None]) -> None:
    batch = pa.record_batch({"n": list(range(len(values))), "s": pa.array(values, pa.string())})
    rows = list(csv.reader(io.StringIO(written("csv", batch).decode(), newline="")))
    assert [row[1] for row in rows[1:]] == [value or "" for value in values]


def test_arrow_is_a_stream_with_its_end_mark() -> None:
    data = written("arrow", FLIGHTS, FLIGHTS)
    table = pa.ipc.open_stream(data).read_all()
    assert table.num_rows == 12
    assert data.endswith(b"\xff\xff\xff\xff\0\0\0\0")


@pytest.mark.parametrize("format", ["arrow", "json", "csv"])
def test_dictionary_columns_are_written_as_their_values(format: str) -> None:  # noqa: A002
    coded = pa.record_batch({"c": pa.array(["x", "y", "x"]).dictionary_encode()})
    plain = pa.record_batch({"c": ["x", "y", "x"]})
    assert written(format, coded) == written(format, plain)


@pytest.mark.parametrize(("max_rows", "truncated"), [(0, True), (5, True), (6, False), (7, False)])
def test_a_limit_cuts_rows_and_says_whether_there_were_more(max_rows: int, truncated: bool) -> None:
    document = json.loads(written("json", FLIGHTS, max_rows=max_rows))
    assert (len(document["rows"]), document["truncated"]) == (min(max_rows, 6), truncated)


def test_more_rows_after_the_limit_are_detected_by_a_later_batch() -> None:
    document = json.loads(written("json", FLIGHTS, FLIGHTS, max_rows=6))
    assert (len(document["rows"]), document["truncated"]) == (6, True)


def test_a_small_answer_is_one_piece_and_a_large_one_is_many() -> None:
    pieces: list[int] = []
    with open_format("json", FLIGHTS.schema, lambda piece: pieces.append(len(piece))) as writer:
        writer.write(FLIGHTS)
        assert pieces == []
    assert len(pieces) == 1
    big = pa.record_batch({"text": ["x" * 1000] * 5000})
    pieces.clear()
    with open_format("csv", big.schema, lambda piece: pieces.append(len(piece))) as writer:
        writer.write(big)
        assert len(pieces) > 3
    assert max(pieces) < 2 << 20
    assert sum(pieces) == writer.bytes > 5000 * 1000 > PIECE_BYTES


def test_names_that_repeat_are_kept() -> None:
    twins = pa.RecordBatch.from_arrays([pa.array([1]), pa.array([2])], names=["a", "a"])
    assert json.loads(written("json", twins))["rows"] == [[1, 2]]


def test_an_unknown_format_is_refused_with_those_there_are() -> None:
    with pytest.raises(Unsupported, match="arrow, csv, json"):
        open_format("xml", FLIGHTS.schema, lambda _: None)


def test_an_error_inside_leaves_the_stream_unfinished() -> None:
    pieces: list[bytes] = []
    with pytest.raises(TypeError), open_format("json", FLIGHTS.schema, pieces.append) as writer:
        writer.write(FLIGHTS, "the real error")  # type: ignore[call-arg]
    assert pieces == []
