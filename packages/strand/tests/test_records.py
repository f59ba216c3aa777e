"""Records in and out: what a record may be, batches, payload limits, and code that values bring."""

import struct
import threading
from array import array
from collections import ChainMap, OrderedDict, UserDict, UserList, deque, namedtuple
from collections.abc import Iterator
from contextlib import suppress
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import strand
from sennit_core.errors import Closed, UnknownColumn, UsageError
from strand.fields import FIELD_TYPES

Pair = tuple[strand.StrandWriter, strand.StrandView]

Pairs = namedtuple("Pairs", "id note xs")  # noqa: PYI024 - a record of no types, as users have them


@pytest.fixture
def pair() -> Iterator[Pair]:
    schema = strand.build_schema(
        [("id", "u16"), {"name": "note", "type": "utf8", "nullable": True}, ("xs", "f32_array")]
    )
    with (
        strand.open_ring(schema, 4, 256) as ring,
        ring.producer() as writer,
        ring.consumer() as view,
    ):
        yield writer, view


def notes(view: strand.StrandView) -> list[Any]:
    return [note for _, note, _ in view.tuples(view.window_start, view.committed_count)]


# ---- what a record may be -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "record",
    [
        (7, "n", [1.5]),
        [7, "n", [1.5]],
        Pairs(7, "n", [1.5]),
        UserList([7, "n", [1.5]]),
        deque([7, "n", [1.5]]),
        np.array([7, "n", (1.5,)], dtype=object),
        {"xs": [1.5], "note": "n", "id": 7},
        OrderedDict(id=7, note="n", xs=[1.5]),
        UserDict(id=7, note="n", xs=[1.5]),
        MappingProxyType({"id": 7, "note": "n", "xs": [1.5]}),
        ChainMap[str, Any]({"id": 7}, {"note": "n", "xs": [1.5]}),
    ],
    ids=lambda record: type(record).__name__,
)
def test_a_record_is_any_sequence_or_mapping(pair: Pair, record: Any) -> None:
    writer, view = pair
    writer.write(record)
    assert writer.write_record_batch([record]) == 1
    assert [(number, note, list(xs)) for number, note, xs in view.tuples(0, 2)] == [
        (7, "n", [1.5])
    ] * 2


def test_a_row_of_a_structured_array_is_a_record() -> None:
    table = np.array([(1, 0.5), (2, 0.25)], dtype=[("id", "u4"), ("score", "f8")])
    with (
        strand.open_ring(strand.build_schema([("id", "u32"), ("score", "f64")]), 4, 128) as ring,
        ring.producer() as writer,
        ring.consumer() as view,
    ):
        assert writer.write_record_batch(table) == 2
        assert view.tuples(0, 2) == [(1, 0.5), (2, 0.25)]


@pytest.mark.parametrize(
    "record", ["abc", b"abc", bytearray(b"abc"), {1, 2, 3}, 5, None, iter("abc")]
)
def test_an_invalid_record_is_refused(pair: Pair, record: Any) -> None:
    writer, view = pair
    with pytest.raises(UsageError) as refused:
        writer.write(record)
    assert str(refused.value) == (
        "a record has 3 fields (id, note, xs): a tuple, list or mapping, not "
        f"{type(record).__name__}"
    )
    assert view.committed_count == 0


@pytest.mark.parametrize("record", [(), (1, "n"), (1, "n", [], 4), [1]])
def test_a_record_of_another_length_is_refused(pair: Pair, record: Any) -> None:
    with pytest.raises(UsageError) as refused:
        pair[0].write(record)
    assert str(refused.value) == f"a record has 3 fields (id, note, xs), not {len(record)}"


def test_a_mapping_may_omit_nullable_fields_only(pair: Pair) -> None:
    writer, view = pair
    writer.write({"xs": [], "id": 7})
    assert notes(view) == [None]
    with pytest.raises(UsageError, match="field 'xs' cannot be null"):
        writer.write({"id": 7})


@pytest.mark.parametrize("unknown", ["Note", "notes", 5])
def test_a_key_that_is_no_field_is_refused_with_the_nearest(pair: Pair, unknown: Any) -> None:
    with pytest.raises(UnknownColumn) as refused:
        pair[0].write({"id": 1, "xs": [], unknown: "n"})
    assert refused.value.suggestion == (None if unknown == 5 else "note")


