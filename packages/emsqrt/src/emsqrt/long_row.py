"""The error of a row that is too long, as those raise it who meet it."""

from __future__ import annotations

from typing import Any, Literal, Self, TypeAlias

from sennit_core.errors import CapTooSmall

Place: TypeAlias = Literal["grant", "beside", "passing", "read", "start", "sink"]
"""Which memory: an operator's own; what is free beside it, once all rows are read or while they
are; a reader's; what was free when the plan was opened; a sink's, beside all others."""

RowNeed: TypeAlias = tuple[int, int, Place]
"""(node, rows, place): the operator's memory there must be so many times as long as any row."""


class LongRow(CapTooSmall):
    """A row is too long for the memory there is; operators that come later need some for it too.

    Args:
        row_bytes: its length.
        place: where the memory was asked.
    """

    def __init__(
        self, *args: Any, row_bytes: int = 0, place: Place = "grant", **fields: Any
    ) -> None:
        super().__init__(*args, **fields)
        self.row_bytes = row_bytes
        self.place = place

    @classmethod
    def met(cls, row_bytes: int, because: str, place: Place = "grant") -> Self:
        """Return the error of who does not know by how much its memory is too small."""
        return cls(cap_bytes=0, needed_bytes=0, because=because, row_bytes=row_bytes, place=place)
