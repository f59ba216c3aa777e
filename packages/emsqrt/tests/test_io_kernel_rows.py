"""What the kernel writes as text is what Arrow's functions write."""

from __future__ import annotations

import json
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from emsqrt.io.formats import CsvWriter, JsonlWriter, JsonWriter, TextWriter, open_format
from emsqrt.io.testing import batches, by_arrow, text_of

FAR = {
    "Date": pa.date32(),
    "Timestamp(s)": pa.timestamp("s"),
    "Timestamp(ns)": pa.timestamp("ns", "UTC"),
    "Duration": pa.duration("us"),
    "UInt64": pa.uint64(),
}
ANY_TICKS = st.integers(-(2**63) + 1, 2**63 - 1) | st.integers(-(2**53) - 2, 2**53 + 2)


WRITERS = pytest.mark.parametrize("writer", [JsonWriter, CsvWriter, JsonlWriter])


@pytest.mark.slow
@WRITERS
@given(drawn=batches(), first=st.integers(0, 3))
def test_any_columns_are_written_as_by_arrow(
    writer: type[TextWriter], drawn: Any, first: int
) -> None:
    _, batch = drawn
    parts = batch, batch.slice(min(first, batch.num_rows)), batch
    assert text_of(writer, *parts) == text_of(by_arrow(writer), *parts)


@WRITERS
@given(kind=st.sampled_from(sorted(FAR)), ticks=st.lists(ANY_TICKS, min_size=1, max_size=5))
def test_numbers_and_days_of_any_size_are_written_as_by_arrow(
    writer: type[TextWriter], kind: str, ticks: list[int]
) -> None:
    if kind == "Date":
        values = pa.array([each % 2**32 - 2**31 for each in ticks], pa.int32())
    elif kind == "UInt64":
        values = pa.array([2 * abs(each) for each in ticks], pa.uint64())
    else:
        values = pa.array(ticks, pa.int64())
    batch = pa.record_batch({"v": values.cast(FAR[kind])})
    assert text_of(writer, batch) == text_of(by_arrow(writer), batch)


def test_a_row_longer_than_a_piece_is_written_whole() -> None:
    long = ["a", "\n" * 300_000, "b", "c" * 200_000]
    batch = pa.record_batch({"n": range(4), "text": long})
    rows = json.loads(text_of(JsonWriter, batch, batch))["rows"]
    assert rows == [[number, text] for number, text in enumerate(long)] * 2


def test_many_rows_are_written_once_each_in_order() -> None:
    pieces: list[bytes] = []
    batch = pa.record_batch({"n": range(100_000)})
    with open_format("jsonl", batch.schema, lambda piece: pieces.append(bytes(piece))) as writer:
        writer.write(batch)
    assert len(pieces) > 5
    assert [json.loads(line)["n"] for line in b"".join(pieces).splitlines()] == list(range(100_000))


def test_a_column_that_the_kernel_does_not_know_leaves_the_rows_to_arrow() -> None:
    batch = pa.record_batch({"n": [1, None], "list": [[2**53], None]})
    assert json.loads(text_of(JsonWriter, batch))["rows"] == [[1, [str(2**53)]], [None, None]]
