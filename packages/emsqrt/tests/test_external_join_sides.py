"""Sides of a join that are sorted, or small, or have few keys in common."""

from __future__ import annotations

import pytest
from external_joins import run, spread
from hypothesis import given, settings
from hypothesis import strategies as st

from emsqrt.external.join_oracle import KIB, KINDS, Row, key, naive, numbered
from emsqrt.external.join_output import KEEPS_RIGHT, HashJoinKind


def ascending(rows: list[Row]) -> list[Row]:
    """The rows by their keys, those of NULL last."""
    return sorted(rows, key=lambda row: (not row[0], row[0]))


def longer(rows: list[Row]) -> list[Row]:
    """The rows with keys of 100 bytes, of which few fit memory."""
    return [(row_key and row_key.ljust(100, b"."), payload) for row_key, payload in rows]


@pytest.mark.sample(2)
@pytest.mark.parametrize("how", KINDS)
def test_sorted_sides_are_merged_and_only_the_right_one_spilled(how: HashJoinKind) -> None:
    left = longer(ascending(numbered(spread(1, 4000, 3000, 0.001, 0.02), "l", 100)))
    right = longer(ascending(numbered(spread(2, 4000, 3000, 0.001, 0.02), "r", 300)))

    answer = run(how, left, right, 256 * KIB)

    assert answer.rows == naive(how, left, right)
    assert answer.stats.merged_bytes > 4000 * 100
    lone = 4000 * 440 if how in KEEPS_RIGHT else 0  # they wait on disk for their place at the end
    assert answer.stats.spilled_bytes < 4000 * 430 + lone
    assert answer.stats.partitions == 0


@pytest.mark.sample(2)
@pytest.mark.parametrize("how", KINDS)
def test_a_key_with_more_rows_than_memory_is_merged(how: HashJoinKind) -> None:
    left = longer(ascending(numbered([key(n) for n in range(0, 300, 2)] + [key(7)] * 12, "l")))
    right = longer(ascending(numbered([*map(key, range(2500)), *[key(7)] * 900], "r", 300)))

    answer = run(how, left, right, 256 * KIB)

    assert answer.rows == naive(how, left, right)
    assert answer.stats.merged_bytes > 0


@pytest.mark.sample(2)
@pytest.mark.parametrize("ordered", [True, False])
@pytest.mark.parametrize("how", ["right", "full"])
@pytest.mark.parametrize("tail", [0, 40, 3000])
def test_matches_before_the_left_side_lost_its_order_are_remembered(
    how: HashJoinKind, tail: int, ordered: bool
) -> None:
    nulls = [b""] * 30
    rising = [key(number) for number in range(0, 6000, 3)]
    after = [key(number * 7 % 8000) for number in range(tail)] + [key(4)] * bool(tail)
    left = longer(numbered([*rising, *after, *nulls], "l", 50))
    hot = [key(1500)] * 900 + [key(4001)] * 900
    right = longer(ascending(numbered([*map(key, range(0, 7000, 2)), *hot, *nulls], "r", 300)))

    answer = run(how, left, right, 256 * KIB, ordered=ordered)

    wanted = naive(how, left, right)
    if ordered:
        assert answer.rows == wanted
    else:
        assert sorted(answer.rows, key=repr) == sorted(wanted, key=repr)
    assert answer.stats.merged_bytes > 2000 * 100
    assert (answer.stats.partitions > 0) == bool(tail)


@pytest.mark.sample(4)
@pytest.mark.parametrize("block_rows", [1, 3, 100])
@pytest.mark.parametrize("how", KINDS)
def test_a_key_that_comes_again_after_nulls_has_all_its_matches(
    how: HashJoinKind, block_rows: int
) -> None:
    left = numbered([key(0), key(1), key(1), b"", b"", key(1), key(2)], "l")
    right = numbered([key(0)] * 700 + [key(1)] * 700 + [key(3)], "r", 300)

    answer = run(how, left, right, 256 * KIB, block_rows=block_rows)

    assert answer.rows == naive(how, left, right)


@pytest.mark.nightly
@settings(max_examples=30, deadline=None)  # it spills
@given(
    how=st.sampled_from(KINDS),
    seeds=st.tuples(st.integers(0, 999), st.integers(0, 999)),
    counts=st.tuples(st.integers(0, 2000), st.integers(700, 2500)),
    sorted_rows=st.tuples(st.integers(0, 2000), st.integers(900, 5000)),
    distinct=st.sampled_from([2, 50, 3000]),
    nulls=st.sampled_from([0.0, 0.2]),
    width=st.sampled_from([20, 400, 2000]),
    ordered=st.booleans(),
    block_rows=st.integers(1, 300),
)
def test_sides_that_stop_being_sorted_are_joined_all_the_same(
    how: HashJoinKind,
    seeds: tuple[int, int],
    counts: tuple[int, int],
    sorted_rows: tuple[int, int],
    distinct: int,
    nulls: float,
    width: int,
    ordered: bool,
    block_rows: int,
) -> None:
    if distinct == 2:
        counts = counts[0] // 40, counts[1]
    sides = []
    for at, name in enumerate("lr"):
        rows = numbered(spread(seeds[at], counts[at], distinct, 0.01, nulls), name, width)
        sides.append(ascending(rows[: sorted_rows[at]]) + rows[sorted_rows[at] :])
    left, right = sides

    answer = run(how, left, right, 256 * KIB, ordered=ordered, block_rows=block_rows)

    wanted = naive(how, left, right)
    if ordered:
        assert answer.rows == wanted
    else:
        assert sorted(answer.rows, key=repr) == sorted(wanted, key=repr)


