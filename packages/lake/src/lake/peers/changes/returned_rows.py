"""Rows of RETURNING of changes that this node has made for others, until their senders have read them.

They are not written with the commit: a writer that restarts, or that has too many, has them no more. Its
reply to a repetition then has the number of rows alone.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from lake.peers.transport.messages import BODY_BYTES_MAX, Message
from sennit_core.errors import BadInput, NotFound
from sennit_core.ids import is_id, new_id
from sennit_core.private_files import make_private_folder
from sennit_core.units import MIB

__all__ = [
    "MESSAGES",
    "RETURNED_BYTES_MAX",
    "KeptRows",
    "ReturnedPiece",
    "ReturnedRequest",
    "ReturnedResults",
]

RETURNED_BYTES_MAX = 32 * MIB
_KEPT_SECONDS = 600.0
_KEPT_MAX = 32
_OF_NODE_MAX = 8


@dataclass(frozen=True, slots=True)
class ReturnedRequest(Message):
    """Asks for a piece of the rows that a change returns.

    Args:
        id: The change's.
        offset: Where the piece begins; at the end of the rows, they are not needed any more.
    """

    kind: ClassVar[str] = "returned"
    id: str
    offset: int


@dataclass(frozen=True, slots=True)
class ReturnedPiece(Message):
    """Bytes of the rows, in the body."""

    kind: ClassVar[str] = "returned-piece"


MESSAGES: tuple[type[Message], ...] = (ReturnedRequest, ReturnedPiece)


@dataclass(frozen=True, slots=True)
class KeptRows:
    """Rows in a file of this node.

    Args:
        node: The sender of the change.
        place: The file.
        bytes: The size of their Arrow IPC stream.
        kept_at: When they were written, in seconds that never run backwards.
    """

    node: str
    place: Path
    bytes: int
    kept_at: float


class ReturnedResults:
    """The rows that are kept; its methods, apart from `read`, are called in one event loop.

    Args:
        staging: Folder for the files, which is emptied at the start of a process.
    """

    def __init__(self, staging: Path) -> None:
        self._staging = staging
        # By the key of the change, the oldest first.
        self._kept: dict[str, KeptRows] = {}

    def place(self) -> Path:
        """Return a new file's path."""
        return make_private_folder(self._staging) / f"returned-{new_id()}.arrow"

    def keep(self, key: str, rows: KeptRows) -> None:
        """Keep the rows of a change, instead of the oldest ones if there are too many."""
        of_node = [each for each, kept in self._kept.items() if kept.node == rows.node]
        if len(of_node) >= _OF_NODE_MAX:
            self.drop(of_node[0])
        elif len(self._kept) >= _KEPT_MAX:
            self.drop(next(iter(self._kept)))
        self._kept[key] = rows

    def find(self, key: str) -> int | None:
        """Return the size of what is kept of a change; None if nothing is."""
        found = self._kept.get(key)
        return None if found is None else found.bytes

    def drop(self, key: str) -> None:
        """Remove the rows of a change."""
        found = self._kept.pop(key, None)
        if found is not None:
            with suppress(OSError):  # the next start removes it
                found.place.unlink(missing_ok=True)

    def sweep(self, now: float) -> None:
        """Remove rows that were not read in time."""
        for key, kept in list(self._kept.items()):
            if now - kept.kept_at > _KEPT_SECONDS:
                self.drop(key)

    def read(self, key: str, request: ReturnedRequest) -> bytes:
        """Return a piece of the rows of a change; b"" after the last one.

        Raises:
            BadInput: A member is out of range.
            NotFound: They are not kept any more.
        """
        if not is_id(request.id) or request.offset < 0:
            raise BadInput("a request for returned rows", reason="a member is out of range")
        found = self._kept.get(key)
        if found is None:
            raise NotFound("rows of a change", request.id, suggestion=None)
        try:
            with found.place.open("rb") as file:
                file.seek(request.offset)
                return file.read(BODY_BYTES_MAX)
        except OSError:
            raise NotFound("rows of a change", request.id, suggestion=None) from None
