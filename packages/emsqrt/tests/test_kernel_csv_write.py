from __future__ import annotations

import struct
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from emsqrt._kernel import CsvFormatter, CsvParser, LineWriter
from emsqrt.io.formats import CsvWriter
from emsqrt.io.testing import (
    batches,
    by_arrow,
    columns_of,
    double,
    parse,
    pieces,
    single,
    text_of,
    to_list,
)


def formatted(kinds: list[str], batch: pa.RecordBatch, room: int = 1 << 12) -> bytes:
    writer, columns = CsvFormatter(kinds), columns_of(batch)
    return b"".join(
        pieces(lambda start, out: writer.format(columns, start, out), batch.num_rows, room)
    )


def arrow_writes(batch: pa.RecordBatch) -> bytes:
    return text_of(by_arrow(CsvWriter), batch).partition(b"\n")[2]


@pytest.mark.slow
@given(batches(), st.integers(0, 3))
def test_columns_are_written_byte_for_byte_as_the_arrow_tier_writes_them(
    drawn: tuple[list[str], pa.RecordBatch], start: int
) -> None:
    kinds, batch = drawn
    assert formatted(kinds, batch) == arrow_writes(batch)
    part = batch.slice(start)
    assert formatted(kinds, part, room=700) == arrow_writes(part)


TEXT = st.text(alphabet=st.sampled_from('a,"\r\n é;'), max_size=12)


def neighbours(bits: int) -> range:
    return range(max(0, bits - 1), bits + 2)


def test_powers_of_two_and_ten_and_their_neighbours_are_shortest() -> None:
    exponents = range(1, 2047, 7)
    powers = [double(near) for e in exponents for near in neighbours(e << 52)]
    tens = [near for e in range(-308, 309) for near in (10.0**e, 10.0**e * 1.5, 1.1 * 10.0**e)]
    small = [double(bits) for bits in (0, 1, 2, 9, 2**51, 2**52 - 1, 2**52, 2**63)]
    batch = pa.record_batch({"x": pa.array([*powers, *tens, *small], pa.float64())})
    assert formatted(["Float64"], batch) == arrow_writes(batch)


def test_quotients_of_short_numbers_are_as_short() -> None:
    numbers = (0, 1, 5, 10, 99, 100, 123456, 9999999999, 10**10, 99999999999999, 123456789012345)
    signed = [sign * n / 10**places for n in numbers for places in range(24) for sign in (1, -1)]
    batch = pa.record_batch({"x": pa.array([*signed, -0.0], pa.float64())})
    assert formatted(["Float64"], batch) == arrow_writes(batch)


def test_powers_of_two_are_shortest_as_single_floats() -> None:
    powers = [single(near) for e in range(1, 255) for near in neighbours(e << 23)]
    small = [single(bits) for bits in (0, 1, 2, 3, 99, 2**22, 2**23 - 1, 2**31)]
    batch = pa.record_batch({"x": pa.array([*powers, *small], pa.float32())})
    assert formatted(["Float32"], batch) == arrow_writes(batch)


@pytest.mark.nightly
@pytest.mark.timeout(1800)
def test_a_million_floats_are_written_as_the_arrow_tier_writes_them() -> None:
    state, values = 88172645463325252, []
    for _ in range(1_000_000):
        state ^= state << 13 & (2**64 - 1)
        state ^= state >> 7
        state ^= state << 17 & (2**64 - 1)
        values.append(double(state))
    batch = pa.record_batch({"x": pa.array(values, pa.float64())})
    assert formatted(["Float64"], batch, room=1 << 20) == arrow_writes(batch)
    narrow = pa.record_batch({"x": batch.column(0).cast(pa.float32(), safe=False)})
    assert formatted(["Float32"], narrow, room=1 << 20) == arrow_writes(narrow)


@given(st.lists(st.none() | TEXT, max_size=8), st.lists(st.booleans(), min_size=8, max_size=8))
def test_only_rows_that_are_kept_are_written(texts: list[str | None], keep: list[bool]) -> None:
    batch = pa.record_batch({"t": pa.array(texts, pa.string())})
    bits = pa.array(keep, pa.bool_()).buffers()[1]
    out = bytearray(4096)
    after, size = CsvFormatter(["Utf8"]).format(columns_of(batch), 0, out, bits)
    kept = batch.filter(pa.array(keep[: len(texts)], pa.bool_()))
    assert after == len(texts)
    assert bytes(out[:size]) == arrow_writes(kept)


def test_a_row_without_room_is_not_written() -> None:
    batch = pa.record_batch({"t": ["ab", 'c"d', "x" * 50]})
    writer, columns = CsvFormatter(["Utf8"]), columns_of(batch)
    assert [writer.format(columns, 1, bytearray(room))[1] for room in range(5, 9)] == [0, 0, 7, 7]
    assert writer.format(columns, 2, bytearray(50)) == (2, 0)
    assert writer.format(columns, 2, bytearray(51)) == (3, 51)