def test_tuples_hold_copies() -> None:
    fields = [("b", "bytes"), ("i", "i32_array"), ("f", "f32_array"), ("j", "json")]
    with (
        strand.open_ring(strand.build_schema(fields), 4, 1024) as ring,
        ring.producer() as writer,
        ring.consumer() as view,
    ):
        writer.write((b"abc", [1], [2.0], {"k": []}))
        record = view.tuples(0, 1)[0]
    assert record[0] == b"abc"
    assert (record[1].tolist(), record[2].tolist(), record[3]) == ([1], [2.0], {"k": []})


@pytest.mark.parametrize(("start", "stop"), [(0, 2), (1, 4), (3, 4), (2, 1), (2**40, 2**40 + 1)])
def test_tuples_are_of_records_that_may_be_read(pair: Pair, start: int, stop: int) -> None:
    writer, view = pair
    writer.write_record_batch([(at, None, []) for at in range(3)])
    view.acknowledge_read(1)
    assert [record[0] for record in view.tuples(1, 3)] == [1, 2]
    assert view.tuples(2, 2) == []
    with pytest.raises(UsageError, match="is not committed, or was acknowledged already"):
        view.tuples(start, stop)


# ---- batches --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("record", "error"),
    [
        ((70000, "a", []), UsageError),
        (("1", "a", []), UsageError),
        ((None, "a", []), UsageError),
        ((1, "a"), UsageError),
        ({"id": 1, "xs": [], "nothing": 0}, UnknownColumn),
        ((1, "\ud800", []), UsageError),
        ((1, "x" * 129, []), strand.PayloadTooLarge),
    ],
)
def test_a_record_that_does_not_fit_leaves_those_before_it_and_the_ring_intact(
    pair: Pair, record: Any, error: type[Exception]
) -> None:
    writer, view = pair
    for batch in ([(1, "first", []), record], iter([record]), (record,)):
        with pytest.raises(error):
            writer.write_record_batch(batch)
    with pytest.raises(error):
        writer.write(record)
    assert view.committed_count == 1
    assert writer.write_record_batch([(2, "second", [])]) == 1
    assert notes(view) == ["first", "second"]


def test_a_batch_comes_from_any_iterable(pair: Pair) -> None:
    writer, view = pair
    assert writer.write_record_batch([]) == 0
    assert writer.write_record_batch((at, "tuple", []) for at in range(2)) == 2
    assert writer.write_record_batch({(1, "set", ())}) == 1
    with pytest.raises(TypeError):
        writer.write_record_batch(5)  # type: ignore[arg-type]
    assert notes(view) == ["tuple", "tuple", "set"]


def test_items_of_an_iterable_before_its_failure_are_written(pair: Pair) -> None:
    def records() -> Iterator[tuple[Any, ...]]:
        yield 1, "one", []
        yield 2, "two", []
        raise LookupError("no more")

    writer, view = pair
    with pytest.raises(LookupError, match="no more"):
        writer.write_record_batch(records())
    assert notes(view) == ["one", "two"]


def test_a_batch_larger_than_the_ring_goes_through_in_pieces(pair: Pair) -> None:
    writer, view = pair
    sent = [(at, "n" * (at % 50), [at] * (at % 4)) for at in range(2000)]

    def produce() -> None:
        with writer:
            writer.write_record_batch(sent)

    thread = threading.Thread(target=produce)
    thread.start()
    received = [(number, note, xs.tolist()) for number, note, xs in view]
    thread.join()
    assert received == sent


# ---- limits ---------------------------------------------------------------------------------------


def test_a_record_may_use_half_of_the_heap_at_any_offset(pair: Pair) -> None:
    writer, view = pair
    for at in range(50):
        text = "x" * (128 - at % 3)
        writer.write((at, text, []))
        assert view.tuples(at, at + 1)[0][1] == text
        view.acknowledge_read(at + 1)


