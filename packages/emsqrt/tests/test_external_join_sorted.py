from __future__ import annotations

import tempfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emsqrt.external.join_oracle import KIB, KINDS, Joined, Row, blocks, key, naive, numbered, read
from emsqrt.external.join_output import HashJoinKind, JoinOutput
from emsqrt.external.merge_join import MergeJoin
from emsqrt.spill import SpillManager
from sennit_core.errors import BadInput


def merge(
    how: HashJoinKind, left: list[Row], right: list[Row], *, block_rows: int = 20
) -> tuple[list[Joined], MergeJoin]:
    rows: list[Joined] = []
    with tempfile.TemporaryDirectory() as folder, SpillManager(folder, codec="none") as spill:
        memory, out = memoryview(bytearray(64 * KIB)), memoryview(bytearray(6 * KIB))
        join = MergeJoin(memory, spill, how)
        for size, _ in join.blocks(
            blocks(left, block_rows), blocks(right, block_rows), JoinOutput(out)
        ):
            rows += read(out[:size])
        join.close()
        assert spill.stats.live_bytes == 0
        return rows, join


keys = st.lists(
    st.one_of(st.just(b""), st.integers(0, 12).map(key), st.just(b"\x01text")), max_size=60
).map(sorted)


@pytest.mark.slow
@pytest.mark.sample(2)
@pytest.mark.parametrize("how", KINDS)
@given(left=keys, right=keys, block_rows=st.integers(1, 9))
def test_sorted_inputs_join_as_nested_loops_do(
    how: HashJoinKind, left: list[bytes], right: list[bytes], block_rows: int
) -> None:
    one, other = numbered(left, "l"), numbered(right, "r")

    rows, join = merge(how, one, other, block_rows=block_rows)

    assert rows == naive(how, one, other)
    assert join.stats.spilled_bytes == 0


@pytest.mark.slow
@pytest.mark.parametrize("how", KINDS)
@settings(max_examples=15)
@given(
    left=st.lists(st.integers(0, 30), max_size=40).map(sorted),
    right=st.lists(st.integers(0, 30), max_size=200).map(sorted),
    hot=st.integers(0, 30),
    nulls_last=st.booleans(),
    block_rows=st.integers(1, 15),
)
def test_rows_of_one_key_may_outgrow_memory(
    how: HashJoinKind,
    left: list[int],
    right: list[int],
    hot: int,
    nulls_last: bool,
    block_rows: int,
) -> None:
    right = sorted([*right, *[hot] * 150])
    nulls = [b""] * 3
    one = numbered([*map(key, left), *nulls], "l", 300)
    many = [*map(key, right), *nulls] if nulls_last else [*nulls, *map(key, right)]
    other = numbered(many, "r", 900)

    rows, join = merge(how, one, other, block_rows=block_rows)

    assert rows == naive(how, one, other)
    if how == "inner" and hot in left:
        assert join.stats.nested_loops == 1


@pytest.mark.parametrize("block_rows", [1, 20])
@pytest.mark.parametrize("how", KINDS)
def test_an_input_out_of_order_is_refused(how: HashJoinKind, block_rows: int) -> None:
    rising, broken = [key(n) for n in range(9)], [key(n) for n in (0, 5, 6, 4, 7, 8)]

    for left, right in ((rising, broken), (broken, rising)):
        with pytest.raises(BadInput, match="merge join"):
            merge(how, numbered(left, "l"), numbered(right, "r"), block_rows=block_rows)


@pytest.mark.parametrize("how", KINDS)
def test_rows_without_a_key_may_come_anywhere_but_among_equal_ones(how: HashJoinKind) -> None:
    left = numbered([key(1), b"", key(2), key(3), b"", key(3)], "l")
    right = numbered([key(0), b"", b"", key(2), key(2), b"", key(3)], "r")
    torn = numbered([key(1), key(2), b"", key(2), key(3)], "r")

    assert merge(how, left, right)[0] == naive(how, left, right)

    with pytest.raises(BadInput, match="merge join"):
        merge(how, left, torn)
