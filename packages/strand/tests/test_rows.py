"""Values in and out of slots: every type, what is accepted for it, and what is refused how."""

import math
import re
import struct
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import strand
from sennit_core.errors import Corrupt, UsageError
from strand import _native
from strand.failures import Failure
from strand.fields import FIELD_TYPES

Pair = tuple[strand.StrandWriter, strand.StrandView]

SOURCES = Path(strand.__file__).parent


def round_trip(type_name: str, value: Any, version: Any = 6, **options: Any) -> Any:
    """Write one value as a field of `type_name` and return what `tuples` returns."""
    schema = strand.build_schema([("x", type_name)])
    with (
        strand.open_ring(schema, 2, "256KiB", version=version, **options) as ring,
        ring.producer() as writer,
        ring.consumer() as view,
    ):
        writer.write((value,))
        return view.tuples(0, 1)[0][0]


def refusal(type_name: str, value: Any, error: type[Exception] = UsageError) -> str:
    with pytest.raises(error) as refused:
        round_trip(type_name, value)
    return str(refused.value)


BOUNDS = {
    "i32": (-(2**31), 2**31 - 1),
    "u32": (0, 2**32 - 1),
    "i64": (-(2**63), 2**63 - 1),
    "u16": (0, 2**16 - 1),
    "u8": (0, 255),
    "utf8_ref": (0, 2**32 - 1),
}


@pytest.mark.parametrize("name", BOUNDS)
def test_an_integer_field_holds_its_bounds_and_nothing_beyond(name: str) -> None:
    low, high = BOUNDS[name]
    assert (round_trip(name, low), round_trip(name, high)) == (low, high)
    for beyond in (low - 1, high + 1):
        text = refusal(name, beyond)
        assert text == f"field 'x' is {name}, and {beyond} is not from {low} to {high}"
    for far in (10**30, -(10**30), 10**5000):
        assert f"is not from {low} to {high}" in refusal(name, far)


class Seven:
    def __index__(self) -> int:
        return 7


class Half:
    def __float__(self) -> float:
        return 0.5


@pytest.mark.parametrize("name", BOUNDS)
@pytest.mark.parametrize("value", [True, np.uint8(7), np.int64(7), Seven()])
def test_an_integer_field_accepts_objects_with_an_index(name: str, value: Any) -> None:
    assert round_trip(name, value) == (1 if value is True else 7)


@pytest.mark.parametrize("name", sorted(set(BOUNDS) - {"utf8_ref"}))
@pytest.mark.parametrize("value", ["1", 1.0, b"1", [1], np.float64(1)])
def test_an_integer_field_accepts_no_other_numbers_and_no_text(name: str, value: Any) -> None:
    assert refusal(name, value).startswith(f"field 'x' is {name}, and ")


@pytest.mark.parametrize("name", ["f32", "f64"])
@pytest.mark.parametrize(
    "value", [0, -3, True, 0.25, -math.inf, np.float32(0.25), np.int8(-3), Half(), Seven()]
)
def test_a_float_field_accepts_any_number(name: str, value: Any) -> None:
    assert round_trip(name, value) == float(value)


@pytest.mark.parametrize("name", ["f32", "f64"])
def test_a_float_field_keeps_nan_and_accepts_no_text(name: str) -> None:
    assert math.isnan(round_trip(name, math.nan))
    for wrong in ("1.5", b"1", [1.0], 1j, 10**400):
        assert refusal(name, wrong).startswith(f"field 'x' is {name}, and ")


def test_a_number_too_large_for_f32_is_refused_and_not_made_infinite() -> None:
    largest = float(np.finfo(np.float32).max)
    assert round_trip("f32", largest) == largest
    for number in (1e39, -1e39):
        assert f"{number!r} is not within" in refusal("f32", number)
    assert "1e+39 is not within" in refusal("f32_array", [0.0, 1e39])


@pytest.mark.parametrize(("value", "truth"), [(True, True), (0, False), ("no", True), ([], False)])
def test_a_bool_field_accepts_the_truth_of_anything(value: Any, truth: bool) -> None:
    assert round_trip("bool8", value) is truth


@pytest.mark.parametrize("version", [5, 6])
@pytest.mark.parametrize("text", ["", "ascii", "grün", "\0", "😀" * 100, "x" * 65535])
def test_text_round_trips(text: str, version: Any) -> None:
    assert round_trip("utf8", text, version) == text


def test_text_that_is_no_text_is_refused() -> None:
    assert "surrogates not allowed" in refusal("utf8", "\ud800")
    assert "surrogates not allowed" in refusal("json", "\ud800")
    assert refusal("utf8", b"bytes") == "field 'x' is utf8, and bytes is not a str"


