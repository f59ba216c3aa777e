"""Write a segment, block by block."""

from __future__ import annotations

import os
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Self

from emsqrt._kernel import write_block_head
from emsqrt.spill.segment import HEAD_BYTES, Index, Segment
from sennit_core.errors import Closed

if TYPE_CHECKING:
    from typing_extensions import Buffer

    from emsqrt.spill.spilling import SpillManager


class SegmentWriter:
    """A segment being written. `finish` ends it; leaving the context manager before that aborts it.

    An error while writing aborts it too, except a full quota: in that case the block was not
    written, and may be appended again after other segments were removed.
    """

    def __init__(self, spill: SpillManager, name: str, schema_hash: int) -> None:
        self.name = name
        self._spill = spill
        self._schema = schema_hash
        # Random, and the seed of all checksums: a block of another segment, or of an old file of
        # the same name, fails the same test as a flipped bit.
        self._id = int.from_bytes(os.urandom(8), "little")
        self._head = bytearray(HEAD_BYTES)
        self._index = Index()
        self._blocks = self._rows = self._raw = self._size = 0
        self._raw_max = self._stored_max = 0
        self._open = True
        self._sink = spill.store.create(name)

    @property
    def raw_bytes(self) -> int:
        """Bytes appended so far."""
        return self._raw

    @property
    def rows(self) -> int:
        """Rows appended so far."""
        return self._rows

    def append(self, block: Buffer, rows: int) -> None:
        """Write a block of whole rows; its memory may be reused when this returns.

        Args:
            block: the bytes, less than 2 GiB; an empty block is not written.
            rows: the number of rows.
        """
        if not self._open:
            raise Closed(f"segment {self.name}")
        self._spill.check()
        with memoryview(block).cast("B") as raw:
            if len(raw):
                self._spill.pack_and_write(raw, partial(self._put, len(raw), rows))
            elif rows:
                raise ValueError(f"{rows} rows in a block without bytes")

    def finish(self) -> Segment:
        """Write the index and end the segment, which can be opened afterwards."""
        if not self._open:
            raise Closed(f"segment {self.name}")
        segment = Segment(
            name=self.name,
            segment_id=self._id,
            schema_hash=self._schema,
            blocks=self._blocks,
            rows=self._rows,
            raw_bytes=self._raw,
            size_bytes=0,
            blocks_bytes=self._size,
            block_raw_max=self._raw_max,
            block_stored_max=self._stored_max,
        )
        index = self._index.to_bytes(segment)
        # The index is charged too, and written like a block.
        self._spill.grow(self.name, len(index))
        try:
            self._sink.write([memoryview(index)])
            self._sink.finish()
        except BaseException:
            self.abort()
            raise
        self._open = False
        self._spill.stats.written_bytes += len(index)
        self._spill.writer_ended(self, finished=True)
        return replace(segment, size_bytes=self._size + len(index))

    def abort(self) -> None:
        """Remove the segment. Does nothing after `finish` or `abort`."""
        if not self._open:
            return
        self._open = False
        try:
            self._sink.abort()
        finally:
            self._spill.forget(self.name)
            self._spill.writer_ended(self, finished=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.abort()

    def _put(self, raw_bytes: int, rows: int, codec: int, stored: memoryview) -> int:
        size = HEAD_BYTES + len(stored)
        # Before writing: if the quota is used up, nothing was written and the segment is still
        # intact.
        self._spill.grow(self.name, size)
        write_block_head(
            self._head, stored, self._schema, self._id, self._blocks, codec, rows, raw_bytes
        )
        try:
            self._sink.write([memoryview(self._head), stored])
        except BaseException:
            self.abort()  # it is unknown how much was written, so no block may follow
            raise
        # Only after the write: a block that failed is in no total.
        self._index.add(self._blocks, self._size, self._rows)
        self._blocks += 1
        self._rows += rows
        self._raw += raw_bytes
        self._size += size
        self._raw_max = max(self._raw_max, raw_bytes)
        self._stored_max = max(self._stored_max, len(stored))
        return size
