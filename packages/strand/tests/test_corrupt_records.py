"""Records that cannot be decoded: they are named, and reading continues after them."""

import struct
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import pytest

import strand
from sennit_core.errors import UsageError

SCHEMA = strand.build_schema([("tag", "utf8_ref"), ("name", "utf8")])
BAD = 2
ROWS = [("a", f"row {n}") for n in range(5)]
UNKNOWN_HANDLE = struct.pack("<I", 7)
BAD_POINTER = struct.pack("<QI", 2**40, 2**31)


def open_damaged(field: int, value: bytes) -> Iterator[strand.StrandView]:
    """Yield a view of five records, one of which has `value` in the slot of a field."""
    with strand.open_ring(SCHEMA, 8, 1024, metadata={"intern": ["a", "b"]}) as ring:
        with ring.producer() as writer:
            writer.write_record_batch(ROWS)
        at = 4096 + BAD * ring.map.stride + ring.map.slots.offsets[field]
        ring.memory[at : at + len(value)] = value
        with ring.consumer() as view:
            yield view


@pytest.fixture(params=[(0, UNKNOWN_HANDLE), (1, BAD_POINTER)], ids=["handle", "pointer"])
def view(request: pytest.FixtureRequest) -> Iterator[strand.StrandView]:
    yield from open_damaged(*request.param)


def collect(items: Iterable[Any], into: list[Any]) -> None:
    for item in items:
        into.append(item)  # noqa: PERF402 - keeps what came before an error


def test_iterating_continues_after_a_record_that_cannot_be_decoded(view: strand.StrandView) -> None:
    rows: list[Any] = []
    with pytest.raises(strand.CorruptRecord, match="record 2: field") as failure:
        collect(view, rows)
    assert failure.value.record == BAD
    assert failure.value.hint == "acknowledge_read(3) skips this record; then iterate again"
    view.acknowledge_read(failure.value.record + 1)
    rows += view
    assert rows == [row for at, row in enumerate(ROWS) if at != BAD]


def test_batches_return_the_records_before_and_after_it(view: strand.StrandView) -> None:
    batches: list[Any] = []
    with pytest.raises(strand.CorruptRecord) as failure:
        collect(view.batches(), batches)
    assert view.acknowledged_count == failure.value.record == BAD
    view.acknowledge_read(BAD + 1)
    batches += view.batches()
    names = [name for batch in batches for name in batch.column("name").to_pylist()]
    assert names == ["row 0", "row 1", "row 3", "row 4"]


def test_a_cursor_and_tuples_name_it_too(view: strand.StrandView) -> None:
    cursor = view.allocate_cursor()
    assert cursor.seek(BAD)
    for read in (cursor.to_dict, lambda: view.tuples(0, 5), lambda: view.to_arrow(0, 5)):
        with pytest.raises(strand.CorruptRecord) as failure:
            read()
        assert failure.value.record == BAD


def test_groups_of_a_fan_in_return_the_records_before_and_after_it() -> None:
    with strand.fan_in(1, SCHEMA, 8, 1024, metadata={"intern": ["a", "b"]}) as fan:
        with fan.producer() as writer:
            writer.write_record_batch(ROWS)
        ring = fan.rings[0]
        ring.memory[4096 + BAD * ring.map.stride :][:4] = UNKNOWN_HANDLE
        with fan.consumer() as view:
            groups: list[Any] = []
            with pytest.raises(strand.CorruptRecord) as failure:
                collect(view.row_groups(), groups)
            view.members[0].acknowledge_read(failure.value.record + 1)
            collect(view.row_groups(), groups)
    assert [row for group in groups for row in group] == [
        row for at, row in enumerate(ROWS) if at != BAD
    ]


@pytest.mark.parametrize("how", ["write", "columns", "array"])
def test_a_handle_that_no_consumer_can_read_is_refused(how: str) -> None:
    schema = strand.build_schema([("tag", "utf8_ref")])
    array = np.array([(1,), (2,)], schema.to_numpy())
    writes: dict[str, Callable[[Any], object]] = {
        "write": lambda writer: writer.write((2,)),
        "columns": lambda writer: writer.write_columns({"tag": [1, 2]}),
        "array": lambda writer: writer.write_columns(array),
    }
    with (
        strand.open_ring(schema, 8, 1024, metadata={"intern": ["a", "b"]}) as ring,
        ring.producer() as writer,
    ):
        with pytest.raises(UsageError, match="'handle 2' is not in the intern table"):
            writes[how](writer)
        assert writer.committed_count == 0
        writer.write((1,))