@pytest.mark.parametrize(
    "value", [0, "", [], {"a": [1.5, None, "ß"]}, "\u2028", 2**100, {"1": {"2": {"3": []}}}]
)
def test_json_round_trips(value: Any) -> None:
    assert round_trip("json", value) == value


def test_json_is_written_without_spaces_and_escapes() -> None:
    with (
        strand.open_ring(strand.build_schema([("x", "json")]), 2, 128) as ring,
        ring.producer() as writer,
    ):
        writer.write(({"ü": [1, 2]},))
        start = writer.map.heap_start
        assert bytes(writer.memory[start : start + 12]) == '{"ü":[1,2]}'.encode()


def test_json_accepts_nan_as_python_does_and_refuses_what_python_refuses() -> None:
    assert math.isnan(round_trip("json", [math.nan])[0])
    circular: list[Any] = []
    circular.append(circular)
    assert "not JSON serializable" in refusal("json", {1, 2})
    assert "Circular reference" in refusal("json", circular)


def test_bytes_accept_any_buffer_in_c_order() -> None:
    grid = np.arange(6, dtype="u1").reshape(2, 3)
    buffers = [b"abc", bytearray(b"abc"), memoryview(b"aXbXc")[::2], array("B", b"abc")]
    assert [round_trip("bytes", buffer) for buffer in buffers] == [b"abc"] * 4
    assert round_trip("bytes", grid) == bytes(range(6))
    assert round_trip("bytes", grid.T) == bytes([0, 3, 1, 4, 2, 5])
    assert round_trip("bytes", array("d", [1.5])) == struct.pack("<d", 1.5)
    assert refusal("bytes", "text").startswith("field 'x' is bytes, and ")


@pytest.mark.parametrize(("name", "code"), [("i32_array", "i"), ("f32_array", "f")])
def test_arrays_accept_buffers_of_their_type_and_any_numbers(name: str, code: str) -> None:
    numpy = np.arange(5, dtype=code)
    values: list[Any] = [numpy[1::2], array(code, [1, 3]), memoryview(array(code, [1, 3]))]
    values += [[1, 3], (1, 3), range(1, 4, 2), iter([1, 3]), [True, np.int64(3)], {1: 0, 3: 0}]
    for value in values:
        copy = round_trip(name, value)
        assert (copy, copy.typecode) == (array(code, [1, 3]), code)
    assert round_trip(name, []) == array(code)


@pytest.mark.parametrize(
    ("name", "value", "why"),
    [
        ("f32_array", array("d", [1.0]), "the buffer holds 'd' in 1 dimensions, not 'f' in one"),
        ("i32_array", b"abcd", "the buffer holds 'B'"),
        ("i32_array", np.zeros((2, 2), "i4"), "in 2 dimensions"),
        ("f32_array", "12", "str is not a sequence of numbers"),
        ("f32_array", ["1"], "must be real number, not str"),
        ("i32_array", [1.5], "'float' object cannot be interpreted as an integer"),
        ("i32_array", [2**31], "2147483648 is not from -2147483648 to 2147483647"),
        ("i32_array", 5, "'int' object is not iterable"),
    ],
)
def test_arrays_refuse_other_elements(name: str, value: Any, why: str) -> None:
    assert why in refusal(name, value)


def test_references_go_through_the_intern_table() -> None:
    options = {"metadata": {"intern": ["green", "red"]}}
    assert [round_trip("utf8_ref", v, **options) for v in ("red", 0)] == ["red", "green"]
    assert round_trip("utf8_ref", 7) == 7  # without a table, handles are numbers
    assert refusal("utf8_ref", "blue") == "field 'x': 'blue' is not in the intern table"
    with pytest.raises(UsageError, match="'handle 7' is not in the intern table"):
        round_trip("utf8_ref", 7, **options)


def test_a_consumer_may_bring_categories_of_its_own() -> None:
    with (
        strand.open_ring(
            strand.build_schema([("x", "utf8_ref")]), 2, 128, metadata={"intern": ["a", "b"]}
        ) as ring,
        ring.producer() as writer,
        ring.consumer(categories=["A", "B"]) as view,
    ):
        writer.write(("b",))
        assert view.tuples(0, 1) == [("B",)]
        with pytest.raises(UsageError):
            ring.consumer(categories="AB")


