"""Thrift's compact protocol, the format of Parquet's footers and page headers.

The format: thrift-compact-protocol.md of Apache Thrift; the structs: parquet.thrift.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, TypeAlias

_TRUE, _FALSE, _BYTE, _DOUBLE, _SET = 1, 2, 3, 7, 10
I16, I32, I64, BINARY, LIST, STRUCT = 4, 5, 6, 8, 9, 12
"""The kinds of values; a boolean's kind, 1 or 2, is also its value."""
_DEPTH_MAX = 16
"""Parquet's structs are nested less deeply than this."""

Fields: TypeAlias = dict[int, Any]
"""A struct's values by field number: int, bool, bytes, lists and nested structs."""
Shape: TypeAlias = Mapping[int, "tuple[int, Shape | None]"]
"""The required kinds of a struct's fields by number, with the shape of nested structs or items."""


class CompactReader:
    """Reads structs from bytes.

    Truncated data raises IndexError; data that cannot be in a struct, ValueError.

    Args:
        data: the bytes.
        position: where to begin.
    """

    def __init__(self, data: bytes, position: int = 0) -> None:
        self._data = data
        self._depth = 0
        self.position = position

    def read_struct(self, shape: Shape | None = None) -> Fields:
        """Return the fields of a struct; ValueError for a field of the wrong kind."""
        values: Fields = {}
        for number, kind in self.fields():
            inner = None
            if shape is not None and number in shape:
                wanted, inner = shape[number]
                if kind != wanted:
                    raise ValueError(f"field {number} has kind {kind}")
            values[number] = self._integer() if I16 <= kind <= I64 else self.read(kind, inner)
        return values

    def fields(self, number: int = 0) -> Iterator[tuple[int, int]]:
        """Yield (number, kind) of each field; the caller reads its value before the next.

        Args:
            number: the number of the field before the first.
        """
        data = self._data
        while head := data[self.position]:
            self.position += 1
            step = head >> 4
            number = number + step if step else self._integer()
            yield number, head & 15
        self.position += 1

    def read(self, kind: int, shape: Shape | None = None) -> Any:
        """Return a field's value.

        Args:
            kind: the kind of the value.
            shape: the shape of the struct, or of the structs in the list.
        """
        if I16 <= kind <= I64:
            return self._integer()
        if kind == BINARY:
            return self._bytes(self._varint())
        if kind == STRUCT:
            return self._nested(shape)
        if kind in (LIST, _SET):
            item, count = self.list_head()
            return [self.read_item(item, shape) for _ in range(count)]
        if kind in (_TRUE, _FALSE):
            return kind == _TRUE
        if kind == _BYTE:
            return self._byte()
        if kind == _DOUBLE:
            return self._bytes(8)
        raise ValueError(f"thrift type {kind}")

    def list_head(self) -> tuple[int, int]:
        """Return the kind of a list's items, and their number."""
        head = self._byte()
        count = head >> 4 if head >> 4 < 15 else self._varint()
        if count > len(self._data) - self.position:
            raise IndexError("a list goes on")
        return head & 15, count

    def read_item(self, kind: int, shape: Shape | None = None) -> Any:
        """Return an item of a list, where a boolean is a byte."""
        return self._byte() == _TRUE if kind in (_TRUE, _FALSE) else self.read(kind, shape)

    def _nested(self, shape: Shape | None) -> Fields:
        self._depth += 1
        if self._depth > _DEPTH_MAX:
            raise ValueError("structs in structs without end")
        fields = self.read_struct(shape)
        self._depth -= 1
        return fields

    def _byte(self) -> int:
        value = self._data[self.position]
        self.position += 1
        return value

    def _bytes(self, size: int) -> bytes:
        start, self.position = self.position, self.position + size
        if self.position > len(self._data):
            raise IndexError("the bytes go on")
        return self._data[start : self.position]

    def _varint(self) -> int:
        value = shift = 0
        while True:
            octet = self._data[self.position]
            self.position += 1
            value |= (octet & 127) << shift
            if octet < 128:
                return value
            shift += 7
            if shift > 63:
                raise ValueError("an integer without end")

    def _integer(self) -> int:
        value = self._data[self.position]
        if value < 128:
            self.position += 1
        else:
            value = self._varint()
        return (value >> 1) ^ -(value & 1)
