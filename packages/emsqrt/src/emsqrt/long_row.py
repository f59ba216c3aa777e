"""The error for a row that is too long, raised by the operator, reader or sink that meets it."""

from __future__ import annotations

from typing import Any, Literal, Self, TypeAlias

from sennit_core.errors import CapTooSmall

MemoryKind: TypeAlias = Literal["grant", "free", "passing", "read", "start", "sink"]
"""Which memory was too small: an operator's grant ("grant"); what is free outside the grants once
all rows are read ("free") or while they are read ("passing"); a reader's ("read"); what was free
when the plan was opened ("start"); a sink's, in addition to all others ("sink")."""

RowNeed: TypeAlias = tuple[int, int, MemoryKind]
"""(node, rows, memory): that memory of the operator must hold `rows` rows of any length."""


class LongRow(CapTooSmall):
    """A row is too long for the memory; later operators need memory for it too.

    Args:
        row_bytes: its length.
        memory: which memory was too small.
    """

    def __init__(
        self, *args: Any, row_bytes: int = 0, memory: MemoryKind = "grant", **fields: Any
    ) -> None:
        super().__init__(*args, **fields)
        self.row_bytes = row_bytes
        self.memory = memory

    @classmethod
    def met(cls, row_bytes: int, because: str, memory: MemoryKind = "grant") -> Self:
        """Return the error for an operator that does not know how many bytes are missing."""
        return cls(cap_bytes=0, needed_bytes=0, because=because, row_bytes=row_bytes, memory=memory)
