"""A cursor over typed records: seek, then get fields by name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sennit_core.errors import UsageError
from strand.layout import HEADER_BYTES
from strand.rows import RowDecoder

if TYPE_CHECKING:
    from strand.view import StrandView

__all__ = ["RecordCursor"]


class RecordCursor:
    """Points at one record of a ring; allocate it once and seek as you go.

    Values of `bytes` and array fields are views into the ring: they are good until the record is
    acknowledged. Decoded strings and JSON are kept for the record under the cursor.
    """

    __slots__ = ("_cache", "_decoder", "_records", "_schema", "_slot", "_stride", "_view", "seq")

    seq: int
    """The record under the cursor; -1 before the first."""

    def __init__(self, view: StrandView, decoder: RowDecoder) -> None:
        """Use `StrandView.allocate_cursor()`."""
        header = view.header
        self._view = view
        self._decoder = decoder
        self._schema = header.schema
        self._records = header.records
        self._stride = header.slots.stride
        self._cache: dict[str, Any] = {}
        self._slot = 0
        self.seq = -1

    def seek(self, seq: int) -> bool:
        """Move to record `seq`.

        False, and no move, when it is not committed yet or was acknowledged, so that the producer
        may be overwriting it.
        """
        if not self._view.acknowledged_count <= seq < self._view.committed_count:
            return False
        self.seq = seq
        self._slot = HEADER_BYTES + (seq & (self._records - 1)) * self._stride
        self._cache.clear()
        return True

    def get(self, name: str) -> Any:
        """Return a field of the record under the cursor, None when it is null.

        Raises:
            UnknownColumn: no field of that name.
            UsageError: no record sought, or it was acknowledged since.
        """
        if self.seq < self._view.acknowledged_count:
            raise UsageError(
                "seek a record before reading it"
                if self.seq < 0
                else f"record {self.seq} was acknowledged and may be overwritten"
            )
        if name in self._cache:
            return self._cache[name]
        value = self._decoder.decode(self._slot, self._schema.position(name))
        self._cache[name] = value
        return value

    def to_tuple(self) -> tuple[Any, ...]:
        """Return all fields in order."""
        return tuple(self.get(name) for name in self._schema.names)