@pytest.mark.parametrize("types", [["Int32"], ["Int64", "Int64"], []])
def test_columns_of_other_types_are_refused(types: list[str]) -> None:
    batch = pa.record_batch({"n": pa.array([1], pa.int64())})
    with pytest.raises(ValueError, match="types"):
        CsvFormatter(types).format(columns_of(batch), 0, bytearray(99))


@pytest.mark.parametrize("arguments", [(2,), (-1,), (0, b"")])
def test_rows_outside_the_batch_are_refused(arguments: tuple[Any, ...]) -> None:
    columns = columns_of(pa.record_batch({"n": pa.array([1], pa.int64())}))
    with pytest.raises(ValueError, match=r"row"):
        CsvFormatter(["Int64"]).format(columns, arguments[0], bytearray(99), *arguments[1:])


def rewritten(data: bytes, count: int, fields: list[int] | None, **dialect: Any) -> bytes:
    parser = CsvParser(bytearray(1 << 16), field_count=count, columns=[], **dialect)
    writer = LineWriter(fields, record_fields=count, **dialect)
    columns, after = parser.parse(data)
    assert after == len(data)
    room = 2 * len(data) + 64
    return b"".join(
        pieces(lambda start, out: writer.write(columns, start, out), len(columns), room)
    )


def test_records_are_written_unchanged() -> None:
    assert rewritten(b'1,"a"\r\n\n2,"x\ny"', 2, None) == b'1,"a"\n2,"x\ny"\n'


def test_fields_are_written_in_another_order_and_dialect() -> None:
    data = b"'a;b';c,d;'it''s'\n;'';'x'y\n"
    assert rewritten(data, 3, [2, 1, 0], delimiter=";", quote="'") == (b'it\'s,"c,d",a;b\nxy,"",\n')


@given(st.lists(st.tuples(TEXT, TEXT, st.booleans()), min_size=1, max_size=8))
@example([("", "", True)])
def test_rewritten_fields_keep_their_meaning(rows: list[tuple[str, str, bool]]) -> None:
    def field(text: str, quote: bool) -> str:
        needed = quote or any(mark in text for mark in ';"\r\n') or not text
        return '"' + text.replace('"', '""') + '"' if needed else text

    data = "".join(f"{field(a, q)};{field(b, not q)}\n" for a, b, q in rows).encode()
    found = parse(rewritten(data, 2, [1, 0, 1], delimiter=";"), ["Utf8"] * 3)
    assert [to_list(column) for column in found] == [
        [b for _, b, _ in rows],
        [a for a, _, _ in rows],
        [b for _, b, _ in rows],
    ]


def test_another_delimiter_is_quoted_instead_of_the_comma() -> None:
    batch, out = pa.record_batch({"a": ["x,y", "x;y"], "b": ["p", "q"]}), bytearray(64)
    _, size = CsvFormatter(["Utf8", "Utf8"], delimiter=";").format(columns_of(batch), 0, out)
    assert bytes(out[:size]) == b'x,y;p\n"x;y";q\n'
    block = packed(b"", b'"x,y",x;y')
    writer = LineWriter([1, 0], record_fields=2, out_delimiter=";")
    _, size = writer.write_rows(block, 0, out)
    assert bytes(out[:size]) == b'"x;y";x,y\n'


@pytest.mark.slow
@given(TEXT, TEXT)
def test_rewritten_fields_equal_the_formatters_output(first: str, second: str) -> None:
    batch = pa.record_batch({"a": [first], "b": [second]})
    assert rewritten(arrow_writes(batch), 2, [0, 1]) == arrow_writes(batch)


def packed(key: bytes, payload: bytes) -> bytes:
    return struct.pack("<II", 8 + len(key) + len(payload), len(key)) + key + payload


def test_records_that_rows_carry_are_written() -> None:
    block = packed(b"k1", b'1,"a"') + packed(b"", b"2,b")
    out = bytearray(64)
    assert LineWriter().write_rows(block, 0, out) == (len(block), 10)
    assert bytes(out[:10]) == b'1,"a"\n2,b\n'
    assert LineWriter([1], record_fields=2).write_rows(block, 15, out) == (len(block), 2)
    assert bytes(out[:2]) == b"b\n"
    assert LineWriter().write_rows(block, 0, bytearray(7)) == (15, 6)
    assert LineWriter().write_rows(block, 15, bytearray(3)) == (15, 0)


@pytest.mark.parametrize(
    "block",
    [
        b"short",
        struct.pack("<II", 99, 0),
        struct.pack("<II", 7, 0),
        struct.pack("<II", 9, 2) + b"x",
    ],
)
def test_damaged_rows_are_refused(block: bytes) -> None:
    with pytest.raises(ValueError, match="no row starts at byte 0"):
        LineWriter().write_rows(block, 0, bytearray(64))


def test_a_field_that_no_record_has_is_refused() -> None:
    with pytest.raises(ValueError, match="no field 2 among 2"):
        LineWriter([2], record_fields=2)
