"""Read-only access to flatbuffer tables, as far as Arrow's metadata needs it.

Every offset comes from the file and may be wrong. `struct` raises for one that is past the end of
the data; the reader of a message turns that into `BadInput`. A wrong offset inside the data yields
wrong numbers, which the caller checks like any others.

Format: https://flatbuffers.dev/internals/
"""

from __future__ import annotations

import struct

__all__ = ["Table", "root_table"]


class Table:
    """A flatbuffer table; fields are addressed by their number in the schema."""

    def __init__(self, data: bytes | memoryview, position: int) -> None:
        self._data = data
        self._position = position
        self._vtable = position - self._unpack("<i", position)
        self._vtable_bytes = self._unpack("<H", self._vtable)

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

    def structs(self, field: int, form: str) -> list[tuple[int, ...]]:
        """Return a vector of structs, each in `struct` format `form`; empty when it is absent.

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
        at = 4 + 2 * field
        if at >= self._vtable_bytes:
            return 0
        offset = self._unpack("<H", self._vtable + at)
        return offset and self._position + offset

    def _unpack(self, form: str, position: int) -> int:
        if position < 0:  # struct would count it from the end
            raise ValueError(f"an offset to {position}")
        return int(struct.unpack_from(form, self._data, position)[0])


def root_table(data: bytes | memoryview) -> Table:
    """Return the table at the root of a flatbuffer."""
    return Table(data, struct.unpack_from("<I", data)[0])
