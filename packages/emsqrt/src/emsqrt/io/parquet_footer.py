"""A Parquet footer, checked before Arrow parses it, and passed to Arrow a few row groups at a time.

Arrow's objects for a footer need about 850 bytes for each column of each row group: 26 MiB for 16
columns in 2,000 row groups. So the footer is read through a window, its row groups are divided into
pieces, and Arrow gets a footer with the schema and the row groups of one piece.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from hashlib import blake2b
from typing import Any, NamedTuple, TypeVar

from emsqrt.io.file_facts import known_fact
from emsqrt.io.parquet_structs import (
    CHUNK_SIZES,
    FILE,
    GROUP,
    ROW_GROUPS,
    ROWS,
    SCHEMA,
    Leaf,
    check_group,
    leaves_of,
)
from emsqrt.io.sources import ByteSource, Reader
from emsqrt.io.thrift import STRUCT, CompactReader, Shape
from emsqrt.system_errors import refuse_memory
from sennit_core.errors import BadInput

T = TypeVar("T")

MAGIC = b"PAR1"
_ENCRYPTED = b"PARE"
_TAIL_BYTES = len(MAGIC) + 4
_WINDOW_BYTES = 1 << 20
"""A footer up to this size is kept whole; of a longer one this much is read at a time."""
_PIECE_CHUNKS = 1024
"""The most column chunks of a piece: Arrow's objects for them need less than 1 MiB."""
_CHUNK_BYTES = 1 << 10
"""Arrow's objects for a column chunk, with its statistics: measured, rounded up."""
_ARROW_SCHEMA = b"ARROW:schema"
_SHORT_LIST = 15
"""A list of fewer items than this has their number in its first byte."""
_CHECKED_BYTES = 512 << 10
"""The memory of the cache of checked footers."""


class Piece(NamedTuple):
    """Consecutive row groups in a footer.

    Args:
        first: the number of the first row group.
        group_count: the number of row groups.
        start: the offset of their bytes in the footer.
        size: the number of their bytes.
        digest: the hash of their bytes when they were checked.
    """

    first: int
    group_count: int
    start: int
    size: int
    digest: bytes

    @property
    def groups(self) -> range:
        """The numbers of its row groups."""
        return range(self.first, self.first + self.group_count)


@dataclass(frozen=True, slots=True)
class _Index:
    """A checked footer without its row groups.

    Args:
        before: its bytes up to the list of row groups.
        after: its bytes after that list.
        pieces: the positions of the row groups.
        rows: the rows of each row group.
        columns: the number of columns of a row group, including nested ones.
    """

    before: bytes
    after: bytes
    pieces: tuple[Piece, ...]
    rows: array[int]
    columns: int


class Footer:
    """A checked footer of a file.

    Args:
        source: the file.
        start: the footer's offset in the file.
        index: the result of the check.
        whole: its bytes, if they are few.
    """

    def __init__(self, source: ByteSource, start: int, index: _Index, whole: bytes | None) -> None:
        self._source, self._start, self._index, self._whole = source, start, index, whole
        self.pieces = index.pieces
        self.group_rows = index.rows
        """The rows of each row group."""

    @property
    def row_count(self) -> int:
        """Rows of the file."""
        return sum(self.group_rows)

    @property
    def piece_bytes(self) -> int:
        """Memory of Arrow's objects for the largest piece, and of its bytes while it is parsed."""
        groups = max((piece.group_count for piece in self.pieces), default=0)
        largest = max((piece.size for piece in self.pieces), default=0)
        return groups * self._index.columns * _CHUNK_BYTES + largest

    @property
    def held_bytes(self) -> int:
        """Memory of this object."""
        index = self._index
        return len(self._whole or b"") + len(index.before) + len(index.after) + 8 * len(index.rows)

    def piece_of(self, group: int) -> int:
        """Return the number of the piece that contains a row group."""
        return bisect_right(self.pieces, group, key=lambda piece: piece.first) - 1

    def metadata(self, piece: Piece | None = None, *, plain: bool = False) -> Any:
        """Return a `pyarrow.parquet.FileMetaData` with the row groups of a piece, or with none.

        Args:
            piece: one of `pieces`; its row groups are numbered from 0 there.
            plain: omit the Arrow schema, as if the file had only Parquet's own types.

        Raises:
            BadInput: the file was changed since it was checked, or Arrow cannot read its footer.
            MemoryError: there is not enough memory.
        """
        first = -1 if piece is None else piece.first
        size = (
            self._index.columns * _CHUNK_BYTES * max(1, 0 if piece is None else piece.group_count)
        )
        return known_fact(
            self._source,
            ("metadata", first, plain),
            lambda: self._parsed(piece, plain),
            lambda _: size,
        )

    def _parsed(self, piece: Piece | None, plain: bool) -> Any:
        import pyarrow as pa
        from pyarrow import parquet

        before, after = self._index.before, self._index.after
        if plain:
            before, after = _without_arrow_schema(before), _without_arrow_schema(after)
        count = 0 if piece is None else piece.group_count
        groups = b"" if piece is None else self._bytes_of(piece)
        head = b"".join((MAGIC, before, _list_head(count), groups, after))
        size = len(head) - len(MAGIC)
        footer = b"".join((head, size.to_bytes(4, "little"), MAGIC))
        try:
            return parquet.read_metadata(pa.BufferReader(footer))
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError, OSError) as error:
            refuse_memory(error)
            reason = f"this is not a Parquet file: {error}"
            raise BadInput(self._source.name, reason=reason) from error

    def text_sizes(self, piece: Piece) -> dict[tuple[int, str], int]:
        """Return the bytes of all texts of a piece's column chunks, by row group and path.

        Chunks whose writer did not store it are left out.
        """
        reader = CompactReader(self._bytes_of(piece))
        found: dict[tuple[int, str], int] = {}
        for group in piece.groups:
            for column in reader.read(STRUCT, GROUP)[1]:
                size = column[3].get(CHUNK_SIZES, {}).get(1)
                if size is not None:
                    found[group, b".".join(column[3][3]).decode()] = size
        return found

    def _bytes_of(self, piece: Piece) -> bytes:
        if self._whole is not None:
            return self._whole[piece.start : piece.start + piece.size]
        found = self._source.read_at(self._start + piece.start, piece.size)
        if blake2b(found, digest_size=16).digest() != piece.digest:
            # Arrow would end the process if these bytes were inconsistent.
            raise BadInput(
                self._source.name,
                byte_offset=self._start + piece.start,
                reason="the Parquet footer was changed while the file was read",
                hint="run it again while no other program writes the file, or read a copy",
            )
        return found