def test_a_left_side_in_any_order_goes_to_the_ranges_of_a_sorted_right_one() -> None:
    right = numbered((key(n // 2) for n in range(6000)), "r", 300)
    left = numbered(spread(3, 5000, 3500, 0.0, 0.01), "l", 50)

    answer = run("left", left, right, 256 * KIB)

    assert answer.rows == naive("left", left, right)
    assert answer.stats.partitions > 4
    assert answer.stats.levels == 1
    right_bytes, left_bytes = 6000 * 320, 5000 * 80
    joined_bytes = len(answer.rows) * 390
    assert answer.stats.spilled_bytes < right_bytes + left_bytes + joined_bytes


@pytest.mark.sample(2)
@pytest.mark.parametrize("ordered", [True, False])
@pytest.mark.parametrize("how", KINDS)
@pytest.mark.parametrize(
    ("left_rows", "right_rows", "hot"), [(300, 6000, 0.0), (3000, 9000, 0.01), (30, 2000, 0.7)]
)
def test_a_left_side_that_is_built_returns_the_same_rows(
    how: HashJoinKind, ordered: bool, left_rows: int, right_rows: int, hot: float
) -> None:
    left = numbered(spread(1, left_rows, 3000, hot, 0.02), "l", 100)
    right = numbered(spread(2, right_rows, 3000, hot, 0.02), "r", 100)
    wanted = naive(how, left, right)

    answers = [
        run(how, left, right, size * KIB, ordered=ordered, build_left=True) for size in (256, 8192)
    ]

    for answer in answers:
        if ordered:
            assert answer.rows == wanted
        else:
            assert sorted(answer.rows, key=repr) == sorted(wanted, key=repr)
    assert not answers[1].partitioned
    assert hot or answers[1].stats.spilled_bytes == 0


def test_a_small_left_side_leaves_the_right_one_where_it_is() -> None:
    left = numbered((key(n * 50) for n in reversed(range(200))), "l", 100)
    right = numbered((key(n) for n in range(10_000)), "r", 100)

    answer = run("inner", left, right, 256 * KIB, build_left=True)

    assert answer.rows == naive("inner", left, right)
    assert answer.stats.spilled_bytes == 0
    assert run("inner", left, right[::-1], 256 * KIB).stats.spilled_bytes > 1_000_000


def test_the_output_of_a_built_left_side_is_sorted_in_runs() -> None:
    left = numbered((key(n % 30) for n in range(60)), "l", 100)
    right = numbered((key(n % 40) for n in range(2000)), "r", 100)

    answer = run("full", left, right, 256 * KIB, build_left=True)

    assert answer.rows == naive("full", left, right)
    assert not answer.partitioned
    assert answer.stats.spilled_bytes > 256 * KIB


@pytest.mark.slow
@pytest.mark.parametrize(
    ("how", "build_left"),
    [("inner", False), ("right", False), ("semi", False), ("inner", True), ("left", True)],
)
def test_rows_whose_key_the_built_side_lacks_are_not_spilled(
    how: HashJoinKind, build_left: bool
) -> None:
    one = numbered((key(n * 97 % 4001) for n in range(4000)), "x", 300)
    other = numbered((key(n * 89 % 400_009) for n in range(8000)), "y", 300)
    left, right = (one, other) if build_left else (other, one)
    if how == "semi":
        right = [(row_key.ljust(300), b"") for row_key, _ in right]
        left = [(row_key.ljust(300), payload) for row_key, payload in left]

    answer = run(how, left, right, 256 * KIB, build_left=build_left)

    assert answer.rows == naive(how, left, right)
    assert answer.partitioned
    rows_spilled = answer.stats.spilled_bytes / 320
    assert rows_spilled < 4000 * 1.3 * 2 + len(answer.rows) * 2


@pytest.mark.sample(4)
@pytest.mark.parametrize("build_left", [False, True])
@pytest.mark.parametrize("how", KINDS)
def test_keys_of_an_eighth_of_memory_pass(how: HashJoinKind, build_left: bool) -> None:
    left, right = (
        numbered((key(n).ljust(15 * KIB, b"k") for n in numbers), side, 15 * KIB)
        for numbers, side in ((range(0, 120, 3), "l"), (range(0, 120, 2), "r"))
    )

    answer = run(how, left, right, 256 * KIB, build_left=build_left)

    assert answer.rows == naive(how, left, right)


@pytest.mark.parametrize("is_sorted", [False, True])
def test_few_matches_of_many_blocks_come_early_and_then_gather(is_sorted: bool) -> None:
    left = longer(numbered([key(number) for number in range(4000)], "l"))
    right = longer(numbered([key(number) for number in range(0, 4000, 10)], "r", 900))

    answer = run("inner", left, right, (256 if is_sorted else 4096) * KIB, block_rows=20)

    assert (answer.stats.merged_bytes > 0) == is_sorted
    assert answer.rows == naive("inner", left, right)
    assert sum(answer.blocks) == len(answer.rows) == 400
    assert answer.blocks[0] <= 2
    assert len(answer.blocks) < 15, "of 200 that were probed with"
