"""Field types, fields, and where the fields of a record are in its slot."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from sennit_core.errors import UsageError
from strand import _native

__all__ = [
    "ELEMENTS",
    "FIELD_TYPES",
    "NULLABLE",
    "SORTED_ASCENDING",
    "SORTED_DESCENDING",
    "FieldType",
    "Order",
    "SlotLayout",
    "StrandField",
    "Version",
]

Version = Literal[5, 6]
Order = Literal["ascending", "descending"]

NULLABLE, SORTED_ASCENDING, SORTED_DESCENDING = 1, 2, 4


@dataclass(frozen=True)
class FieldType:
    """A row of the table of types (`_types.h`).

    Args:
        name: its name in a schema.
        tag: its number on the wire.
        kind: "integer", "float", "boolean", "handle", "text", "json", "bytes" or "array".
        code: the `struct` code of the number in the slot, or of an item of the payload.
        getter: the name of the cursor's method that reads it.
    """

    name: str
    tag: int
    kind: str
    code: str
    getter: str

    @cached_property
    def heap(self) -> bool:
        """Whether the slot holds a pointer to a payload in the heap."""
        return self.kind in ("text", "json", "bytes", "array")

    @cached_property
    def item_bytes(self) -> int:
        """Bytes of the number in the slot, or of an item of the payload."""
        return struct.calcsize("<" + self.code)

    @cached_property
    def limits(self) -> tuple[int, int] | None:
        """The least and greatest integer that `code` stores; None for floats."""
        if self.code in "fd":
            return None
        bits = 8 * self.item_bytes
        if self.code.islower():  # signed
            return -(1 << bits - 1), (1 << bits - 1) - 1
        return 0, (1 << bits) - 1

    @property
    def is_number(self) -> bool:
        """Whether the value is one number, whose size is an order."""
        return self.kind in ("integer", "float")

    def width_in(self, version: int) -> int:
        """Bytes in the slot; of a pointer: u32 offset and u16 length in v5, see the spec for v6."""
        if self.heap:
            return 16 if version >= 6 else 6
        return self.item_bytes

    def align_in(self, version: int) -> int:
        """Alignment in the slot: `min(width, 4)` in v5, natural in v6."""
        return min(self.width_in(version), 8 if version >= 6 else 4)

    def heap_align_in(self, version: int) -> int:
        """Alignment of the payload in the heap: items in v5, cache lines in v6, none for text."""
        if self.kind not in ("bytes", "array"):
            return 1
        return 64 if version >= 6 else self.item_bytes


FIELD_TYPES: dict[str, FieldType] = {
    name: FieldType(name, tag, kind.lower(), code, f"get_{getter}")
    for name, tag, kind, code, getter in _native.FIELD_TYPES
}

ELEMENTS = {
    "b": "int8",
    "B": "uint8",
    "h": "int16",
    "H": "uint16",
    "i": "int32",
    "I": "uint32",
    "q": "int64",
    "f": "float32",
    "d": "float64",
}
"""The name that numpy, Arrow and (capitalized) JavaScript have for the number of a struct code."""


@dataclass(frozen=True)
class StrandField:
    """A named, typed field; `order` declares that its values are sorted."""

    name: str
    type: str
    nullable: bool = False
    order: Order | None = None

    def __post_init__(self) -> None:
        if self.type not in FIELD_TYPES:
            known = ", ".join(FIELD_TYPES)
            raise UsageError(f"field {self.name!r} has unknown type {self.type!r}; known: {known}")
        if not self.name:
            raise UsageError("a field needs a name")
        if self.order not in (None, "ascending", "descending"):
            raise UsageError(
                f'field {self.name!r} is sorted "ascending", "descending" or not at all (None), '
                f"not {self.order!r}"
            )

    @property
    def facts(self) -> FieldType:
        """The row of the table of types for the field's type."""
        return FIELD_TYPES[self.type]

    @property
    def flags(self) -> int:
        """The flag byte of the wire schema."""
        order = {None: 0, "ascending": SORTED_ASCENDING, "descending": SORTED_DESCENDING}
        return NULLABLE * self.nullable | order[self.order]


@dataclass(frozen=True)
class SlotLayout:
    """The layout of a slot: byte offsets of the fields, size of the null bitmap, stride."""

    version: int
    offsets: tuple[int, ...]
    bitmap_bytes: int
    stride: int
