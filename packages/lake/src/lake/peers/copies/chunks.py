"""The messages that transfer an object: its list of chunk hashes, and its chunks."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

from lake.peers.transport.messages import BODY_BYTES_MAX, Message
from sennit_core.errors import UsageError
from sennit_core.hashing import object_id

__all__ = ["MESSAGES", "Chunk", "ChunkRequest", "ListReply", "ListRequest", "read_list"]

_DIGEST_BYTES = 32


@dataclass(frozen=True, slots=True)
class ListRequest(Message):
    """Asks for the chunk hashes of an object of a dataset, which earlier versions do not name."""

    kind: ClassVar[str] = "list"
    object: str
    dataset: str = ""


@dataclass(frozen=True, slots=True)
class ListReply(Message):
    """The chunk hashes of an object, 32 bytes each, in the body.

    Args:
        size: Bytes of the object.
        chunk_bytes: Bytes of each chunk but the last.
    """

    kind: ClassVar[str] = "list-reply"
    size: int
    chunk_bytes: int


@dataclass(frozen=True, slots=True)
class ChunkRequest(Message):
    """Asks for one chunk of an object of a dataset, which earlier versions do not name.

    Args:
        object: The object.
        index: Of the chunk.
        dataset: The dataset.
        background: Whether no query or user waits for it; a sender limits what is urgent.
        doubted: Whether the peer has sent it and it was wrong. A peer need not verify what the receiver
            does, but then it finds no damage of its own disk: so it verifies a doubted chunk.
    """

    kind: ClassVar[str] = "chunk"
    object: str
    index: int
    dataset: str = ""
    background: bool = False
    doubted: bool = False


@dataclass(frozen=True, slots=True)
class Chunk(Message):
    """A chunk, in the body."""

    kind: ClassVar[str] = "chunk-reply"


MESSAGES: tuple[type[Message], ...] = (ListRequest, ListReply, ChunkRequest, Chunk)


def read_list(name: str, reply: Message, body: bytes | memoryview) -> tuple[str, ...] | None:
    """Return the chunk hashes of an answer; None if they are not those of the object."""
    if not isinstance(reply, ListReply) or len(body) % _DIGEST_BYTES:
        return None
    starts: Iterable[int] = range(0, len(body), _DIGEST_BYTES)
    digests = tuple(body[at : at + _DIGEST_BYTES].hex() for at in starts)
    # A chunk must fit one message.
    if not 0 < reply.chunk_bytes <= BODY_BYTES_MAX:
        return None
    try:
        found = object_id(reply.size, reply.chunk_bytes, digests)
    except UsageError:
        return None
    return digests if found == name else None
