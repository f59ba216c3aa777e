from __future__ import annotations

import pytest
from external_joins import run, spread
from hypothesis import given, settings
from hypothesis import strategies as st

from emsqrt.external.join_oracle import KIB, KINDS, key, naive, numbered
from emsqrt.external.join_output import HashJoinKind
from sennit_core.errors import CapTooSmall

texts = st.one_of(
    st.just(b""),
    st.binary(min_size=1, max_size=2).map(lambda text: b"\x01" + text),
    st.integers(0, 40).map(key),
    st.sampled_from([b"\x01" + b"x" * 700, b"\x01" + b"x" * 701, b"\x01hot"]),
)
sides = st.lists(texts, max_size=120)


@pytest.mark.slow
@pytest.mark.sample(3)
@pytest.mark.parametrize("how", KINDS)
@settings(max_examples=40)
@given(left=sides, right=sides, block_rows=st.integers(1, 50), out_bytes=st.integers(3000, 9000))
def test_rows_in_memory_join_as_nested_loops_do(
    how: HashJoinKind, left: list[bytes], right: list[bytes], block_rows: int, out_bytes: int
) -> None:
    one, other = numbered(left, "l"), numbered(right, "r")

    answer = run(how, one, other, 256 * KIB, block_rows=block_rows, out_bytes=out_bytes)

    assert answer.rows == naive(how, one, other)
    assert answer.stats.spilled_bytes == 0


@pytest.mark.sample(2)
@pytest.mark.parametrize("how", KINDS)
@pytest.mark.parametrize(
    ("left_rows", "right_rows", "hot_left", "hot_right"),
    [(4000, 4000, 0.0, 0.0), (300, 6000, 0.0, 0.6), (6000, 300, 0.6, 0.01), (4000, 6000, 0.0, 0.6)],
)
def test_result_and_order_are_the_same_at_every_memory_size(
    how: HashJoinKind, left_rows: int, right_rows: int, hot_left: float, hot_right: float
) -> None:
    left = numbered(spread(1, left_rows, 3000, hot_left, 0.02), "l", 100)
    right = numbered(spread(2, right_rows, 3000, hot_right, 0.02), "r", 400)
    wanted = naive(how, left, right)

    answers = [run(how, left, right, size * KIB) for size in (256, 700, 8192)]

    assert [answer.rows == wanted for answer in answers] == [True] * 3
    assert not answers[-1].partitioned


@pytest.mark.slow
@pytest.mark.sample(1)
@pytest.mark.parametrize("how", KINDS)
def test_without_order_the_rows_are_the_same(how: HashJoinKind) -> None:
    left = numbered(spread(1, 5000, 3000, 0.001, 0.02), "l", 100)
    right = numbered(spread(2, 6000, 3000, 0.6, 0.02), "r", 400)

    answer = run(how, left, right, 256 * KIB, ordered=False)

    assert sorted(answer.rows, key=repr) == sorted(naive(how, left, right), key=repr)
    assert answer.partitioned or how in ("semi", "anti")


@pytest.mark.slow
@settings(max_examples=25, deadline=None)  # it spills
@given(
    how=st.sampled_from(KINDS),
    seeds=st.tuples(st.integers(0, 999), st.integers(0, 999)),
    counts=st.tuples(st.integers(0, 2500), st.integers(0, 2500)),
    distinct=st.sampled_from([1, 3, 50, 3000]),
    hot=st.sampled_from([0.0, 0.1, 0.6]),
    nulls=st.sampled_from([0.0, 0.3, 1.0]),
    ordered=st.booleans(),
    build_left=st.booleans(),
    width=st.sampled_from([20, 900]),
)
def test_spilled_joins_are_right(
    how: HashJoinKind,
    seeds: tuple[int, int],
    counts: tuple[int, int],
    distinct: int,
    hot: float,
    nulls: float,
    ordered: bool,
    build_left: bool,
    width: int,
) -> None:
    if distinct <= 3:  # many pairs
        counts = counts[0] // 20, counts[1]
    left = numbered(spread(seeds[0], counts[0], distinct, hot / 20, nulls), "l", width)
    right = numbered(spread(seeds[1], counts[1], distinct, hot, nulls), "r", width)

    answer = run(how, left, right, 256 * KIB, ordered=ordered, build_left=build_left)

    wanted = naive(how, left, right)
    if ordered:
        assert answer.rows == wanted
    else:
        assert sorted(answer.rows, key=repr) == sorted(wanted, key=repr)


