from __future__ import annotations

import base64
import json
from decimal import Decimal
from typing import Any, NoReturn

import pyarrow as pa
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from emsqrt._kernel import JsonlFormatter, JsonlParser, RecordFault, copy_lines
from emsqrt.io.cells import text_cells
from emsqrt.io.formats import JsonlWriter
from emsqrt.io.testing import arrow_of, batches, by_arrow, columns_of, pieces, text_of, to_list
from sennit_core.schema import DataType

ROOM = 1 << 16


def parse(data: bytes, columns: dict[str, str], room: int = ROOM, **options: Any) -> list[Any]:
    return [to_list(column) for column in arrays_of(data, columns, room, **options)]


def arrays_of(data: bytes, columns: dict[str, str], room: int = ROOM, **options: Any) -> list[Any]:
    parser = JsonlParser(bytearray(room), list(columns.items()), **options)
    parts: list[list[pa.Array]] = [[] for _ in columns]
    start = 0
    while start < len(data):
        view, start = parser.parse(data, start)
        for index, kind in enumerate(columns.values()):
            parts[index].append(arrow_of(view, index, kind))
            parts[index][-1].validate(full=True)
    types = [DataType.parse(kind).to_arrow() for kind in columns.values()]
    return [pa.chunked_array(part, kind) for part, kind in zip(parts, types, strict=True)]


def fault_of(data: bytes, columns: dict[str, str], **options: Any) -> str | None:
    """What is wrong with the data, in a word; None when nothing is."""
    try:
        parse(data, columns, **options)
    except RecordFault as fault:
        return fault.reason
    return None


def value(text: str, kind: str) -> Any:
    """The value of one JSON text, or the word for what is wrong with it."""
    line = b'{"v": ' + text.encode() + b"}\n"
    return fault_of(line, {"v": kind}) or parse(line, {"v": kind})[0][0]


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=4)
    ),
    max_leaves=12,
)
OBJECTS = st.dictionaries(
    st.sampled_from(["a", "b", "é", '"', "a\n", ""]) | st.text(), JSON, max_size=5
)


def plain_text(value: Any) -> Any:
    return value if value is None or isinstance(value, str) else json.dumps(value)


@pytest.mark.nightly
@given(OBJECTS, st.booleans(), st.sampled_from([None, 1, "\t"]))
def test_members_are_found_in_any_surroundings(
    document: dict[str, Any], ascii_only: bool, indent: Any
) -> None:
    text = json.dumps(document, ensure_ascii=ascii_only, indent=indent).replace("\n", "\r")
    wanted = {name: member for name, member in document.items() if isinstance(member, str)}
    columns = dict.fromkeys([*wanted, "absent"], "Utf8")
    if any("\ud800" <= letter <= "\udfff" for name in document for letter in name + str(wanted)):
        return
    found = parse(text.encode() + b"\n\n", columns)
    assert found == [[member] for member in wanted.values()] + [[None]]


def no_constant(name: str) -> NoReturn:
    raise ValueError(name)


def is_object(line: bytes) -> bool:
    try:
        return isinstance(json.loads(line.decode(), parse_constant=no_constant), dict)
    except (ValueError, RecursionError):
        return False


PARTS = ["{", "}", "[", "]", '"a"', '"a":', ",", ":", "1", "-", "0", ".5", "e3", "E+1", '"', "\\"]
PARTS += ["true", "false", "null", "nul", "NaN", " ", "\t", "\r", '"\\u00e9"', '"\\ud83d\\ude00"']
PARTS += ['"\\x"', '"\x01"', "é", '{"a":1}', '"b":[{}, [], {"c":[1,2]}]', '"a":{"a":null}', "\x7f"]


