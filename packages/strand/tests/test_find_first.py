"""Bisection on sorted fields."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import strand
from sennit_core.errors import UsageError


@contextmanager
def sorted_ring(kind: str, values: list[Any], order: Any = "ascending") -> Iterator[Any]:
    """A view of these values after four that were released."""
    schema = strand.build_schema([strand.StrandField("key", kind, nullable=True, order=order)])
    metadata = {"intern": ["a", "b", "c"]}
    with (
        strand.open_ring(schema, 64, 1024, metadata=metadata) as ring,
        ring.producer() as writer,
        ring.consumer() as view,
    ):
        writer.write_record_batch([(values[0] if values else None,)] * 4)
        view.acknowledge_read(4)
        writer.write_record_batch([(value,) for value in values])
        yield view


@given(st.lists(st.integers(-20, 20), max_size=40), st.integers(-25, 25), st.booleans())
@settings(deadline=None)  # a ring for each example
def test_the_first_record_not_before_the_value(values: list[int], value: int, down: bool) -> None:
    values.sort(reverse=down)
    order = "descending" if down else "ascending"
    with sorted_ring("i32", values, order) as view:
        found = view.find_first("key", value)
        reached = [not (at > value if down else at < value) for at in values]
        assert found == 4 + (reached.index(True) if any(reached) else len(values))


@pytest.mark.parametrize(
    ("kind", "values", "value", "found"),
    [
        ("f64", [0.5, 1.5, float("nan")], 1.0, 5),
        ("f64", [0.5, 1.5, float("nan")], 2.0, 6),
        ("i64", [2**60, 2**60 + 1], 2**60 + 1, 5),
        ("utf8", ["a", "b", "é"], "c", 6),
        ("utf8_ref", ["a", "b", "c"], "b", 5),
        ("bytes", [b"a", b"c"], b"b", 5),
        ("u16", [1, 5, None, None], 9, 6),
        ("u8", [1, 2, 3], 2.5, 6),
        ("bool8", [False, False, True], True, 6),
    ],
)
def test_every_ordered_type_is_searched(kind: str, values: Any, value: Any, found: int) -> None:
    with sorted_ring(kind, values) as view:
        assert view.find_first("key", value) == found


def test_nothing_is_found_at_the_committed_count() -> None:
    with sorted_ring("u32", []) as view:
        assert view.find_first("key", 0) == view.committed_count == 4


@pytest.mark.parametrize(("kind", "order"), [("i32", None), ("json", "ascending")])
def test_unsorted_fields_are_refused(kind: str, order: Any) -> None:
    with sorted_ring(kind, [1, 2], order) as view, pytest.raises(UsageError, match="not sorted"):
        view.find_first("key", 1)


def test_values_of_another_type_are_refused() -> None:
    with sorted_ring("i32", [1, 2]) as view, pytest.raises(UsageError, match="'key' is i32"):
        view.find_first("key", "1")
