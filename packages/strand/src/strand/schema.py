"""Record schemas, and the layout of a record in its slot.

The layouts are those of spec/strand-wire.md: version 5, the public format, aligns to at most 4 bytes;
version 6 aligns naturally and has wide heap pointers.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from operator import itemgetter
from typing import TYPE_CHECKING, Any

from sennit_core.errors import UnknownColumn, UsageError
from strand import conversions
from strand.errors import BadSchemaLength, BadStride, UnknownField
from strand.fields import (
    FIELD_TYPES,
    NULLABLE,
    SORTED_ASCENDING,
    SORTED_DESCENDING,
    FieldType,
    Order,
    SlotLayout,
    StrandField,
    Version,
)

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

    from sennit_core.schema import Schema

__all__ = [
    "BLOCKS",
    "StrandSchema",
    "build_schema",
    "fnv1a",
    "schema_fingerprint",
]

FIELDS_MAX = 500  # 2 + 4 bytes each must leave room for the metadata below byte 3072

FieldFacts = tuple[FieldType, int]
"""A field of a wire schema: its type and its flags."""

_BY_TAG = {kind.tag: kind for kind in FIELD_TYPES.values()}


def fnv1a(data: bytes) -> int:
    """Return the 32-bit FNV-1a hash of `data` (RFC 9923)."""
    value = 0x811C9DC5
    for byte in data:
        value = ((value ^ byte) * 0x01000193) & 0xFFFFFFFF
    return value


@dataclass(frozen=True)
class StrandSchema:
    """An ordered set of fields; the same schema has one layout for each version."""

    fields: tuple[StrandField, ...]

    def __post_init__(self) -> None:
        names = [field.name for field in self.fields]
        if not names or len(names) > FIELDS_MAX:
            raise UsageError(f"a schema has 1 to {FIELDS_MAX} fields, not {len(names)}")
        if len(set(names)) != len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise UsageError(f"two fields are named {twice!r}")

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The field names in order."""
        return tuple(field.name for field in self.fields)

    @cached_property
    def index(self) -> Mapping[str, int]:
        """The position of each name."""
        return {name: at for at, name in enumerate(self.names)}

    @cached_property
    def null_bits(self) -> tuple[int | None, ...]:
        """For each field its bit in the null bitmap, or None when it cannot be null."""
        bits = iter(range(len(self.fields)))
        return tuple(next(bits) if field.nullable else None for field in self.fields)

    @cached_property
    def pick(self) -> Callable[[Mapping[str, Any]], tuple[Any, ...]]:
        """Return the values of all fields of a mapping, in order; KeyError when one is missing."""
        if len(self.names) > 1:
            return itemgetter(*self.names)
        return partial(_pick_one, self.names[0])

    @cached_property
    def plain_bytes(self) -> int:
        """Bytes in non-nullable fixed-width fields; equals the stride if a slot has nothing else."""
        fields = self.fields
        return sum(0 if f.facts.heap or f.nullable else f.facts.item_bytes for f in fields)

    def position(self, name: str) -> int:
        """Return the position of `name`; UnknownColumn suggests the most similar name."""
        try:
            return self.index[name]
        except KeyError:
            raise UnknownColumn(name, self.names) from None

    def layout(self, version: Version) -> SlotLayout:
        """Lay the fields out in a slot as `version` prescribes."""
        for field in self.fields:
            _check_flags(field.flags, version)
        bitmap_bytes = (sum(field.nullable for field in self.fields) + 7) // 8
        end = bitmap_bytes
        offsets = []
        for field in self.fields:
            at = _round_up(end, field.facts.align_in(version))
            offsets.append(at)
            end = at + field.facts.width_in(version)
        stride = _round_up(end, 8 if version >= 6 else 4)
        return SlotLayout(version, tuple(offsets), bitmap_bytes, stride)

    def encode(self, layout: SlotLayout) -> bytes:
        """Return the wire schema: u16 count, then type, flags and offset of each field."""
        parts = [struct.pack("<H", len(self.fields))]
        for field, offset in zip(self.fields, layout.offsets, strict=True):
            parts.append(struct.pack("<BBH", field.facts.tag, field.flags, offset))
        return b"".join(parts)

    def fingerprint(self, version: Version) -> int:
        """Return the FNV-1a of the wire schema; names are not part of it."""
        return fnv1a(self.encode(self.layout(version)))

    def to_numpy(self, version: Version = 6) -> np.dtype[Any]:
        """Return the structured dtype of one slot, as used by `records` and `claim_records`.

        Offsets and item size are the slot's. Heap fields are structs of `offset` and `length`; the
        null bitmap, when there is one, is the field `_nulls`. An array of this dtype without heap
        fields, nulls and gaps is written with one copy.

        Args:
            version: the layout version, 5 or 6.
        """
        cached = self._dtypes.get(version)
        if cached is None:
            layout = self.layout(version)
            cached = self._dtypes[version] = conversions.to_numpy(self.fields, layout)
        return cached

    @classmethod
    def from_numpy(cls, dtype: Any) -> StrandSchema:
        """Return the schema of a structured dtype of numbers and booleans, none of them nullable.

        Raises:
            Unsupported: a field is a string, a subarray, a struct or of another unsupported type.
            UsageError: the dtype has no named fields.
        """
        return cls(conversions.from_numpy(dtype))

    def to_arrow(self) -> pa.Schema:
        """Return the Arrow schema that `from_arrow` reads back.

        `utf8_ref` is a dictionary of strings, `json` a string column marked by its metadata
        (`strand.type`), arrays are lists, sorted fields are marked too (`strand.order`).
        """
        return self.arrow_schema(interned=True)

    def arrow_schema(self, *, interned: bool) -> pa.Schema:
        """Return the Arrow schema with `utf8_ref` as a dictionary, or as plain handles (uint32)."""
        cached = self._arrow_schemas.get(interned)
        if cached is None:
            cached = conversions.to_arrow(self.fields, interned=interned)
            self._arrow_schemas[interned] = cached
        return cached

    @classmethod
    def from_arrow(cls, schema: pa.Schema) -> StrandSchema:
        """Return the schema for columns of these Arrow types.

        Large, view and fixed-size layouts map to the type of their values. A dictionary of strings
        maps to `utf8_ref`, and its ring needs the strings as `metadata={"intern": [...]}`.

        Raises:
            Unsupported: a type without an exact field type; the message names the column.
        """
        return cls(conversions.from_arrow(schema))

    def to_core(self) -> Schema:
        """Return the schema as a `sennit_core` schema, where `utf8_ref` and `json` are Utf8."""
        return conversions.to_core(self.fields)

    @classmethod
    def from_core(cls, schema: Schema) -> StrandSchema:
        """Return the record schema for a `sennit_core` schema.

        Raises:
            Unsupported: a type without a field type.
        """
        return cls(conversions.from_core(schema))

    @cached_property
    def _dtypes(self) -> dict[int, np.dtype[Any]]:
        return {}

    @cached_property
    def _arrow_schemas(self) -> dict[bool, pa.Schema]:
        return {}


