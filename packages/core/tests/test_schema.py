import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sennit_core.errors import UnknownColumn, Unsupported, UsageError
from sennit_core.schema import DataType, Field, Schema

TYPES_PAGE = Path(__file__).parents[3] / "docs" / "types.md"
PLAIN = (
    *("Bool", "Int8", "Int16", "Int32", "Int64", "UInt8", "UInt16", "UInt32", "UInt64"),
    *("Float32", "Float64", "Utf8", "Binary", "Date", "Time", "Duration"),
)
NAMES = st.text(st.characters(exclude_categories=["Cs"]), max_size=6) | st.sampled_from(
    ["a", "not", "null", "List", '"', "\\", "a b", "a:b", "a,b", "(", "é", ""]
)
ZONES = st.sampled_from([None, "UTC", "+05:30", "-11:00", "Europe/Rome", "Etc/GMT+3"])


def fields_of(types: st.SearchStrategy[DataType]) -> st.SearchStrategy[tuple[Field, ...]]:
    field = st.builds(Field, NAMES, types, st.booleans())
    return st.lists(field, max_size=4, unique_by=lambda f: f.name).map(tuple)


@st.composite
def decimals(draw: st.DrawFn) -> DataType:
    precision = draw(st.integers(1, 38))
    return DataType("Decimal", precision=precision, scale=draw(st.integers(0, precision)))


TYPES = st.recursive(
    st.sampled_from(PLAIN).map(DataType)
    | decimals()
    | st.builds(
        lambda unit, zone: DataType("Timestamp", unit=unit, zone=zone),
        st.sampled_from(["s", "ms", "us", "ns"]),
        ZONES,
    ),
    lambda inner: (
        st.builds(lambda item: DataType("List", item=item), inner)
        | fields_of(inner).filter(bool).map(lambda fields: DataType("Struct", fields=fields))
    ),
    max_leaves=6,
)
SCHEMAS = st.builds(Schema, fields_of(TYPES))


@pytest.mark.slow
@given(TYPES)
def test_type_text_reads_back(data_type: DataType) -> None:
    assert DataType.parse(str(data_type)) == data_type


@pytest.mark.slow
@given(SCHEMAS)
def test_schema_json_reads_back(schema: Schema) -> None:
    assert Schema.from_json(json.loads(json.dumps(schema.to_json()))) == schema


@pytest.mark.slow
@given(SCHEMAS)
def test_arrow_reads_back(schema: Schema) -> None:
    assert Schema.from_arrow(schema.to_arrow()) == schema


@pytest.mark.slow
@given(SCHEMAS, SCHEMAS)
def test_fingerprints_are_equal_when_schemas_are(one: Schema, other: Schema) -> None:
    assert (one.fingerprint() == other.fingerprint()) == (one == other)


@pytest.mark.slow
@given(st.text(max_size=20) | st.text('Listruc(),:" 012Int64', max_size=30))
def test_any_text_is_a_type_or_a_usage_error(text: str) -> None:
    try:
        assert DataType.parse(str(DataType.parse(text))) == DataType.parse(text)
    except UsageError as error:
        assert str(error)  # noqa: PT017 - any text at all may land here


def test_fingerprint_is_frozen() -> None:
    schema = Schema.of(id="Int64", price="Decimal(12,2)", at="Timestamp(us,UTC)")
    assert schema.fingerprint() == (
        "c44b07121aa6f4ea8ceb590f4c0727b2d54093c43f27989dad7f663571e3621d"
    )


def test_text_form_of_nested_types() -> None:
    text = 'Struct(a: Int64 not null, "b c": List(Timestamp(us,+05:30)), "x\\"y": Struct(z: Bool))'
    assert str(DataType.parse(text)) == text
    assert DataType.parse("Decimal( 12 , 2 )") == DataType("Decimal", precision=12, scale=2)


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("int64", "Int64"),
        ("Varchar", "Utf8"),
        ("u8", "UInt8"),
        ("Geometry", "types:"),
        ("Decmal(3,1)", "Decimal"),
    ],
)
def test_unknown_type_names_the_nearest(text: str, hint: str) -> None:
    with pytest.raises(UsageError) as raised:
        DataType.parse(text)
    assert hint in (raised.value.hint or "")


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            " ",
            "(",
            "Int64)",
            "Int64(3)",
            "Int64 Int64",
            "Decimal",
            "Decimal(12)",
            "Decimal(0,0)",
        ),
        *(
            "Decimal(39,2)",
            "Decimal(4,5)",
            "Decimal(a,b)",
            "Decimal(1,2,3)",
            "Timestamp",
            "Timestamp()",
        ),
        *(
            "Timestamp(h)",
            "Timestamp(us,UTC,x)",
            "List",
            "List()",
            "List(Int64,Int64)",
            "List(a: Int64)",
        ),
        *(
            "Struct",
            "Struct()",
            "Struct(Int64)",
            "Struct(a: Int64, a: Utf8)",
            "Struct(a: Int64 not)",
        ),
        *('Struct("a: Int64)', "Struct(a: Int64", "List(Int64 not null)", 'Struct("\\x": Int64)'),
        "List(" * 100 + "Int64" + ")" * 100,
    ],
)
def test_malformed_types_are_refused(text: str) -> None:
    with pytest.raises(UsageError):
        DataType.parse(text)