def test_oversized_payloads_are_refused_by_their_sum_and_alignment(pair: Pair) -> None:
    writer, view = pair
    writer.write((1, "x" * 61, [0.0]))  # 61 + 4 and at most 63 before it
    for note, xs, needed in (("x" * 129, [], 129), ("x" * 62, [0.0], 129), ("y" * 100, [0], 167)):
        with pytest.raises(strand.PayloadTooLarge) as refused:
            writer.write((1, note, xs))
        assert (refused.value.limit_bytes, refused.value.actual_bytes) == (128, needed)
    assert view.committed_count == 1


def test_a_record_that_can_never_fit_is_refused_without_waiting_for_room(pair: Pair) -> None:
    writer, view = pair
    writer.write_record_batch([(at, None, []) for at in range(4)])
    with pytest.raises(strand.PayloadTooLarge):
        writer.write((5, "x" * 129, []))
    assert view.committed_count == 4


def test_a_v5_payload_longer_than_its_pointer_can_say_is_refused() -> None:
    with (
        strand.open_ring(strand.build_schema([("b", "bytes")]), 4, "1MiB", version=5) as ring,
        ring.producer() as writer,
    ):
        writer.write((bytes(65535),))
        with pytest.raises(strand.PayloadTooLarge, match="field 'b' in a v5 ring") as refused:
            writer.write((bytes(65536),))
        assert (refused.value.limit_bytes, refused.value.actual_bytes) == (65535, 65536)


def test_a_slot_may_be_claimed_and_filled_by_hand(pair: Pair) -> None:
    writer, view = pair
    slot, seq = writer.claim_slot()
    offsets = writer.map.slots.offsets
    struct.pack_into("<H", writer.memory, slot + offsets[0], 9)
    start, offset = writer.claim_heap_bytes(4, 64)
    struct.pack_into("<f", writer.memory, start, 0.25)
    struct.pack_into("<QI", writer.memory, slot + offsets[2], offset, 4)
    with pytest.raises(UsageError):
        writer.commit_slot(seq + 1)
    writer.commit_slot(seq)
    assert view.tuples(0, 1) == [(9, None, array("f", [0.25]))]


def test_whole_records_and_slots_filled_by_hand_do_not_mix(pair: Pair) -> None:
    writer, view = pair
    _, seq = writer.claim_slot()
    with pytest.raises(UsageError, match="slot 0 is next to be committed, not 1"):
        writer.write((1, None, []))
    with pytest.raises(UsageError, match="slot 0 is next"):
        writer.write_record_batch([(1, None, [])])
    writer.commit_slot(seq)
    writer.write((1, None, []))
    assert [record[0] for record in view.tuples(0, 2)] == [0, 1]


def test_a_record_whose_wait_for_room_was_interrupted_was_never_begun() -> None:
    class Interrupted(strand.StrandWriter):
        def _wait_for_room(self, threshold: int) -> None:
            raise KeyboardInterrupt

    with strand.open_ring(strand.build_schema([("s", "utf8")]), 4, 128) as ring:
        writer, view = Interrupted(ring), ring.consumer()
        writer.write_record_batch([("x" * 64,), ("y" * 64,)])
        for _ in range(3):
            with pytest.raises(KeyboardInterrupt):
                writer.write(("z",))
        view.acknowledge_read(2)
        writer.write(("after",))
        assert view.tuples(2, 3) == [("after",)]


# ---- code that values bring -----------------------------------------------------------------------


class Number:
    """An integer that does something when it is looked at."""

    def __init__(self, act: Any) -> None:
        self.act = act

    def __index__(self) -> int:
        self.act()
        return 7


def test_an_error_raised_by_a_value_is_not_mistaken_for_a_misfit(pair: Pair) -> None:
    class OwnError(Exception):
        pass

    def fail() -> Any:
        raise OwnError

    writer, view = pair
    records: list[Any] = [(Number(fail), None, []), (1, None, [Number(fail)])]
    records += [(1, None, (fail() for _ in "x")), {"id": Number(fail), "xs": []}]
    for record in records:
        with pytest.raises(OwnError):
            writer.write(record)
    assert view.committed_count == 0


def test_a_value_may_write_a_record_of_its_own_first(pair: Pair) -> None:
    writer, view = pair
    inner = Number(lambda: writer.write((2, "inner", [2.0])))
    writer.write((inner, "outer", [1.0]))
    assert notes(view) == ["inner", "outer"]
    view.acknowledge_read(2)
    writer.write_record_batch([(1, "before", []), (inner, "outer", [])])
    assert notes(view) == ["before", "inner", "outer"]


