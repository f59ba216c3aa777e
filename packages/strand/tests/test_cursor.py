"""The cursor: seeking, typed getters, what is decoded once, and when it refuses."""

import os
import tracemalloc
from collections.abc import Iterator
from typing import Any

import pytest

import strand
from sennit_core.errors import Closed, UnknownColumn, UsageError
from strand.fields import FIELD_TYPES

Pair = tuple[strand.StrandWriter, strand.StrandView]

SCHEMA = strand.build_schema([(name, name) for name in FIELD_TYPES])
RECORD: dict[str, Any] = {
    "i32": -5,
    "u32": 2**32 - 1,
    "i64": -(2**63),
    "f32": 0.5,
    "f64": 1e300,
    "u16": 65535,
    "u8": 255,
    "bool8": True,
    "utf8": "grün",
    "utf8_ref": "red",
    "json": {"a": [1, None, "ß"]},
    "bytes": b"\0\1",
    "i32_array": [1, -1],
    "f32_array": [1.5, -0.0],
}
GETTERS = {
    name: "get_" + {"bool8": "bool", "utf8": "string", "utf8_ref": "ref"}.get(name, name)
    for name in FIELD_TYPES
}


def plain(value: Any) -> Any:
    return value.tolist() if isinstance(value, memoryview) and value.format != "B" else value


@pytest.fixture(params=[5, 6])
def pair(request: pytest.FixtureRequest) -> Iterator[Pair]:
    with (
        strand.open_ring(
            SCHEMA, 8, 4096, version=request.param, metadata={"intern": ["green", "red"]}
        ) as ring,
        ring.producer() as writer,
        ring.consumer() as view,
    ):
        yield writer, view


@pytest.fixture
def cursor(pair: Pair) -> strand.RecordCursor:
    writer, view = pair
    writer.write(RECORD)
    cursor = view.allocate_cursor()
    assert cursor.seek(0)
    return cursor


@pytest.mark.parametrize("name", FIELD_TYPES)
def test_each_type_has_its_getter(cursor: strand.RecordCursor, name: str) -> None:
    assert plain(getattr(cursor, GETTERS[name])(name)) == RECORD[name]
    assert plain(cursor.get(name)) == RECORD[name]
    assert plain(cursor[name]) == RECORD[name]


@pytest.mark.parametrize("name", FIELD_TYPES)
def test_the_getter_of_another_type_names_the_right_one(
    cursor: strand.RecordCursor, name: str
) -> None:
    for wrong in set(FIELD_TYPES) - {name}:
        with pytest.raises(UsageError) as refused:
            getattr(cursor, GETTERS[wrong])(name)
        assert str(refused.value) == (
            f"field {name!r} is {name}: read it with {GETTERS[name]}, not {GETTERS[wrong]}"
        )


def test_all_fields_come_as_a_tuple_or_a_dict(cursor: strand.RecordCursor) -> None:
    assert tuple(map(plain, cursor.to_tuple())) == tuple(RECORD.values())
    assert {name: plain(value) for name, value in cursor.to_dict().items()} == RECORD


def test_a_null_is_none_for_every_getter() -> None:
    fields = [{"name": name, "type": name, "nullable": True} for name in FIELD_TYPES]
    with (
        strand.open_ring(strand.build_schema(fields), 2, 128) as ring,
        ring.producer() as writer,
        ring.consumer() as view,
    ):
        writer.write({})
        cursor = view.allocate_cursor()
        assert cursor.seek(0)
        assert [getattr(cursor, GETTERS[name])(name) for name in FIELD_TYPES] == [None] * len(
            FIELD_TYPES
        )
        assert cursor.to_tuple() == (None,) * len(FIELD_TYPES)


def test_strings_and_json_are_decoded_once_for_each_record(
    pair: Pair, cursor: strand.RecordCursor
) -> None:
    pair[0].write({**RECORD, "utf8": "other", "json": []})
    text, value = cursor.get_string("utf8"), cursor.get_json("json")
    assert cursor.get("utf8") is text
    assert cursor["json"] is value
    assert cursor.seek(1)
    assert (cursor.get_string("utf8"), cursor.get_json("json")) == ("other", [])
    assert cursor.seek(0)
    assert (cursor.get_string("utf8"), cursor.get_json("json")) == (text, value)


def test_a_slot_with_a_later_record_is_decoded_again() -> None:
    with (
        strand.open_ring(strand.build_schema([("s", "utf8")]), 1, 128) as ring,
        ring.producer() as writer,
        ring.consumer() as view,
    ):
        cursor = view.allocate_cursor()
        for seq in range(5):
            writer.write((f"text {seq}",))
            assert cursor.seek(seq)
            assert cursor.get_string("s") == f"text {seq}"
            view.acknowledge_read(seq + 1)


@pytest.mark.parametrize(
    ("name", "code", "size"), [("bytes", "B", 2), ("i32_array", "i", 8), ("f32_array", "f", 8)]
)
def test_bytes_and_arrays_are_read_only_views_of_the_ring(
    pair: Pair, cursor: strand.RecordCursor, name: str, code: str, size: int
) -> None:
    view = getattr(cursor, GETTERS[name])(name)
    assert (view.format, view.nbytes, view.readonly) == (code, size, True)
    writer = pair[0]
    with writer.memory[writer.map.heap_start :] as heap:
        heap[:] = bytes([7]) * len(heap)
    assert view.tobytes() == bytes([7]) * size


def test_a_view_outlives_cursor_and_ring(pair: Pair, cursor: strand.RecordCursor) -> None:
    kept = cursor.get_i32_array("i32_array")
    assert kept is not None
    pair[1].close()
    pair[0].close()
    assert kept.tolist() == [1, -1]


