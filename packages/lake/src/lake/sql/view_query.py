"""A view as a query's request lists it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["ViewQuery"]


@dataclass(frozen=True)
class ViewQuery:
    """A view's query.

    Args:
        sql: The text.
        columns: Names for its first columns.
        reads: The names in it, once for each occurrence.
        shown: Whether errors may quote it: the user may see the whole of what it reads.
        damaged: Why it cannot be used; None if it can.
    """

    sql: str
    columns: tuple[str, ...]
    reads: tuple[str, ...]
    shown: bool
    damaged: str | None = None

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> ViewQuery:
        """Read the form of executor requests (`lake.views.access.view_tables`)."""
        return cls(
            data["sql"],
            tuple(data["columns"]),
            tuple(data["reads"]),
            data["shown"],
            data["damaged"],
        )
