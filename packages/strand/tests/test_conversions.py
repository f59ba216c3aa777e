"""Record schemas as numpy dtypes, Arrow schemas and the engines' schemas, and back."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

import strand
from sennit_core.errors import Unsupported, UsageError
from sennit_core.schema import Schema
from strand.fields import FIELD_TYPES
from strand.schema import schema_fingerprint

TYPES_PAGE = Path(__file__).parents[3] / "docs" / "types.md"
CHECK = strand.build_schema(
    [
        ("a", "u8"),
        ("b", "i64"),
        ("c", "utf8"),
        ("d", "f64"),
        {"name": "e", "type": "u16", "nullable": True},
    ]
)
fields = st.builds(
    strand.StrandField,
    name=st.text("abcdeé€😀 ", min_size=1, max_size=8),
    type=st.sampled_from(sorted(FIELD_TYPES)),
    nullable=st.booleans(),
    order=st.sampled_from([None, "ascending", "descending"]),
)
schemas = st.lists(fields, min_size=1, max_size=9, unique_by=lambda field: field.name).map(
    strand.build_schema
)


@pytest.mark.parametrize(
    ("version", "offsets", "stride"),
    [(5, [0, 1, 4, 12, 20, 28], 32), (6, [0, 1, 8, 16, 32, 40], 48)],
)
def test_the_dtype_is_one_slot(version: Any, offsets: list[int], stride: int) -> None:
    dtype = CHECK.to_numpy(version)
    assert dtype.names == ("_nulls", "a", "b", "c", "d", "e")
    assert dtype.fields is not None
    assert [dtype.fields[name][1] for name in dtype.names] == offsets
    assert dtype.itemsize == stride
    assert dtype["c"].names == ("offset", "length")


@given(schemas, st.sampled_from([5, 6]))
def test_dtypes_have_the_offsets_of_the_layout(schema: strand.StrandSchema, version: Any) -> None:
    if version == 5 and any(field.order == "descending" for field in schema.fields):
        return
    layout = schema.layout(version)
    dtype = schema.to_numpy(version)
    assert dtype.fields is not None
    assert [dtype.fields[name][1] for name in schema.names] == list(layout.offsets)
    assert dtype.itemsize == layout.stride


@pytest.mark.slow
@given(schemas)
def test_arrow_schemas_read_back(schema: strand.StrandSchema) -> None:
    assert strand.StrandSchema.from_arrow(schema.to_arrow()) == schema


@pytest.mark.slow
@given(schemas)
def test_a_pickled_schema_is_the_same_after_use(schema: strand.StrandSchema) -> None:
    schema.to_numpy()
    schema.pick(dict.fromkeys(schema.names))
    assert pickle.loads(pickle.dumps(schema)) == schema


CANONICAL: dict[str, type[np.generic]] = {
    "u8": np.uint8,
    "u16": np.uint16,
    "i32": np.int32,
    "u32": np.uint32,
    "i64": np.int64,
    "f32": np.float32,
    "f64": np.float64,
    "bool8": np.bool_,
    "utf8_ref": np.uint32,
}


@pytest.mark.parametrize("name", [facts.name for facts in FIELD_TYPES.values() if not facts.heap])
def test_numbers_have_numpys_canonical_types(name: str) -> None:
    """Code that compares `dtype.type` finds `int64`, not the `longlong` that equals it."""
    canonical = CANONICAL[name]
    dtype = strand.build_schema([("x", name)]).to_numpy()["x"]
    assert dtype.type is canonical
    assert isinstance(np.zeros(1, dtype)[0], canonical)
    assert np.zeros(1, dtype).data.format == np.zeros(1, canonical).data.format


def test_a_heap_pointers_numbers_have_numpys_canonical_types() -> None:
    pointer = strand.build_schema([("x", "utf8")]).to_numpy()["x"]
    assert (pointer["offset"].type, pointer["length"].type) == (np.uint64, np.uint32)


def test_plain_dtypes_read_back() -> None:
    dtype = np.dtype([("i", "<i4"), ("u", "<u4"), ("l", "<i8"), ("f", "<f4"), ("d", "<f8")])
    schema = strand.StrandSchema.from_numpy(dtype)
    assert [field.type for field in schema.fields] == ["i32", "u32", "i64", "f32", "f64"]
    assert strand.StrandSchema.from_numpy(schema.to_numpy()) == schema


def test_big_endian_and_padded_dtypes_are_the_same_types() -> None:
    dtype = np.dtype({"names": ["a", "b"], "formats": [">u2", "?"], "offsets": [6, 1]})
    fields = strand.StrandSchema.from_numpy(dtype).fields
    assert [(field.name, field.type) for field in fields] == [("a", "u16"), ("b", "bool8")]


@pytest.mark.parametrize("code", ["U8", "S3", "M8[us]", "i2", "u8", "f2", ("f4", (3,)), "O"])
def test_dtypes_that_no_slot_holds_are_refused_by_name(code: Any) -> None:
    with pytest.raises(Unsupported, match="'odd'"):
        strand.StrandSchema.from_numpy(np.dtype([("fine", "f4"), ("odd", code)]))


def test_a_dtype_without_fields_is_no_schema() -> None:
    with pytest.raises(UsageError):
        strand.StrandSchema.from_numpy("f4")


def test_a_field_cannot_hide_the_null_bitmap() -> None:
    with pytest.raises(UsageError, match="_nulls"):
        strand.build_schema([("_nulls", "u8")]).to_numpy()


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        (pa.large_string(), "utf8"),
        (pa.string_view(), "utf8"),
        (pa.large_binary(), "bytes"),
        (pa.binary(4), "bytes"),
        (pa.large_list(pa.int32()), "i32_array"),
        (pa.list_(pa.float32(), 3), "f32_array"),
        (pa.dictionary(pa.int8(), pa.large_string()), "utf8_ref"),
    ],
)
def test_other_layouts_of_the_same_values_are_the_same_field(kind: Any, name: str) -> None:
    [field] = strand.StrandSchema.from_arrow(pa.schema([("x", kind)])).fields
    assert (field.type, field.nullable) == (name, True)


@pytest.mark.parametrize(
    "kind",
    [
        *(pa.int8(), pa.uint64(), pa.float16(), pa.date32(), pa.timestamp("us"), pa.null()),
        *(pa.decimal128(9, 2), pa.list_(pa.int64()), pa.struct([("a", pa.int32())])),
        pa.dictionary(pa.int8(), pa.int32()),
    ],
)
def test_arrow_types_that_no_slot_holds_are_refused_by_name(kind: Any) -> None:
    with pytest.raises(Unsupported, match="'odd'") as refused:
        strand.StrandSchema.from_arrow(pa.schema([("fine", pa.int32()), ("odd", kind)]))
    assert "BLOCKS" in str(refused.value.hint)


def test_a_mark_that_contradicts_the_type_is_refused() -> None:
    field = pa.field("x", pa.int32(), metadata={"strand.type": "json"})
    with pytest.raises(Unsupported, match="json"):
        strand.StrandSchema.from_arrow(pa.schema([field]))


def test_the_engines_schema_goes_both_ways() -> None:
    core = Schema.of(a="Bool", b="UInt16", c="Int64", d="Float32", e="Utf8", f="List(Int32)")
    schema = strand.StrandSchema.from_core(core)
    assert [field.type for field in schema.fields] == [
        *("bool8", "u16", "i64", "f32", "utf8", "i32_array")
    ]
    assert schema.to_core() == core
    with pytest.raises(Unsupported):
        strand.StrandSchema.from_core(Schema.of(a="Decimal(9,2)"))


def test_types_of_the_engines_without_a_slot_are_pointed_to_the_block_ring() -> None:
    with pytest.raises(Unsupported, match='column "d" of type Date') as refused:
        strand.StrandSchema.from_core(Schema.of(d="Date"))
    assert "block ring" in (refused.value.hint or "")


@pytest.mark.skipif(not TYPES_PAGE.is_file(), reason="the documentation is not here")
@pytest.mark.parametrize("name", FIELD_TYPES)
def test_the_table_of_types_names_the_slot_of_each_type(name: str) -> None:
    (column,) = strand.build_schema([("x", name)]).to_core().fields
    rows = [line.split(" | ") for line in TYPES_PAGE.read_text(encoding="utf-8").splitlines()]
    (row,) = [row for row in rows if row[0].startswith("| `") and f"`{column.type}`" in row[0]]
    assert f"`{name}`" in row[2] or name == "json"  # which no engine has


def test_the_fingerprint_is_the_layouts() -> None:
    assert schema_fingerprint(CHECK, 5) == 0xC4F6858F
    assert schema_fingerprint(CHECK) == CHECK.fingerprint(6)


def test_an_unknown_order_is_refused() -> None:
    with pytest.raises(UsageError, match="upwards"):
        strand.StrandField("t", "i64", order="upwards")  # type: ignore[arg-type]