@pytest.mark.parametrize("end", ["finalize", "close"])
def test_a_value_that_ends_the_stream_is_not_written(pair: Pair, end: str) -> None:
    writer, view = pair
    with pytest.raises(Closed):
        writer.write((Number(getattr(writer, end)), "after the end", []))
    assert view.committed_count == 0
    assert view.status == ("eos" if end == "finalize" else "error")


def test_an_iterable_that_closes_the_ring_ends_the_batch(pair: Pair) -> None:
    def records() -> Iterator[tuple[Any, ...]]:
        yield 1, "one", []
        writer.close()
        yield 2, "two", []

    writer, _ = pair
    with pytest.raises(Closed):
        writer.write_record_batch(records())


def test_a_list_that_changes_while_it_is_written_is_written_as_it_was(pair: Pair) -> None:
    writer, view = pair
    record: list[Any] = [None, "note", [1.0]]
    batch: list[Any] = [record, (2, "lost", [])]

    def clear() -> None:
        record.clear()
        batch.clear()

    record[0] = Number(clear)
    assert writer.write_record_batch(batch) == 1
    assert notes(view) == ["note"]


# ---- any schema -----------------------------------------------------------------------------------

f32 = st.floats(width=32, allow_nan=False)
json_values = st.recursive(
    st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=5,
)
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "i32": st.integers(-(2**31), 2**31 - 1),
    "u32": st.integers(0, 2**32 - 1),
    "i64": st.integers(-(2**63), 2**63 - 1),
    "f32": f32,
    "f64": st.floats(allow_nan=False),
    "u16": st.integers(0, 2**16 - 1),
    "u8": st.integers(0, 255),
    "bool8": st.booleans(),
    "utf8": st.text(max_size=20),
    "utf8_ref": st.sampled_from(["red", "green"]),
    "json": json_values,
    "bytes": st.binary(max_size=40),
    "i32_array": st.lists(st.integers(-(2**31), 2**31 - 1), max_size=8),
    "f32_array": st.lists(f32, max_size=8),
}
schemas = st.lists(
    st.tuples(st.sampled_from(sorted(FIELD_TYPES)), st.booleans()), min_size=1, max_size=18
)


def plain(value: Any) -> Any:
    if isinstance(value, memoryview):
        return value.tobytes() if value.format == "B" else value.tolist()
    return value.tolist() if hasattr(value, "tolist") else value


class Pumped(strand.StrandWriter):
    """A writer that, when there is no room, lets the consumer read on as far as it needs."""

    view: strand.StrandView
    received: list[Any]

    def _wait_for_room(self, threshold: int) -> None:
        self.drain(threshold)

    def drain(self, stop: int) -> None:
        start = self.view.window_start
        cursor = self.view.allocate_cursor()
        for seq, row in enumerate(self.view.tuples(start, stop), start):
            assert cursor.seek(seq)
            assert list(map(plain, cursor.to_tuple())) == list(map(plain, row))
            self.received.append(tuple(map(plain, row)))
        self.view.acknowledge_read(stop)


@pytest.mark.slow
@given(st.data(), schemas, st.sampled_from([5, 6]), st.integers(0, 3), st.integers(7, 10))
def test_any_record_round_trips(
    data: st.DataObject, types: Any, version: Any, records: int, heap: int
) -> None:
    fields = [strand.StrandField(f"f{at}", *facts) for at, facts in enumerate(types)]
    columns = [VALUES[name] | st.none() if null else VALUES[name] for name, null in types]
    rows = data.draw(st.lists(st.tuples(*columns), max_size=12))
    with strand.open_ring(
        strand.build_schema(fields),
        1 << records,
        1 << heap,
        version=version,
        metadata={"intern": ["red", "green"]},
    ) as ring:
        writer = Pumped(ring)
        writer.view, writer.received = ring.consumer(), []
        written = []
        for row in rows:
            with suppress(strand.PayloadTooLarge):
                writer.write_record_batch([row, row])
                written += [row, row]
        writer.drain(writer.committed_count)
        assert writer.received == written
