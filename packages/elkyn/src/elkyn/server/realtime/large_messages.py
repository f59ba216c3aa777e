"""Large messages of sockets: parse the request before its data, and the data in pieces.

The SDKs send `{"t":"d","d":{"r":…,"a":"p","b":{"p":…,"d":…}}}`: number, action and path are in the first
frame of a message, so the rules can refuse a write before the other frames are received.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from elkyn.server.bodies.codec import load
from elkyn.server.bodies.large_bodies import RawJson
from elkyn.server.bodies.scanner import JsonScanner
from elkyn.server.realtime.wire import Message, parse
from elkyn.tree.paths import Path, parse_path
from sennit_core.errors import SennitError, UsageError

__all__ = ["LARGE_CHARS", "Announced", "Unparsed", "parse_large", "try_announced"]

LARGE_CHARS = 64 * 1024
"""Longer messages are parsed on a thread."""

_ENVELOPE_BYTES_MAX = 64 * 1024
# The order of members is that of the SDKs. A message in any other order is received whole and then
# refused or executed like any other: only the early refusal is missed.
_WRITE = re.compile(r'\{"t":"d","d":\{"r":([0-9]{1,15}),"a":"([pm])","b":\{"p":("(?:[^"\\]|\\.)*")')


@dataclass(slots=True)
class Announced:
    """Refuse a write before its data are received, when no rule can allow it."""

    number: int
    kind: Literal["put", "patch"]
    path: Path


@dataclass(slots=True)
class Unparsed:
    """Parse a large message, and execute its request."""

    text: str


def try_announced(frame: str) -> Announced | None:
    """Return the write that the first frame of a message announces; None for any other message."""
    found = _WRITE.match(frame)
    if found is None:
        return None
    try:
        path = parse_path(load(found[3].encode()))
    except (ValueError, SennitError):
        return None
    return Announced(int(found[1]), "put" if found[2] == "p" else "patch", path)


def parse_large(text: str) -> Message:
    """Parse a large message; its data stay a `RawJson`.

    Raises:
        UsageError: the text is not a message of the protocol.
    """
    body = text.encode()
    try:
        start, end = _data_of(body)
    except ValueError:
        raise UsageError("this is not a message of the realtime protocol") from None
    # Number, action and path are parsed as usual; the data wait for `put_large`, which parses in
    # pieces.
    envelope = body[:start] + b"null" + body[end:]
    if len(envelope) > _ENVELOPE_BYTES_MAX:
        raise UsageError("a message is too large apart from its data")
    message = parse(envelope.decode())
    return Message(message.number, message.action, {**message.body, "d": RawJson(body[start:end])})


def _data_of(body: bytes) -> tuple[int, int]:
    """Return where the data of a message begin and end."""
    scanner = JsonScanner(body)
    start: int | None = scanner.skip(0)
    for name in ("d", "b", "d"):
        start = None if start is None else scanner.find_member(start, name)
    if start is None:
        raise ValueError("no data")
    return start, scanner.value_end(start)
