"""Messages between peers, and their form on the wire.

    frame = u32 length of the head, little-endian | head, MessagePack | body

The head is a map: `t` is the kind of the message, the rest are its members in camelCase. Bytes, such as
a chunk, travel in the body. A member that this version does not know is ignored, and so is a message of
an unknown kind, so that a newer node can talk to an older one.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import ormsgpack

from sennit_core.errors import BadInput, UsageError
from sennit_core.records import Record
from sennit_core.units import KIB, MIB

__all__ = ["BODY_BYTES_MAX", "HEAD_BYTES_MAX", "Message", "MessageCodec"]

HEAD_BYTES_MAX = 256 * KIB
BODY_BYTES_MAX = MIB
"""As much as one chunk of an object; results of queries are cut into such pieces."""
_LENGTH = struct.Struct("<I")
_KIND = "t"


@dataclass(frozen=True, slots=True)
class Message(Record):
    """Base class of messages, which are records with a kind."""

    kind: ClassVar[str] = ""


class MessageCodec:
    """Encodes and decodes the messages of some kinds.

    Args:
        kinds: The classes.
    """

    def __init__(self, kinds: Iterable[type[Message]]) -> None:
        self._kinds: dict[str, type[Message]] = {}
        for each in kinds:
            assert each.kind, f"{each.__name__} has no kind"
            assert each.kind not in self._kinds, f"kind {each.kind!r} is there twice"
            self._kinds[each.kind] = each

    def encode(
        self, message: Message, body: bytes | memoryview = b"", **envelope: int | bool
    ) -> bytes:
        """Return a frame.

        Args:
            message: The message.
            body: Its bytes.
            envelope: Further members of the head, which `decode` returns apart.
        """
        head = ormsgpack.packb({_KIND: message.kind, **envelope, "m": message.to_json()})
        assert len(head) <= HEAD_BYTES_MAX, f"a head of {len(head)} bytes is cut by its sender"
        return b"".join((_LENGTH.pack(len(head)), head, body))

    def decode(
        self, frame: bytes | memoryview
    ) -> tuple[Message | None, memoryview, Mapping[str, Any]]:
        """Return the message of a frame, its body, and the members of its envelope.

        The message is None if its kind is not known.

        Raises:
            BadInput: The frame is not one, or is too large.
        """
        view = memoryview(frame)
        if len(view) < _LENGTH.size:
            raise BadInput("a frame of a peer", reason=f"it has {len(view)} bytes")
        (length,) = _LENGTH.unpack_from(view)
        body = view[_LENGTH.size + length :]
        if length > HEAD_BYTES_MAX or _LENGTH.size + length > len(view):
            raise BadInput("a frame of a peer", reason=f"its head has {length} bytes")
        if len(body) > BODY_BYTES_MAX:
            raise BadInput("a frame of a peer", reason=f"its body has {len(body)} bytes")
        try:
            head = ormsgpack.unpackb(view[_LENGTH.size : _LENGTH.size + length])
        except ValueError as error:
            raise BadInput("a frame of a peer", reason=str(error)) from error
        if not isinstance(head, dict) or not isinstance(head.get(_KIND), str):
            raise BadInput("a frame of a peer", reason="its head names no kind of message")
        members = head.pop("m", {})
        known = self._kinds.get(head.pop(_KIND))
        try:
            return None if known is None else known.from_known(members), body, head
        except UsageError as error:
            raise BadInput("a message of a peer", reason=str(error)) from error
