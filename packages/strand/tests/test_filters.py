"""Predicates, bitsets and ranges over the records in a ring."""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import strand
from sennit_core.errors import Corrupt, UnknownColumn, UsageError
from strand.filters import Bitset, between, eq, for_each_set, intersect, one_of, popcount

Pair = tuple[strand.StrandWriter, strand.StrandView]

CHROMOSOMES = ["chr1", "chr2", "chrX"]
READS = strand.build_schema(
    [
        ("at", "u32"),
        {"name": "score", "type": "f32", "nullable": True},
        ("forward", "bool8"),
        ("where", "utf8_ref"),
        {"name": "name", "type": "utf8", "nullable": True},
        ("big", "i64"),
        ("tags", "json"),
    ]
)
ROWS: list[tuple[Any, ...]] = [
    (10, 0.5, True, "chr1", "a", 2**60, {}),
    (20, None, False, "chr2", "b", -(2**60), {}),
    (30, 0.25, True, "chrX", "é", 2**60 + 1, {}),
    (40, 0.1, False, "chr1", None, 0, {}),
    (50, math.nan, True, "chr2", "", 7, {}),
]


@pytest.fixture
def pair() -> Iterator[Pair]:
    """Five records where the ring wraps, numbered from 6."""
    with (
        strand.open_ring(READS, 8, 1024, metadata={"intern": CHROMOSOMES}) as ring,
        ring.producer() as writer,
        ring.consumer() as view,
    ):
        writer.write_record_batch(ROWS[:1] * 6)
        view.acknowledge_read(6)
        writer.write_record_batch(ROWS)
        yield writer, view


@pytest.mark.parametrize(
    ("field", "predicate", "matching"),
    [
        ("at", between(20, 40), [7, 8, 9]),
        ("at", between(None, 20), [6, 7]),
        ("at", between(20.5, 1e300), [8, 9, 10]),
        ("at", between(math.nan, 1), []),
        ("at", between(-math.inf, math.inf), [6, 7, 8, 9, 10]),
        ("at", eq(30), [8]),
        ("at", eq(30.5), []),
        ("at", eq(-1), []),
        ("at", one_of([10, 50, 2**40]), [6, 10]),
        ("score", between(0.1, 0.3), [8, 9]),
        ("score", between(0, None), [6, 8, 9]),
        ("score", eq(0.1), [9]),
        ("score", between(-1e300, 1e300), [6, 8, 9]),
        ("forward", eq(True), [6, 8, 10]),
        ("forward", eq(0), [7, 9]),
        ("where", eq("chr1"), [6, 9]),
        ("where", one_of(["chr2", "chrX", "chrY"]), [7, 8, 10]),
        ("where", between("chr2", None), [7, 8, 10]),
        ("name", eq("b"), [7]),
        ("name", eq(""), [10]),
        ("name", between("b", "é"), [7, 8]),
        ("big", between(2**60 + 1, None), [8]),
        ("big", eq(2**60), [6]),
        ("big", one_of([]), []),
    ],
)
def test_predicates_match(pair: Pair, field: str, predicate: Any, matching: list[int]) -> None:
    bitset = pair[1].get_filter_bitset(field, predicate)
    assert list(bitset) == matching
    assert popcount(bitset) == len(matching)
    assert bool(bitset) is bool(matching)
    assert [seq for seq in range(20) if seq in bitset] == matching


def test_bitsets_answer_for_their_window(pair: Pair) -> None:
    _, view = pair
    bitset = view.get_filter_bitset("at", between(0, 40), start=7, stop=10)
    assert (bitset.start, bitset.length) == (7, 3)
    assert list(bitset) == [7, 8, 9]
    assert list(view.get_filter_bitset("at", eq(10), start=8, stop=8)) == []


def test_bitsets_are_combined(pair: Pair) -> None:
    _, view = pair
    forward = view.get_filter_bitset("forward", eq(True))
    early = view.get_filter_bitset("at", between(0, 30))
    named = view.get_filter_bitset("name", between("", None))
    assert list(forward & early) == [6, 8]
    assert list(forward | early) == [6, 7, 8, 10]
    assert list(~forward) == [7, 9]
    assert list(intersect(forward, early, named)) == [6, 8]
    assert ~~forward == forward
    seen: list[int] = []
    for_each_set(forward, seen.append)
    assert seen == [6, 8, 10]


def test_bitsets_of_other_windows_are_not_combined(pair: Pair) -> None:
    _, view = pair
    bitset = view.get_filter_bitset("at", eq(10))
    other = view.get_filter_bitset("at", eq(10), start=7)
    with pytest.raises(UsageError, match="5 records from 6"):
        bitset & other
    with pytest.raises(UsageError):
        intersect()


def test_ranges_are_those_of_the_records_that_are_set(pair: Pair) -> None:
    _, view = pair
    forward = view.get_filter_bitset("forward", eq(True))
    ranges = view.constrained_ranges(forward)
    assert ranges == {"at": (10, 50), "score": (0.25, 0.5), "big": (7, 2**60 + 1)}
    second = view.get_filter_bitset("at", eq(20))
    assert view.constrained_ranges(second, ["at", "score"]) == {"at": (20, 20)}
    assert view.constrained_ranges(second & forward) == {}


@pytest.mark.parametrize(
    ("field", "predicate"),
    [
        ("tags", eq("{}")),
        ("at", eq("10")),
        ("at", between("a", "b")),
        ("name", between(1, 2)),
        ("where", between(1, 2)),
        ("at", 10),
    ],
)
def test_values_that_cannot_be_compared_are_refused(pair: Pair, field: str, predicate: Any) -> None:
    with pytest.raises(UsageError):
        pair[1].get_filter_bitset(field, predicate)


def test_ranges_need_numbers(pair: Pair) -> None:
    _, view = pair
    with pytest.raises(UsageError, match="'where' is utf8_ref"):
        view.constrained_ranges(view.get_filter_bitset("at", eq(1)), ["where"])
    with pytest.raises(UnknownColumn):
        view.get_filter_bitset("att", eq(1))


def test_released_records_are_not_filtered(pair: Pair) -> None:
    _, view = pair
    bitset = view.get_filter_bitset("at", eq(10))
    view.acknowledge_read(8)
    with pytest.raises(UsageError):
        view.get_filter_bitset("at", eq(10), start=7)
    with pytest.raises(UsageError):
        view.constrained_ranges(bitset)


def test_a_handle_outside_the_table_is_corrupt(pair: Pair) -> None:
    writer, view = pair
    [slot] = writer.claim_records(1)
    slot["where"] = 3
    writer.commit_slots(11, 1)
    with pytest.raises(Corrupt):
        view.get_filter_bitset("where", eq("chr1"))
    view.update_intern_table([*CHROMOSOMES, "chrM"])
    assert list(view.get_filter_bitset("where", eq("chrM"))) == [11]


@given(st.lists(st.booleans(), max_size=200), st.integers(0, 2**40))
def test_bitsets_hold_exactly_their_mask(bits: list[bool], start: int) -> None:
    bitset = Bitset.from_mask(start, np.array(bits, bool))
    wanted = [start + at for at, bit in enumerate(bits) if bit]
    assert list(bitset) == wanted
    assert bitset.popcount() == len(wanted)
    assert (~bitset).popcount() == len(bits) - len(wanted)
    assert bitset.to_mask().tolist() == bits
    assert len(bitset.words) == (len(bits) + 63) // 64
