"""Record schemas and slot layouts, against the published v5 rules."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import strand
from sennit_core.errors import UnknownColumn, UsageError
from strand.errors import UnknownField
from strand.fields import FIELD_TYPES
from strand.schema import check_stride, decode_schema, fnv1a, schema_from_facts

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
    name=st.text(min_size=1, max_size=8),
    type=st.sampled_from(sorted(FIELD_TYPES)),
    nullable=st.booleans(),
    order=st.sampled_from([None, "ascending"]),
)
schemas = st.lists(fields, min_size=1, max_size=12, unique_by=lambda field: field.name).map(
    strand.build_schema
)


def test_the_published_check_value_of_version_5() -> None:
    layout = CHECK.layout(5)
    assert layout.offsets == (1, 4, 12, 20, 28)
    assert layout.stride == 32
    assert CHECK.fingerprint(5) == 0xC4F6858F


def test_version_6_aligns_naturally_and_has_wide_pointers() -> None:
    layout = CHECK.layout(6)
    assert layout.offsets == (1, 8, 16, 32, 40)
    assert layout.stride == 48


def test_the_block_schema_is_one_sixteen_byte_pointer() -> None:
    layout = strand.BLOCKS.layout(6)
    assert layout.offsets == (0,)
    assert layout.stride == 16


@pytest.mark.parametrize(("data", "value"), [(b"", 0x811C9DC5), (b"a", 0xE40C292C)])
def test_fnv1a_vectors(data: bytes, value: Any) -> None:
    assert fnv1a(data) == value


@pytest.mark.slow
@given(schemas, st.sampled_from([5, 6]))
def test_the_wire_schema_reads_back(schema: strand.StrandSchema, version: Any) -> None:
    layout = schema.layout(version)
    read, facts = decode_schema(schema.encode(layout), version, layout.stride)
    check_stride(read, facts)
    assert read == layout
    assert schema_from_facts(list(schema.names), facts) == schema


@pytest.mark.slow
@given(schemas, st.sampled_from([5, 6]))
def test_fields_are_aligned_and_do_not_overlap(schema: strand.StrandSchema, version: Any) -> None:
    layout = schema.layout(version)
    end = layout.bitmap_bytes
    for field, offset in zip(schema.fields, layout.offsets, strict=True):
        assert offset >= end
        assert offset % field.facts.align_in(version) == 0
        end = offset + field.facts.width_in(version)
    assert end <= layout.stride
    assert layout.stride % (8 if version == 6 else 4) == 0


def test_descending_order_is_version_6_only() -> None:
    schema = strand.build_schema([strand.StrandField("t", "i64", order="descending")])
    assert schema.layout(6).stride == 8
    with pytest.raises(UnknownField):
        schema.layout(5)


@pytest.mark.parametrize(
    "fields",
    [[], [("a", "u8"), ("a", "u8")], [("a", "u64")], [("", "u8")]],
)
def test_an_invalid_schema_is_refused(fields: Any) -> None:
    with pytest.raises(UsageError):
        strand.build_schema(fields)


def test_an_unknown_field_suggests_the_nearest() -> None:
    with pytest.raises(UnknownColumn, match="distanse") as unknown:
        strand.build_schema([("distance", "f64")]).position("distanse")
    assert unknown.value.suggestion == "distance"