@pytest.mark.slow
def test_a_hot_key_is_joined_slice_by_slice() -> None:
    left = numbered([key(7)] * 120 + [key(n) for n in range(2000)], "l", 900)
    right = numbered([key(7)] * 250 + [key(n) for n in range(2000)], "r", 900)

    answer = run("full", left, right, 256 * KIB)

    assert answer.rows == naive("full", left, right)
    assert answer.stats.nested_loops > 0
    assert answer.stats.slices > answer.stats.nested_loops


@pytest.mark.slow
def test_a_partition_too_large_for_memory_is_split_again() -> None:
    left = numbered((key(n) for n in reversed(range(9000))), "l", 900)
    right = numbered((key(n) for n in reversed(range(9000))), "r", 900)

    answer = run("inner", left, right, 256 * KIB)

    assert answer.rows == [(one, other) for (_, one), (_, other) in zip(left, right, strict=True)]
    assert answer.stats.levels > 1
    assert answer.stats.nested_loops == 0


def test_no_row_is_lost_when_the_build_side_spills() -> None:
    """Left rows that come after the spill find build rows from before it, and the other way."""
    right = numbered((key(n) for n in reversed(range(3000))), "r", 300)
    left = numbered((key(n) for n in range(3000)), "l", 10)

    answer = run("inner", left, right, 256 * KIB, block_rows=1)

    assert answer.partitioned
    assert len(answer.rows) == 3000


def test_without_order_a_small_left_side_is_built_instead() -> None:
    left = numbered((key(n % 50) for n in range(60)), "l", 100)
    right = numbered([key(7)] * 4000 + [key(n) for n in range(50)], "r", 400)

    answer = run("full", left, right, 256 * KIB, ordered=False)

    assert sorted(answer.rows, key=repr) == sorted(naive("full", left, right), key=repr)
    assert answer.stats.reversals > 0


@pytest.mark.parametrize("how", ["semi", "anti"])
def test_a_hot_key_needs_no_memory_where_only_keys_count(how: HashJoinKind) -> None:
    left = numbered((key(n) for n in range(500)), "l", 100)
    right = numbered([key(n % 20) for n in range(40_000)], "r")

    answer = run(how, left, right, 256 * KIB)

    assert answer.rows == naive(how, left, right)
    assert answer.stats.spilled_bytes == 0


@pytest.mark.parametrize("how", KINDS)
def test_an_empty_side_joins_with_anything(how: HashJoinKind) -> None:
    rows = numbered((key(n % 1500) for n in range(3000)), "x", 300)

    assert run(how, rows, [], 256 * KIB).rows == naive(how, rows, [])
    assert run(how, [], rows, 256 * KIB).rows == naive(how, [], rows)


@pytest.mark.parametrize("how", KINDS)
def test_rows_much_longer_than_others_pass(how: HashJoinKind) -> None:
    left = numbered((key(n) for n in range(100)), "l", 30 * KIB)
    right = numbered((key(n) for n in range(50, 150)), "r", 30 * KIB)

    assert run(how, left, right, 256 * KIB).rows == naive(how, left, right)


def test_a_row_longer_than_memory_is_refused() -> None:
    right = numbered((key(n) for n in range(100)), "r", 100 * KIB)

    with pytest.raises(CapTooSmall) as caught:
        run("inner", [], right, 256 * KIB)

    assert caught.value.needed_bytes > 800 * KIB


def test_too_little_memory_is_refused() -> None:
    with pytest.raises(CapTooSmall):
        run("inner", [], [], 100 * KIB)


@pytest.mark.parametrize("how", ["semi", "anti"])
def test_a_small_left_side_is_built_where_only_it_comes_out(how: HashJoinKind) -> None:
    left = numbered((key(n * 90).ljust(400) for n in range(60)), "l", 100)
    right = numbered((key(n).ljust(400) for n in reversed(range(5000))), "r")

    answer = run(how, left, right, 256 * KIB)

    assert answer.rows == naive(how, left, right)
    assert 0 < len(answer.rows) < len(left)
    assert answer.stats.reversals > 0