def read_footer(source: ByteSource) -> Footer:
    """Check a file's footer and return it.

    Raises:
        BadInput: it is not a Parquet file, or it is encrypted or damaged.
    """
    return known_fact(
        source, "footer", lambda: _checked_footer(source), lambda found: found.held_bytes
    )


def _checked_footer(source: ByteSource) -> Footer:
    size = source.stored_bytes or 0
    with source.open_ranges() as read_at:
        start, footer_bytes = _find(read_at, source.name, size)
        whole = read_at(start, footer_bytes) if footer_bytes <= _WINDOW_BYTES else None
        digest = blake2b(whole or b"", digest_size=16)
        for at in range(0, footer_bytes if whole is None else 0, _WINDOW_BYTES):
            digest.update(read_at(start + at, min(_WINDOW_BYTES, footer_bytes - at)))
        key = digest.digest(), start
        index = _checked.get(key)
        if index is None:
            index = _check(_Window(read_at, start, footer_bytes), source.name, start)
            _checked.put(key, index)
    return Footer(source, start, index, whole)


class _Checked:
    """A cache of checked footers: a run opens a file more than once."""

    def __init__(self) -> None:
        self._indexes: dict[tuple[bytes, int], _Index] = {}
        self._held_bytes = 0

    def get(self, key: tuple[bytes, int]) -> _Index | None:
        return self._indexes.get(key)

    def put(self, key: tuple[bytes, int], index: _Index) -> None:
        if self._held_bytes > _CHECKED_BYTES:
            self._indexes.clear()
            self._held_bytes = 0
        self._indexes[key] = index
        self._held_bytes += len(index.before) + len(index.after) + 8 * len(index.rows)


_checked = _Checked()


def _find(read_at: Reader, name: str, size: int) -> tuple[int, int]:
    """Return the offset and the length of a file's footer."""
    if read_at(0, len(MAGIC)) == _ENCRYPTED:
        raise BadInput(
            name,
            reason="this Parquet file is encrypted",
            hint="write it without encryption, or decrypt it first",
        )
    tail = read_at(max(0, size - _TAIL_BYTES), _TAIL_BYTES)
    if size < len(MAGIC) + _TAIL_BYTES or not tail.endswith(MAGIC):
        reason = "this is not a Parquet file: it does not end in PAR1"
        raise BadInput(name, byte_offset=max(0, size - len(MAGIC)), reason=reason)
    footer_bytes = int.from_bytes(tail[:4], "little")
    start = size - _TAIL_BYTES - footer_bytes
    if start < len(MAGIC):
        reason = f"this is not a Parquet file: its footer would have {footer_bytes} bytes"
        raise BadInput(name, byte_offset=size - _TAIL_BYTES, reason=reason)
    return start, footer_bytes