@pytest.mark.parametrize("table", [b'"re..."', b"7654321", b'["r",1]'])
def test_an_intern_table_that_is_none_is_refused_on_attaching(table: bytes) -> None:
    schema = strand.build_schema([("x", "utf8_ref")])
    with strand.open_ring(schema, 2, 128, metadata={"intern": ["red"]}) as ring:
        at = bytes(ring.memory[:4096]).index(b'["red"]')
        ring.memory[at : at + 7] = table
        with (
            strand.attach_ring(ring.fileno()) as other,
            pytest.raises(strand.StrandHeaderError, match="intern"),
        ):
            other.consumer()


@pytest.mark.parametrize("name", FIELD_TYPES)
def test_a_null_where_none_may_be_is_refused(name: str) -> None:
    assert refusal(name, None) == "field 'x' cannot be null"


# ---- hostile bytes ------------------------------------------------------------------------------


@pytest.fixture
def raw() -> Iterator[Pair]:
    types = {"s": "utf8", "j": "json", "b": "bytes", "xs": "i32_array"}
    schema = strand.build_schema(
        [strand.StrandField(name, type_name, nullable=True) for name, type_name in types.items()]
    )
    with (
        strand.open_ring(schema, 4, 128 * 1024) as ring,
        ring.producer() as writer,
        ring.consumer() as view,
    ):
        yield writer, view


def commit_pointer(writer: strand.StrandWriter, field: str, offset: int, size: int) -> None:
    """Publish a record whose one field that is not null is this pointer."""
    slot, seq = writer.claim_slot()
    position = writer.map.schema.position(field)
    writer.memory[slot] = 1 << position
    struct.pack_into("<QI", writer.memory, slot + writer.map.slots.offsets[position], offset, size)
    writer.commit_slot(seq)


@pytest.mark.parametrize("field", ["s", "j", "b", "xs"])
@pytest.mark.parametrize(
    ("offset", "size"),
    [(0, 2**17 + 4), (2**17 - 4, 8), (2**64 - 1, 4), (0, 2**32 - 4), (2**63, 2**31)],
)
def test_a_payload_outside_the_heap_is_corrupt(
    raw: Pair, field: str, offset: int, size: int
) -> None:
    writer, view = raw
    commit_pointer(writer, field, offset, size)
    cursor = view.allocate_cursor()
    assert cursor.seek(0)
    for read in (lambda: cursor[field], lambda: view.tuples(0, 1), cursor.to_tuple):
        with pytest.raises(Corrupt, match=f"field '{field}'"):
            read()


@pytest.mark.parametrize(
    ("field", "data"),
    [
        ("s", b"\xff"),
        ("s", b"\xed\xa0\x80"),
        ("j", b"\xff"),
        ("j", b"{"),
        ("j", b""),
        ("j", b"[" * 100_000),
        ("j", b"9" * 5000),
        ("xs", b"1234567"),
    ],
)
def test_bytes_that_do_not_decode_are_corrupt(raw: Pair, field: str, data: bytes) -> None:
    writer, view = raw
    start = writer.map.heap_start
    writer.memory[start : start + len(data)] = data
    commit_pointer(writer, field, 0, len(data))
    cursor = view.allocate_cursor()
    assert cursor.seek(0)
    for read in (lambda: cursor[field], lambda: view.tuples(0, 1)):
        with pytest.raises(Corrupt, match=f"field '{field}'"):
            read()


# ---- agreement between the languages --------------------------------------------------------------


def test_every_failure_has_its_error_code_in_c() -> None:
    text = "".join((SOURCES / name).read_text() for name in ("_native.h", "_ring.h"))
    results = dict(re.findall(r"\bSTRAND_(\w+) = (\d+),", text))
    numbers = {
        name: int(results.get(value.removeprefix("STRAND_"), value))
        if value.startswith("STRAND_")
        else int(value)
        for name, value in re.findall(r"\bFAIL_(\w+) = (\w+),", text)
    }
    assert {failure.name: failure.value for failure in Failure} == numbers


@pytest.mark.parametrize(
    "field",
    [
        ("x", 0, 5, 4, False, 1, -1),  # leaves the slot
        ("x", 0, 0, 8, False, 1, -1),  # not the width of an i32
        ("x", 255, 0, 4, False, 1, -1),  # no such type
        ("x", 8, 0, 6, True, 1, -1),  # a v5 pointer
        ("x", 0, 0, 4, True, 1, -1),  # an i32 in the heap
        ("x", 11, 0, 16, True, 3, -1),  # no power of two
        ("x", 0, 0, 4, False, 1, 64),  # its null bit leaves the slot
    ],
)
def test_a_layout_whose_fields_leave_the_slot_is_refused(field: Any) -> None:
    with pytest.raises(ValueError, match=r"does not fit|no type"):
        _native.Layout(6, 8 if field[3] < 16 else 16, (field,), ())
