"""A finished segment, and the index at its end.

    block block … block  index  trailer
    block   = head of 64 bytes (docs/spill.md), stored bytes
    index   = (offset, rows before) of blocks
    trailer = the segment's totals and checksums; of a fixed size, so it is found from the end

The index has an entry for each block up to 4,096 blocks, then for every 2nd, 4th, 8th …, so that
writer and reader need at most 64 KiB for it, for a segment of any length.
"""

from __future__ import annotations

import struct
from array import array
from dataclasses import asdict, dataclass
from typing import Any, Self

from emsqrt._kernel import xxh3_64
from emsqrt.spill.errors import SpillDamaged
from emsqrt.spill.store import StoredFile

HEAD_BYTES = 64
ENTRIES_MAX = 4096
_MAGIC = int.from_bytes(b"EMQSIDX\1", "little")
# magic, schema, segment, blocks, rows, raw bytes, longest raw and stored block, stride, entries,
# XXH3 of the index; then XXH3 of all these.
_TRAILER = struct.Struct("<QQQQQQIIIIQ")
TRAILER_BYTES = _TRAILER.size + 8
_ENTRY_BYTES = 16


@dataclass(frozen=True, slots=True)
class Segment:
    """A finished segment: the small metadata that is needed to read it.

    Args:
        name: the name of its file in the store.
        segment_id: 64 random bits, in every block's head.
        schema_hash: the hash of the rows' schema, from the writer.
        blocks: the number of blocks.
        rows: the rows of all blocks.
        raw_bytes: the bytes of all blocks before compression.
        size_bytes: the size of the file.
        blocks_bytes: the size of all blocks with their heads; the index begins there.
        block_raw_max: the longest block; the size that a read buffer needs.
        block_stored_max: the longest block as stored.
    """

    name: str
    segment_id: int
    schema_hash: int
    blocks: int
    rows: int
    raw_bytes: int
    size_bytes: int
    blocks_bytes: int
    block_raw_max: int
    block_stored_max: int

    def to_json(self) -> dict[str, Any]:
        """Return the segment as JSON values, for a manifest that a later run resumes from."""
        return asdict(self)

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> Self:
        """Return the segment that `to_json` described."""
        return cls(**document)


class Index:
    """The offsets of blocks, and the number of rows before each; thinned out as it grows."""

    def __init__(self) -> None:
        self.stride = 1
        self._places = array("Q")

    def add(self, block: int, offset: int, rows_before: int) -> None:
        """Add a block; blocks are added in order."""
        if block % self.stride:
            return
        if len(self) == ENTRIES_MAX:
            # Pairs of (offset, rows): keep every second pair, and from now on every second block of
            # before.
            offsets, rows = self._places[0::4], self._places[1::4]
            self._places = array("Q", (n for pair in zip(offsets, rows, strict=True) for n in pair))
            self.stride *= 2
            if block % self.stride:
                return
        self._places.extend((offset, rows_before))

    def __len__(self) -> int:
        return len(self._places) // 2

    def nearest(self, block: int) -> tuple[int, int, int]:
        """Return (block, offset, rows before) of the last entry that is not after `block`."""
        # Entry n is block n * stride.
        entry = min(block // self.stride, len(self) - 1)
        return entry * self.stride, self._places[2 * entry], self._places[2 * entry + 1]

    def to_bytes(self, segment: Segment) -> bytes:
        """Return index and trailer."""
        entries = self._places.tobytes()
        trailer = _TRAILER.pack(
            _MAGIC,
            segment.schema_hash,
            segment.segment_id,
            segment.blocks,
            segment.rows,
            segment.raw_bytes,
            segment.block_raw_max,
            segment.block_stored_max,
            self.stride,
            len(self),
            xxh3_64(entries, segment.segment_id),
        )
        return entries + trailer + struct.pack("<Q", xxh3_64(trailer, segment.segment_id))

    @classmethod
    def read(cls, source: StoredFile, segment: Segment, place: str) -> Self:
        """Read the index of a segment; SpillDamaged if it is not the one that was written."""
        found, index_bytes, stride, checksum = _read_trailer(source, place, segment)
        if found != segment:
            raise SpillDamaged(f"the index of {place}/{segment.name}", repr(segment), repr(found))
        entries = bytearray(index_bytes)
        source.read_into(segment.blocks_bytes, memoryview(entries))
        index = cls()
        index.stride = stride
        index._places.frombytes(entries)
        if xxh3_64(entries, segment.segment_id) != checksum:
            raise SpillDamaged(f"the index of {place}/{segment.name}")
        return index


def read_segment(source: StoredFile, place: str, name: str, size_bytes: int) -> Segment:
    """Return the segment of a file, from its trailer alone; for a run that is resumed."""
    # Of a segment of an earlier process only the name and the size are known.
    empty = Segment(name, 0, 0, 0, 0, 0, size_bytes, 0, 0, 0)
    return _read_trailer(source, place, empty)[0]


def _read_trailer(
    source: StoredFile, place: str, segment: Segment
) -> tuple[Segment, int, int, int]:
    """Return (segment, bytes of the index, its stride, its checksum), after plausibility checks."""
    if segment.size_bytes < TRAILER_BYTES:
        raise SpillDamaged(f"the end of {place}/{segment.name}", f"{TRAILER_BYTES} bytes")
    # The trailer has a fixed size at the end of the file, and says how long the index before it is.
    trailer = bytearray(TRAILER_BYTES)
    source.read_into(segment.size_bytes - TRAILER_BYTES, memoryview(trailer))
    magic, schema, ident, blocks, rows, raw, raw_max, stored_max, stride, entries, checksum = (
        _TRAILER.unpack_from(trailer)
    )
    index_bytes = entries * _ENTRY_BYTES
    blocks_bytes = segment.size_bytes - TRAILER_BYTES - index_bytes
    # Checked before the index is read: `entries` decides how much memory it needs.
    sound = (
        magic == _MAGIC
        and struct.unpack_from("<Q", trailer, _TRAILER.size)[0]
        == xxh3_64(trailer[: _TRAILER.size], ident)
        and stride > 0
        and entries == -(-blocks // stride) <= ENTRIES_MAX
        and blocks_bytes >= blocks * HEAD_BYTES
    )
    if not sound:
        raise SpillDamaged(f"the end of {place}/{segment.name}")
    found = Segment(
        segment.name,
        ident,
        schema,
        blocks,
        rows,
        raw,
        segment.size_bytes,
        blocks_bytes,
        raw_max,
        stored_max,
    )
    return found, index_bytes, stride, checksum