@given(st.lists(st.sampled_from(PARTS), max_size=9).map("".join))
@example('{"a":01}')
@example('{"a":1.}')
@example('{"a":"\\u12g4"}')
@example('{"a":1}{')
@example('{"a":[1,]}')
@example('{"a":[{"b":1]}}')
@example("{,}")
@example('{"a":1,}')
def test_a_line_is_an_object_just_when_python_says_so(text: str) -> None:
    for line in (text, "{" + text + "}", '{"a":' + text + "}"):
        if line.strip(" \t\r\n"):
            found = fault_of(line.encode(), {"a": "Binary"}, on_error="null")
            assert found == (None if is_object(line.encode()) else "syntax"), line


@given(st.binary(max_size=30))
def test_any_bytes_in_a_string_are_text_or_a_fault(octets: bytes) -> None:
    line = b'{"a":"' + octets.replace(b"\n", b" ") + b'"}'
    try:
        text = line.decode()
    except UnicodeDecodeError:
        assert fault_of(line, {"a": "Utf8"}) == "encoding"
        return
    if not is_object(line):
        assert fault_of(line, {"a": "Utf8"}) == "syntax"
    else:
        member = json.loads(text).get("a")
        assert parse(line, {"a": "Utf8"})[0] == [plain_text(member)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (r'"a\"\\\/\b\f\n\r\t"', 'a"\\/\b\f\n\r\t'),
        (r'"\u00e9\u20ac\ud83d\ude00"', "é€😀"),
        (r'"\ud83d"', "encoding"),
        (r'"\ude00\ud83d"', "encoding"),
        (r'"\ud83dx"', "encoding"),
        ("1.50", "1.50"),
        ("true", "true"),
        ('{ "b" : [ 1 , "x y\\n" ] }', '{"b":[1,"x y\\n"]}'),
        ("null", None),
    ],
)
def test_text_is_decoded_and_other_values_keep_their_json(text: str, expected: Any) -> None:
    assert value(text, "Utf8") == expected


@pytest.mark.parametrize(
    ("text", "kind", "expected"),
    [
        ("1", "Int64", 1),
        ("-9223372036854775808", "Int64", -(2**63)),
        ("9223372036854775808", "Int64", "value"),
        ("18446744073709551615", "UInt64", 2**64 - 1),
        ('"9007199254740993"', "Int64", 2**53 + 1),
        ('" 1"', "Int64", "value"),
        ('"\\u0031"', "Int64", 1),
        ("1.0", "Int64", "value"),
        ("1e3", "Int64", "value"),
        ("1e3", "Float64", 1000.0),
        ("1", "Float64", 1.0),
        ('"Infinity"', "Float64", float("inf")),
        ('"-Infinity"', "Float32", float("-inf")),
        ("0.1", "Decimal(5,2)", Decimal("0.10")),
        ('"1.50"', "Decimal(5,2)", Decimal("1.50")),
        ("1e1", "Decimal(5,2)", Decimal("10.00")),
        ("0.125", "Decimal(5,2)", "value"),
        ("true", "Bool", True),
        ("false", "Bool", False),
        ('"true"', "Bool", "value"),
        ("1", "Bool", "value"),
        ("true", "Int64", "value"),
        ("[1]", "Int64", "value"),
        ('{"a":1}', "Float64", "value"),
        ('""', "Int64", "value"),
        ('"eA=="', "Binary", b"x"),
        ('"eHk="', "Binary", b"xy"),
        ('""', "Binary", b""),
        ('"eA="', "Binary", "value"),
        ('"e==="', "Binary", "value"),
        ('"e!=="', "Binary", "value"),
        ("5", "Binary", "value"),
        ("20130105", "Date", "value"),
    ],
)
def test_values_are_read_by_their_type(text: str, kind: str, expected: Any) -> None:
    assert value(text, kind) == expected


@given(st.binary(max_size=20))
def test_base64_is_read_back(octets: bytes) -> None:
    assert value(f'"{base64.b64encode(octets).decode()}"', "Binary") == octets


