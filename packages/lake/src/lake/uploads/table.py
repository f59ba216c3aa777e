"""The rows of uploads in the namespace `sys`: `/uploads/{id}`, for display."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from elkyn.records import Table
from sennit_core.records import Record

if TYPE_CHECKING:
    from elkyn import ElkynStore

__all__ = ["UploadRow", "UploadTable"]


@dataclass(frozen=True, slots=True)
class UploadRow(Record):
    """The progress of an upload.

    Args:
        name: the file's name.
        size: the file's size in bytes; None while it is unknown.
        bytes_done: the bytes received so far.
        state: `receiving`, `sealed`, `ingesting` or `failed`.
    """

    name: str
    size: int | None
    bytes_done: int
    state: str


class UploadTable(Table[UploadRow]):
    """The uploads.

    Args:
        tree: The namespace `sys`.
    """

    def __init__(self, tree: ElkynStore) -> None:
        super().__init__(tree, "/uploads", UploadRow)
