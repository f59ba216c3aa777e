from __future__ import annotations

import tempfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emsqrt.external.cross import CrossJoin
from emsqrt.external.join_oracle import KIB, Joined, blocks, numbered, read
from emsqrt.external.join_output import JoinOutput
from emsqrt.spill import SpillManager


def cross(left: int, right: int, width: int, *, ordered: bool = True) -> tuple[list[Joined], int]:
    rows: list[Joined] = []
    with tempfile.TemporaryDirectory() as folder, SpillManager(folder, codec="none") as spill:
        memory, out = memoryview(bytearray(64 * KIB)), memoryview(bytearray(5 * KIB))
        join, joined = CrossJoin(memory, spill, ordered=ordered), JoinOutput(out)
        for block in blocks(numbered([b""] * right, "r", width), 7):
            join.add_build(block)
        join.finish_build()
        for block in blocks(numbered([b""] * left, "l"), 5):
            for size, _ in join.probe(block, joined):
                rows += read(out[:size])
        rows += [row for size, _ in join.finish(joined) for row in read(out[:size])]
        spilled = join.stats.spilled_bytes
        join.close()
        assert spill.stats.live_bytes == 0
        return rows, spilled


def pairs(left: int, right: int, width: int) -> list[Joined]:
    others = [row for _, row in numbered([b""] * right, "r", width)]
    return [(row, other) for _, row in numbered([b""] * left, "l") for other in others]


@pytest.mark.slow
@given(left=st.integers(0, 30), right=st.integers(0, 30))
def test_every_left_row_meets_every_right_row(left: int, right: int) -> None:
    assert cross(left, right, 20) == (pairs(left, right, 20), 0)


@pytest.mark.parametrize("ordered", [True, False])
def test_a_right_side_larger_than_memory_is_read_again(ordered: bool) -> None:
    rows, spilled = cross(12, 300, 900, ordered=ordered)

    assert spilled > 4 * 64 * KIB
    wanted = pairs(12, 300, 900)
    assert rows == wanted if ordered else sorted(rows, key=repr) == sorted(wanted, key=repr)