def test_unknown_column_names_the_nearest() -> None:
    with pytest.raises(UnknownColumn) as raised:
        Schema.of(distance="Int64", carrier="Utf8").field("distnace")
    assert (raised.value.suggestion, raised.value.known) == ("distance", ("distance", "carrier"))


def test_two_fields_of_one_name_are_refused() -> None:
    with pytest.raises(UsageError, match='two fields called "a"'):
        Schema((Field("a", DataType("Int64")), Field("a", DataType("Utf8"))))


def test_schema_reads_like_a_list_of_names() -> None:
    schema = Schema.of(a="Int64", b="Utf8")
    assert (schema.names, len(schema), "a" in schema, "c" in schema) == (("a", "b"), 2, True, False)
    assert schema.select(["b"]) == Schema.of(b="Utf8")
    assert [field.name for field in schema] == ["a", "b"]
    assert str(schema) == "a: Int64\nb: Utf8"


@pytest.mark.parametrize(
    "document",
    [
        None,
        [],
        {"columns": []},
        {"fields": {"a": "Int64"}},
        {"fields": [{"name": "a"}]},
        {"fields": [{"name": 1, "type": "Int64"}]},
        {"fields": [{"name": "a", "type": "Int64", "nullable": "no"}]},
        {"fields": [{"name": "a", "type": "Int64", "nulable": True}]},
        {"fields": ["a"]},
    ],
)
def test_malformed_schema_json_is_refused(document: Any) -> None:
    with pytest.raises(UsageError):
        Schema.from_json(document)


@pytest.mark.parametrize(
    ("arrow_type", "text"),
    [
        (pa.large_string(), "Utf8"),
        (pa.dictionary(pa.int8(), pa.string()), "Utf8"),
        (pa.run_end_encoded(pa.int32(), pa.int64()), "Int64"),
        (pa.string_view(), "Utf8"),
        (pa.binary(16), "Binary"),
        (pa.large_list(pa.int8()), "List(Int8)"),
        (pa.list_(pa.int8(), 3), "List(Int8)"),
        (pa.date64(), "Date"),
        (pa.time32("ms"), "Time"),
        (pa.decimal256(20, 2), "Decimal(20,2)"),
        (pa.map_(pa.string(), pa.int8()), "List(Struct(key: Utf8 not null, value: Int8))"),
    ],
)
def test_other_layouts_are_the_type_of_their_values(arrow_type: Any, text: str) -> None:
    assert str(DataType.from_arrow(arrow_type)) == text


@pytest.mark.parametrize(
    "arrow_type",
    [
        pa.null(),
        pa.float16(),
        pa.decimal256(50, 2),
        pa.decimal128(5, -2),
        pa.time64("ns"),
        pa.duration("ns"),
        pa.month_day_nano_interval(),
        pa.list_(pa.null()),
        pa.struct([]),
    ],
    ids=str,
)
def test_arrow_types_without_counterpart_are_refused_by_column(arrow_type: Any) -> None:
    with pytest.raises(Unsupported, match='column "c"'):
        Schema.from_arrow(pa.schema([("c", arrow_type)]))


@pytest.mark.skipif(not TYPES_PAGE.is_file(), reason="the documentation is not here")
@pytest.mark.parametrize("name", PLAIN)
def test_table_of_types_names_every_type(name: str) -> None:
    rows = [line.split(" | ") for line in TYPES_PAGE.read_text(encoding="utf-8").splitlines()]
    assert len([row for row in rows if row[0].startswith("| `") and f"`{name}`" in row[0]]) == 1


@pytest.mark.parametrize(
    "arguments",
    [
        {"name": "Int64", "precision": 3},
        {"name": "Utf8", "unit": "us"},
        {"name": "Date", "zone": "UTC"},
        {"name": "Timestamp", "unit": "us", "zone": "over there"},
        {"name": "Decimal", "precision": 3},
    ],
)
def test_arguments_that_do_not_fit_the_type_are_refused(arguments: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        DataType(**arguments)


def test_kinds_of_types() -> None:
    kinds = [(t.is_integer, t.is_float, t.is_numeric) for t in map(DataType, ["UInt8", "Float32"])]
    assert kinds == [(True, False, True), (False, True, True)]
    assert DataType.parse("Decimal(3,1)").is_numeric
    assert not DataType("Utf8").is_numeric


def test_types_and_schemas_are_shown_in_short() -> None:
    schema = Schema.of(id="Int64", price="Decimal(9,2)")
    assert repr(schema) == "<Schema id: Int64, price: Decimal(9,2)>"
    assert eval(repr(schema.field("price").type)) == DataType.parse("Decimal(9,2)")
