"""Read a segment back, block by block; every byte is verified before a block is returned."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

from emsqrt._kernel import open_block, read_block_head, xxh3_64
from emsqrt.spill.compression import RAW, ZSTD
from emsqrt.spill.errors import SpillDamaged
from emsqrt.spill.segment import HEAD_BYTES, Index, Segment
from sennit_core.errors import Closed

if TYPE_CHECKING:
    from typing_extensions import Buffer

    from emsqrt.spill.spilling import SpillManager

_Head = tuple[int, int, int, int, int, int, int]


class SegmentReader:
    """A segment being read, from its first block or from the position of `seek`. Close it."""

    def __init__(self, spill: SpillManager, segment: Segment, scratch: memoryview | None) -> None:
        self.segment = segment
        self._spill = spill
        self._scratch = scratch
        # State:
        #
        #     _block, _offset   number and position of the next block
        #     _next             its head, once it was read (by `next_bytes` or `read_into`)
        #     _index            read by the first `seek`; reading from start to end needs none
        self._head = bytearray(HEAD_BYTES)
        self._next: _Head | None = None
        self._index: Index | None = None
        self._block = self._offset = 0
        self._source = spill.store.open(segment.name, segment.size_bytes)
        self._open = True

    @property
    def next_block(self) -> int:
        """The number of the next block; `segment.blocks` at the end."""
        return self._block

    def next_bytes(self) -> int:
        """Return how many bytes `read_into` will put into its buffer; 0 at the end."""
        head = self._peek()
        return 0 if head is None else head[4]

    def read_into(self, buffer: Buffer) -> tuple[int, int]:
        """Read the next block into the start of the buffer.

        Args:
            buffer: writable, at least `next_bytes()` long; `segment.block_raw_max` always suffices.

        Returns:
            (bytes, rows), or (0, 0) at the end.
        """
        self._spill.check()
        head = self._peek()
        if head is None:
            return 0, 0
        _, _, codec, rows, raw_bytes, stored_bytes, _ = head
        with memoryview(buffer).cast("B") as whole:
            if len(whole) < raw_bytes:
                raise ValueError(f"a block of {raw_bytes} bytes is read into {len(whole)}")
            # A raw block is read to where it is wanted, without a copy, and verified there.
            target = whole[:raw_bytes]
            if codec == RAW:
                self._source.read_into(self._offset + HEAD_BYTES, target)
                self._check(target, target)
            elif self._scratch is not None:
                self._unpack(head, self._scratch, target)
            else:
                # Readers of several threads share the manager's scratch: held from reading the
                # block to unpacking it.
                with self._spill.scratch_lock:
                    self._unpack(head, self._spill.scratch(stored_bytes), target)
        self._pass(stored_bytes)
        self._spill.was_read(raw_bytes)
        return raw_bytes, rows

    def seek(self, block: int) -> None:
        """Move to a block, by the index; `segment.blocks` is the end."""
        if not 0 <= block <= self.segment.blocks:
            raise ValueError(f"segment {self.segment.name} has {self.segment.blocks} blocks")
        self._next = None
        if block == self.segment.blocks:
            self._block, self._offset = block, self.segment.blocks_bytes
            return
        if self._index is None:
            self._index = Index.read(self._source, self.segment, self._spill.place)
        self._block, self._offset, _ = self._index.nearest(block)
        # The index has every n-th block only; the heads in between say how long their blocks are.
        while self._block < block:
            head = self._peek()
            assert head is not None, "the block is before the end"
            self._pass(head[5])

    def close(self) -> None:
        """Close the file. May be called twice."""
        if self._open:
            self._open = False
            self._source.close()
            self._spill.reader_ended(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _peek(self) -> _Head | None:
        """Return the next block's head, read once and compared with the segment's metadata."""
        if not self._open:
            raise Closed(f"segment {self.segment.name}")
        if self._block == self.segment.blocks:
            return None
        if self._next is None:
            self._source.read_into(self._offset, memoryview(self._head))
            try:
                head = read_block_head(self._head, self.segment.segment_id)
            except ValueError as error:
                raise self._damaged(str(error)) from error
            schema, number, _, _, raw_bytes, stored_bytes, _ = head
            # The head's checksum is right, so the block is as it was written. It must also be the
            # next block of this segment, and fit buffers of the sizes in the segment's totals.
            end = self._offset + HEAD_BYTES + stored_bytes
            if (schema, number) != (self.segment.schema_hash, self._block) or (
                end > self.segment.blocks_bytes or raw_bytes > self.segment.block_raw_max
            ):
                raise self._damaged(f"block {number} of schema {schema:016x}")
            self._next = head
        return self._next

    def _unpack(self, head: _Head, scratch: memoryview, target: memoryview) -> None:
        _, _, codec, _, raw_bytes, stored_bytes, checksum = head
        if len(scratch) < stored_bytes:
            raise ValueError(f"a stored block of {stored_bytes} bytes needs more scratch memory")
        stored = scratch[:stored_bytes]
        self._source.read_into(self._offset + HEAD_BYTES, stored)
        # The kernel checks and unpacks LZ4 in one step; Zstandard is unpacked by a library, after
        # the check.
        if codec != ZSTD:
            self._check(stored, target)
            return
        if xxh3_64(stored, self.segment.segment_id) != checksum:
            raise self._damaged("other bytes")
        made = self._spill.zstd().decompress(stored, raw_bytes)
        if len(made) != raw_bytes:
            raise self._damaged(f"{len(made)} bytes")
        target[:] = made

    def _check(self, stored: memoryview, target: memoryview) -> None:
        try:
            open_block(self._head, self.segment.segment_id, stored, target)
        except ValueError as error:
            raise self._damaged(str(error)) from error

    def _pass(self, stored_bytes: int) -> None:
        self._offset += HEAD_BYTES + stored_bytes
        self._block += 1
        self._next = None

    def _damaged(self, found: str) -> SpillDamaged:
        what = f"block {self._block} of spilled segment {self.segment.name}"
        return SpillDamaged(f"{what} in {self._spill.place}", found=found)
