"""Read-only access to flatbuffer tables, as far as Arrow's metadata needs it.

Every offset comes from the file and may be wrong. `struct` raises for an offset past the end of the
data; the message reader reports that as `BadInput`. A wrong offset inside the data yields wrong
numbers, which the caller validates like all others.

Format: https://flatbuffers.dev/internals/
"""

from __future__ import annotations

import struct
from typing import Any

__all__ = ["Table", "root_table"]


class Table:
    """A flatbuffer table; fields are addressed by their number in the schema."""

    def __init__(self, data: bytes | memoryview, position: int) -> None:
        self._data = data
        self._position = position
        vtable = position - self._unpack("<i", position)
        entries = (self._unpack("<H", vtable) - 4) // 2  # its own length and the table's come first
        self._offsets: tuple[int, ...] = ()
        if entries > 0:
            self._offsets = struct.unpack_from(f"<{entries}H", data, vtable + 4)

    def has(self, field: int) -> bool:
        """Whether the field is stored, rather than left at its default."""
        return self._place(field) != 0

    def number(self, field: int, form: str) -> int:
        """Return a scalar in `struct` format `form`; 0 when the field is absent."""
        place = self._place(field)
        return self._unpack(form, place) if place else 0

    def table(self, field: int) -> Table | None:
        """Return the table that a field refers to, or None when the field is absent."""
        place = self._place(field)
        return Table(self._data, place + self._unpack("<I", place)) if place else None

    def structs(self, field: int, form: str) -> list[Any]:
        """Return a vector of structs as tuples, each in `struct` format `form`; empty when absent.

        Raises:
            ValueError: the vector is longer than the data.
        """
        place = self._place(field)
        if not place:
            return []
        start = place + self._unpack("<I", place)
        count, size = self._unpack("<I", start), struct.calcsize(form)
        items = self._data[start + 4 : start + 4 + size * count]
        if len(items) != size * count:
            raise ValueError(f"a vector of {count} entries in {len(self._data)} bytes of metadata")
        return list(struct.iter_unpack(form, items))

    def _place(self, field: int) -> int:
        """Return the position of a field's value; 0 when the field is absent."""
        if field >= len(self._offsets):
            return 0
        offset = self._offsets[field]
        return offset and self._position + offset

    def _unpack(self, form: str, position: int) -> int:
        if position < 0:  # struct would count it from the end
            raise ValueError(f"an offset to {position}")
        number: int = struct.unpack_from(form, self._data, position)[0]
        return number


def root_table(data: bytes | memoryview) -> Table:
    """Return the table at the root of a flatbuffer."""
    return Table(data, struct.unpack_from("<I", data)[0])