def test_of_members_with_one_name_the_last_counts() -> None:
    assert parse(b'{"a":1,"b":2,"a":3}\n{"b":1}', {"a": "Int64"}) == [[3, None]]


def test_blank_lines_are_no_rows_and_records_are_kept() -> None:
    parser = JsonlParser(bytearray(ROOM), [("a", "Int64")])
    data = b' {"a":1} \r\n\n \t\r\n{"a":2}'
    columns, after = parser.parse(data)
    assert after == len(data)
    assert copy_lines(columns) == [b' {"a":1} ', b'{"a":2}']


def test_nesting_has_a_limit() -> None:
    def nested(depth: int) -> bytes:
        return b'{"a":' + b"[" * depth + b"]" * depth + b"}"

    assert fault_of(nested(512), {"b": "Int64"}) is None
    assert fault_of(nested(514), {"b": "Int64"}) == "syntax"


BROKEN = b'{"a":1}\n{"a":x}\n{"a":"y"}\n[1]\n{"a":4}\n'


def test_faults_are_described_skipped_or_made_null() -> None:
    with pytest.raises(RecordFault) as raised:
        parse(BROKEN, {"b": "Utf8", "a": "Int64"})
    found = raised.value
    assert (found.offset, found.size, found.row, found.reason) == (8, 7, 1, "syntax")
    parser = JsonlParser(bytearray(ROOM), [("b", "Utf8"), ("a", "Int64")], on_error="skip")
    columns, _ = parser.parse(BROKEN)
    assert to_list(arrow_of(columns, 1, "Int64")) == [1, 4]
    assert parser.skipped_records == [
        (8, 7, 0, "syntax"),
        (16, 9, 1, "value"),
        (26, 3, 0, "syntax"),
    ]
    assert (parser.records, parser.skipped) == (5, 3)
    sound = BROKEN.replace(b"[1]\n", b"").replace(b'{"a":x}\n', b"")
    assert parse(sound, {"a": "Int64"}, on_error="null") == [[1, None, 4]]
    with pytest.raises(RecordFault, match="value") as raised:
        parse(sound, {"a": "Int64"})
    assert (raised.value.field, raised.value.text) == (0, '"y"')


def test_little_memory_makes_many_batches_of_the_same_rows() -> None:
    data = b"".join(b'{"t":"%s","n":%d}\n' % (b"x" * (n % 50), n) for n in range(400))
    columns = {"n": "Int64", "t": "Utf8"}
    assert parse(data, columns, room=400) == parse(data, columns)
    with pytest.raises(RecordFault, match="room"):
        parse(b'{"t":"' + b"x" * 900 + b'"}', columns, room=400)


@pytest.mark.slow
@given(batches(), st.text(max_size=5))
def test_columns_are_written_as_the_arrow_tier_writes_them_and_read_back(
    drawn: tuple[list[str], pa.RecordBatch], name: str
) -> None:
    kinds, batch = drawn
    batch = batch.rename_columns([name + str(index) for index in range(len(kinds))])
    members = dict(zip(batch.schema.names, kinds, strict=True))
    writer, columns = JsonlFormatter(list(members.items())), columns_of(batch)
    written = b"".join(
        pieces(lambda start, out: writer.format(columns, start, out), batch.num_rows, 2000)
    )
    assert written == text_of(by_arrow(JsonlWriter), batch)
    for found, column in zip(arrays_of(written, members), batch.columns, strict=True):
        assert to_list(text_cells(found.combine_chunks())) == to_list(text_cells(column))


@pytest.mark.parametrize(
    "columns", [[("a", "Struct(b: Int64)")], [("a" * 1001, "Int64")], [("a",)], [(1, "Int64")], 5]
)
def test_columns_that_cannot_be_read_are_refused(columns: Any) -> None:
    with pytest.raises((ValueError, TypeError)):
        JsonlParser(bytearray(100), columns)
    with pytest.raises((ValueError, TypeError)):
        JsonlFormatter(columns)
