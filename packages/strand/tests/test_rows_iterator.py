"""Rows one at a time: tuples that are reused, and never while a reference to them exists."""

import gc
from collections.abc import Iterator
from itertools import islice

import pytest

import strand
from sennit_core.errors import Closed, UsageError

SCHEMA = strand.build_schema([("id", "u32"), {"name": "label", "type": "utf8", "nullable": True}])
ROWS = [(number, None if number % 3 == 0 else f"label {number}") for number in range(1000)]


@pytest.fixture
def view() -> Iterator[strand.StrandView]:
    with strand.open_ring(SCHEMA, 1024, "64KiB") as ring:
        with ring.producer() as writer:
            writer.write_record_batch(ROWS)
        yield ring.consumer()


def test_rows_equal_the_written_records(view: strand.StrandView) -> None:
    assert list(view.rows(0, 1000)) == ROWS
    assert list(view.rows(500, 503)) == ROWS[500:503]
    assert list(view.rows(7, 7)) == []


def test_a_row_with_a_reference_does_not_change(view: strand.StrandView) -> None:
    kept = []
    for row in view.rows(0, 1000):
        if row[0] % 7 == 0:
            kept.append(row)  # noqa: PERF401 - the loop drops the others
    assert kept == ROWS[::7]
    assert len({id(row) for row in kept}) == len(kept)


def test_a_loop_that_keeps_nothing_needs_two_tuples(view: strand.StrandView) -> None:
    assert len({id(row) for row in view.rows(0, 1000)}) == 2


def test_rows_that_may_refer_back_are_seen_by_the_garbage_collector() -> None:
    schema = strand.build_schema([("meta", "json")])
    with strand.open_ring(schema, 8, 1024) as ring, ring.producer() as writer:
        writer.write_record_batch([([1],), ([2],)])
        first, second = ring.consumer().rows(0, 2)
        assert first == ([1],)
        assert second == ([2],)
        assert gc.is_tracked(first)


def test_rows_that_were_released_meanwhile_are_refused(view: strand.StrandView) -> None:
    rows = view.rows(0, 1000)
    assert list(islice(rows, 10)) == ROWS[:10]
    view.acknowledge_read(20)
    with pytest.raises(UsageError, match="record 10 was acknowledged"):
        next(rows)
    with pytest.raises(UsageError):
        view.rows(0, 5)
    with pytest.raises(UsageError):
        view.rows(20, 1001)


def test_rows_end_with_their_view(view: strand.StrandView) -> None:
    rows = view.rows(0, 1000)
    next(rows)
    view.close()
    with pytest.raises(Closed):
        next(rows)


def test_iterating_a_view_releases_in_groups(view: strand.StrandView) -> None:
    assert list(view) == ROWS
    assert view.acknowledged_count == 1000
