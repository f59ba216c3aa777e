"""The rows of uploads in the namespace `sys`.

/uploads/{id}       the progress of an upload, for display
/tus/{id}           a whole upload of tus, also after its ingest has removed it
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from elkyn.records import CheckedTable, Table
from sennit_core.records import Record

if TYPE_CHECKING:
    from elkyn import ElkynStore

__all__ = ["FinishedRow", "FinishedTable", "UploadRow", "UploadTable"]


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


@dataclass(frozen=True, slots=True)
class FinishedRow(Record):
    """An upload of tus that has all its bytes: a client that missed the last response asks for it.

    Args:
        size: Its bytes.
        dataset: Id of the dataset of its ingest.
        job: The ingest's job; empty until it was submitted.
        ended_at: Unix seconds.
        metadata: The header Upload-Metadata of its creation.
        sources: The uploads that it was concatenated of.
    """

    size: int
    dataset: str
    job: str
    ended_at: float
    metadata: str = ""
    sources: tuple[str, ...] = ()


class FinishedTable(CheckedTable[FinishedRow]):
    """The whole uploads of tus.

    Args:
        tree: The namespace `sys`.
    """

    def __init__(self, tree: ElkynStore) -> None:
        super().__init__(tree, "/tus", FinishedRow)

    def sweep(self, before: float) -> None:
        """Remove those that ended before a time, in Unix seconds."""
        for upload_id, row in self.all().items():
            if row.ended_at < before:
                self.remove(upload_id)
