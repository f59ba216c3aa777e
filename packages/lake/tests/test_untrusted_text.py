"""Text files that would exhaust a parser's stack or memory are refused, and the executor lives."""

from __future__ import annotations

import pytest

from lake import Lake
from sennit_core.errors import BadInput

from .conftest import Encode, put

DEEP = 100_000


@pytest.mark.parametrize(
    "record",
    [b'{"a":' + b"[" * DEEP + b"]" * DEEP + b"}", b'{"a":' * DEEP + b"1" + b"}" * DEEP],
    ids=["lists", "objects"],
)
def test_json_nested_too_deeply_does_not_end_the_executor(lake: Lake, record: bytes) -> None:
    lake.sql("select 1")
    executors = lake.pool.stats().pids

    with pytest.raises(BadInput, match="nested"):
        put(lake, "deep.jsonl", b'{"a": "]"}\n' + record + b"\n")

    assert set(executors) <= set(lake.pool.stats().pids)


def test_nesting_that_parquet_cannot_hold_is_refused(encode: Encode) -> None:
    with pytest.raises(BadInput, match="nested"):
        encode('{"a":' + "[" * 50 + "1" + "]" * 50 + "}\n", "f.jsonl")


@pytest.mark.nightly
def test_millions_of_columns_are_refused_before_they_are_made(encode: Encode) -> None:
    with pytest.raises(BadInput, match="columns"):
        encode("," * 2_000_000 + "\n1,2\n", "f.csv")