def test_nothing_is_read_before_the_first_seek(pair: Pair) -> None:
    cursor = pair[1].allocate_cursor()
    assert cursor.seq == -1
    for read in (cursor.to_tuple, cursor.to_dict, lambda: cursor.get("u8")):
        with pytest.raises(UsageError, match="seek a record before reading it"):
            read()


@pytest.mark.parametrize("seq", [-1, 1, 2**31, 2**63 - 1, 2**64, -(2**70)])
def test_a_seek_to_where_nothing_is_stays(cursor: strand.RecordCursor, seq: int) -> None:
    assert not cursor.seek(seq)
    assert cursor.seq == 0
    assert cursor.get_u8("u8") == 255


def test_a_seek_wants_an_integer(cursor: strand.RecordCursor) -> None:
    for wrong in ("0", 0.0, None):
        with pytest.raises(TypeError):
            cursor.seek(wrong)  # type: ignore[arg-type]


def test_a_released_record_is_not_read(pair: Pair, cursor: strand.RecordCursor) -> None:
    assert cursor.get_string("utf8") == "grün"
    pair[1].acknowledge_read(1)
    assert not cursor.seek(0)
    message = "record 0 was acknowledged and may be overwritten"
    for read in (cursor.to_tuple, cursor.to_dict, lambda: cursor.get_string("utf8")):
        with pytest.raises(UsageError, match=message):
            read()


def test_a_record_of_the_stream_before_a_reset_is_not_read() -> None:
    with (
        strand.open_ring(strand.build_schema([("s", "utf8")]), 4, 128) as ring,
        ring.producer() as writer,
        ring.consumer() as view,
    ):
        writer.write(("old",))
        cursor = view.allocate_cursor()
        assert cursor.seek(0)
        assert cursor.get("s") == "old"
        view.acknowledge_read(1)
        writer.finalize()
        writer.reset()
        writer.write(("new",))
        assert view.wait_for_commit(0) == 1
        with pytest.raises(UsageError, match="overwritten"):
            cursor.get("s")
        assert cursor.seek(0)
        assert cursor.get("s") == "new"


def test_after_the_view_is_closed_every_call_says_so(
    pair: Pair, cursor: strand.RecordCursor
) -> None:
    pair[1].close()
    for call in (
        lambda: cursor.seek(0),
        cursor.to_tuple,
        cursor.to_dict,
        lambda: cursor["u8"],
        *(lambda name=name: getattr(cursor, GETTERS[name])(name) for name in FIELD_TYPES),
        pair[1].allocate_cursor,
    ):
        with pytest.raises(Closed):
            call()
    assert cursor.seq == 0


def test_a_forked_child_cannot_read_with_its_parents_cursor(cursor: strand.RecordCursor) -> None:
    pid = os.fork()
    if pid == 0:
        try:
            for call in (lambda: cursor.seek(0), lambda: cursor["utf8"], cursor.to_tuple):
                with pytest.raises(strand.RoleInherited):
                    call()
        except BaseException:  # noqa: BLE001 - a child must not come back into pytest
            os._exit(1)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert cursor["utf8"] == "grün"


def test_names_are_found_however_they_were_made_and_however_many_there_are() -> None:
    schema = strand.build_schema([(f"field {at}", "u32") for at in range(40)])
    with (
        strand.open_ring(schema, 2, 128) as ring,
        ring.producer() as writer,
        ring.consumer() as view,
    ):
        writer.write(tuple(range(40)))
        cursor = view.allocate_cursor()
        assert cursor.seek(0)
        assert [cursor[" ".join(("field", str(at)))] for at in range(40)] == list(range(40))


@pytest.mark.parametrize("name", ["utf", "", 0, None])
def test_a_name_that_is_no_field_is_an_unknown_column(
    cursor: strand.RecordCursor, name: Any
) -> None:
    for read in (cursor.get, cursor.get_string, cursor.__getitem__):
        with pytest.raises(UnknownColumn):
            read(name)
    with pytest.raises(UnknownColumn) as refused:
        cursor.get("utf88")
    assert refused.value.suggestion == "utf8"


def test_a_new_intern_table_is_seen_by_cursors_at_once(
    pair: Pair, cursor: strand.RecordCursor
) -> None:
    view = pair[1]
    view.update_intern_table(["g", "r"])
    assert cursor.get_ref("utf8_ref") == "r"
    view.update_intern_table([])
    assert cursor.get("utf8_ref") == 1
    for wrong in ("gr", ["g", 2], 7):
        with pytest.raises(UsageError):
            view.update_intern_table(wrong)  # type: ignore[arg-type]
    assert cursor.get("utf8_ref") == 1


def test_a_cursor_wants_a_view() -> None:
    with pytest.raises(TypeError):
        strand.RecordCursor(object())  # type: ignore[arg-type]


@pytest.mark.slow
def test_seeking_and_reading_keep_no_memory() -> None:
    schema = strand.build_schema([("id", "u32"), ("label", "utf8")])
    with (
        strand.open_ring(schema, 1024, "64KiB") as ring,
        ring.producer() as writer,
        ring.consumer() as view,
    ):
        writer.write_record_batch([(at, f"label {at}") for at in range(1024)])
        cursor = view.allocate_cursor()
        tracemalloc.start()
        try:
            before = tracemalloc.get_traced_memory()[0]
            for at in range(100_000):
                cursor.seek(at & 1023)
                cursor.get_u32("id")
                cursor.get_string("label")
            grown = tracemalloc.get_traced_memory()[0] - before
        finally:
            tracemalloc.stop()
    assert grown < 50_000