class _Window:
    """The part of a footer that is in memory; it moves on as the footer is parsed.

    Args:
        read_at: reads a part of the file.
        start: the footer's offset in the file.
        size: the footer's length.
    """

    def __init__(self, read_at: Reader, start: int, size: int) -> None:
        self._read_at, self._start, self._size = read_at, start, size
        self._offset = 0
        self._load(0, _WINDOW_BYTES)

    @property
    def position(self) -> int:
        """The footer offset that is parsed next."""
        return self._offset + self._reader.position

    def parse(self, parse: Callable[[CompactReader], T]) -> T:
        """Return the result of `parse` for the next bytes.

        Raises:
            IndexError: the footer ends too early.
        """
        start, wanted = self.position, _WINDOW_BYTES
        while True:
            try:
                return parse(self._reader)
            except IndexError:
                if self._offset + len(self._data) >= self._size:
                    raise
            self._load(start, wanted)
            wanted *= 2

    def since(self, position: int) -> bytes:
        """Return the bytes from `position` to the current one; after a single `parse`."""
        return self._data[position - self._offset : self._reader.position]

    def _load(self, offset: int, size: int) -> None:
        size = min(size, self._size - offset)
        self._data = self._read_at(self._start + offset, size)
        if len(self._data) < size:
            raise IndexError("the file ends within its footer")
        self._offset, self._reader = offset, CompactReader(self._data)


def _check(window: _Window, name: str, start: int) -> _Index:
    try:
        return _Checking(window, start).index()
    except (IndexError, KeyError, TypeError, AttributeError, ValueError, OverflowError) as error:
        detail = str(error) if isinstance(error, ValueError) else "it cannot be parsed"
        reason = f"the Parquet footer is damaged: {detail}"
        raise BadInput(name, byte_offset=start, reason=reason) from error


class _Checking:
    """One pass over a footer.

    Args:
        window: a window at the footer's beginning.
        end: the largest offset at which a page of its columns may end.
    """

    def __init__(self, window: _Window, end: int) -> None:
        self._window, self._end = window, end
        self._leaves: list[Leaf] = []
        self._pieces: list[Piece] = []
        self._rows = array("q")

    def index(self) -> _Index:
        """Return the index of the footer; raises many kinds of errors if it is damaged."""
        window, rows, number = self._window, 0, 0
        before: list[bytes] = []
        after: list[bytes] | None = None
        while True:
            at = window.position
            number, kind = window.parse(partial(_field, number))
            found = before if after is None else after
            found.append(window.since(at))
            if not kind:
                break
            wanted, shape = FILE.get(number, (kind, None))
            if kind != wanted:
                raise ValueError(f"field {number} has kind {kind}")
            at = window.position
            if number == ROW_GROUPS:
                if after is not None:
                    raise ValueError("it has two lists of row groups")
                self._check_groups()
                after = []
                continue
            value = window.parse(partial(_value, kind, shape))
            found.append(window.since(at))
            if number == ROWS:
                rows = value
            elif number == SCHEMA:
                self._leaves = list(leaves_of(value))
        if after is None:
            raise ValueError("it has no list of row groups")
        if rows != sum(self._rows):
            raise ValueError(f"there are {rows} rows, and {sum(self._rows)} in its row groups")
        return _Index(
            b"".join(before),
            b"".join(after),
            tuple(self._pieces),
            self._rows,
            len(self._leaves),
        )

    def _check_groups(self) -> None:
        window = self._window
        item, count = window.parse(CompactReader.list_head)
        if item != STRUCT:
            raise ValueError("a list of structs has none")
        at_once = max(1, _PIECE_CHUNKS // max(1, len(self._leaves)))
        for first in range(0, count, at_once):
            start, digest = window.position, blake2b(digest_size=16)
            size = min(at_once, count - first)
            for group in range(first, first + size):
                at = window.position
                fields = window.parse(partial(_value, STRUCT, GROUP))
                digest.update(window.since(at))
                self._rows.append(check_group(group, fields, self._leaves, self._end))
            where = start, window.position - start
            self._pieces.append(Piece(first, size, *where, digest.digest()))


def _field(number: int, reader: CompactReader) -> tuple[int, int]:
    """Return (number, kind) of the next field, from the previous number; kind 0 at the end."""
    return next(reader.fields(number), (0, 0))


def _value(kind: int, shape: Shape | None, reader: CompactReader) -> Any:
    return reader.read(kind, shape)


def _list_head(count: int) -> bytes:
    """Return the head of a list of `count` structs (thrift-compact-protocol.md, List and Set)."""
    if count < _SHORT_LIST:
        return bytes((count << 4 | STRUCT,))
    head = bytearray((0xF0 | STRUCT,))
    while count > 127:
        head.append(count & 127 | 128)
        count >>= 7
    head.append(count)
    return bytes(head)


def _without_arrow_schema(part: bytes) -> bytes:
    return part.replace(_ARROW_SCHEMA, _ARROW_SCHEMA.swapcase())