def build_schema(
    fields: Iterable[StrandField | tuple[str, str] | Mapping[str, Any]],
) -> StrandSchema:
    """Build a schema from fields.

    Args:
        fields: `("id", "u32")`, `{"name": "score", "type": "f64", "nullable": True}`, or
            `StrandField` values, in slot order.

    Raises:
        UsageError: no field, a duplicate name, or an unknown type.
    """
    return StrandSchema(tuple(map(_as_field, fields)))


def schema_fingerprint(schema: StrandSchema, version: Version = 6) -> int:
    """Return the FNV-1a hash of the wire schema, which both ends of a ring compare.

    Args:
        schema: the record schema; its names are not hashed.
        version: the layout version, 5 or 6.
    """
    return schema.fingerprint(version)


def decode_schema(
    data: bytes, version: Version, stride: int
) -> tuple[SlotLayout, list[FieldFacts]]:
    """Decode a wire schema of checked length; `stride` is the header's, not checked yet."""
    count = struct.unpack_from("<H", data)[0]
    if len(data) != 2 + 4 * count or count == 0:
        raise BadSchemaLength(expected=f"{2 + 4 * count} bytes", found=f"{len(data)} bytes")
    facts = []
    offsets = []
    for at in range(2, len(data), 4):
        tag, flags, offset = struct.unpack_from("<BBH", data, at)
        kind = _BY_TAG.get(tag)
        if kind is None:
            raise UnknownField(expected=f"a type tag from 0 to {len(_BY_TAG) - 1}", found=str(tag))
        _check_flags(flags, version)
        facts.append((kind, flags))
        offsets.append(offset)
    bitmap_bytes = (sum(flags & NULLABLE for _, flags in facts) + 7) // 8
    return SlotLayout(version, tuple(offsets), bitmap_bytes, stride), facts


def check_stride(layout: SlotLayout, facts: list[FieldFacts]) -> None:
    """Raise BadStride unless the fields and the stride are those that the version defines."""
    end = layout.bitmap_bytes
    for offset, (kind, _) in zip(layout.offsets, facts, strict=True):
        at = _round_up(end, kind.align_in(layout.version))
        if offset != at:
            raise BadStride(expected=f"a field at byte {at}", found=f"byte {offset}")
        end = offset + kind.width_in(layout.version)
    wanted = _round_up(end, 8 if layout.version >= 6 else 4)
    if layout.stride != wanted:
        raise BadStride(expected=f"stride {wanted}", found=str(layout.stride))


def schema_from_facts(names: list[str], facts: list[FieldFacts]) -> StrandSchema:
    """Combine the decoded fields with the names from the metadata."""
    fields = []
    for name, (kind, flags) in zip(names, facts, strict=True):
        order: Order | None = None
        if flags & SORTED_ASCENDING:
            order = "ascending"
        elif flags & SORTED_DESCENDING:
            order = "descending"
        fields.append(StrandField(name, kind.name, bool(flags & NULLABLE), order))
    return StrandSchema(tuple(fields))


def _pick_one(name: str, values: Mapping[str, Any]) -> tuple[Any, ...]:
    return (values[name],)


def _as_field(value: StrandField | tuple[str, str] | Mapping[str, Any]) -> StrandField:
    if isinstance(value, StrandField):
        return value
    if isinstance(value, Mapping):
        return StrandField(**value)
    return StrandField(*value)


def _check_flags(flags: int, version: int) -> None:
    known = NULLABLE | SORTED_ASCENDING | (SORTED_DESCENDING if version >= 6 else 0)
    both = SORTED_ASCENDING | SORTED_DESCENDING
    if flags & ~known or flags & both == both:
        raise UnknownField(
            expected=f"flags out of {known:#x} for version {version}", found=hex(flags)
        )


def _round_up(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple


BLOCKS = build_schema([("payload", "bytes")])
"""The block schema: one `bytes` field, so that a record is a payload (an Arrow message, say)."""
