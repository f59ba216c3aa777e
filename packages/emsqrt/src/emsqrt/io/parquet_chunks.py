"""The facts from page headers of every column chunk of a file.

A file may have a hundred thousand column chunks. As objects they would need 450 bytes each, so if
there are many, they are kept as numbers in an array, and converted to objects when they are used.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from typing import Any, overload

from emsqrt.io.parquet_pages import ChunkPages

_FEW = 4096
"""The most chunks that are kept as objects, each of which is used several times."""
_OBJECT_BYTES = 450
_FIELDS = len(ChunkPages._fields)
_COLUMN = ChunkPages._fields.index("column")
_PAGE = ChunkPages._fields.index("dictionary_page")
_WIDTH = _FIELDS + 2
"""Numbers per chunk: the index of its column's name, and three for its dictionary page."""
_NUMBER_BYTES = 8


class ChunkTable(Sequence[ChunkPages]):
    """The chunks of a file, in order.

    Args:
        chunks: all of them.

    Raises:
        OverflowError: a chunk has a number beyond 64 bits.
    """

    def __init__(self, chunks: Iterable[ChunkPages] = ()) -> None:
        self._objects: list[ChunkPages] | None = []
        self._numbers = array("q")
        self._texts: list[str] = []
        self._known: dict[str, int] = {}
        for chunk in chunks:
            self.append(chunk)

    @property
    def size_bytes(self) -> int:
        """The memory of the table."""
        return self.bytes_of(len(self))

    @staticmethod
    def bytes_of(chunks: int) -> int:
        """Return the memory of a table of `chunks` chunks; a growing array has 1 / 8 to spare."""
        if chunks <= _FEW:
            return _OBJECT_BYTES * chunks
        return _NUMBER_BYTES * _WIDTH * chunks * 9 // 8

    def append(self, chunk: ChunkPages) -> None:
        """Add a chunk at the end."""
        if self._objects is not None:
            self._objects.append(chunk)
            if len(self._objects) > _FEW:
                objects, self._objects = self._objects, None
                for each in objects:
                    self._pack(each)
            return
        self._pack(chunk)

    def _pack(self, chunk: ChunkPages) -> None:
        values: list[Any] = list(chunk)
        at, size, codec = chunk.dictionary_page
        values[_COLUMN] = self._number(chunk.column)
        values[_PAGE:] = [at, size, self._number(codec)]
        self._numbers.extend(values)

    def __len__(self) -> int:
        if self._objects is not None:
            return len(self._objects)
        return len(self._numbers) // _WIDTH

    @overload
    def __getitem__(self, index: int) -> ChunkPages: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[ChunkPages]: ...

    def __getitem__(self, index: int | slice) -> ChunkPages | Sequence[ChunkPages]:
        if isinstance(index, slice):
            return ChunkRange(self, range(len(self))[index])
        if self._objects is not None:
            return self._objects[index]
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        start = index % len(self) * _WIDTH
        values: list[Any] = self._numbers[start : start + _WIDTH].tolist()
        at, size, codec = values[_PAGE:]
        values[_COLUMN] = self._texts[values[_COLUMN]]
        values[_PAGE:] = [(at, size, self._texts[codec])]
        return ChunkPages._make(values)

    def _number(self, text: str) -> int:
        number = self._known.setdefault(text, len(self._texts))
        if number == len(self._texts):
            self._texts.append(text)
        return number


class ChunkRange(Sequence[ChunkPages]):
    """Some chunks of a table, such as those of one row group."""

    __slots__ = ("_indexes", "_table")

    def __init__(self, table: ChunkTable, indexes: range) -> None:
        self._table, self._indexes = table, indexes

    def __len__(self) -> int:
        return len(self._indexes)

    @overload
    def __getitem__(self, index: int) -> ChunkPages: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[ChunkPages]: ...

    def __getitem__(self, index: int | slice) -> ChunkPages | Sequence[ChunkPages]:
        if isinstance(index, slice):
            return ChunkRange(self._table, self._indexes[index])
        return self._table[self._indexes[index]]
