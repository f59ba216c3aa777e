"""Control frames between a pool and its executor processes, over a socket pair.

A frame is a u32 length (little-endian) and a MessagePack map with a member `word`; the words are
those of the worker protocol:

```
executor -> pool   hello{version, pid}   loaded{attempt}   renew{attempt, progress}
                   bytes{attempt, payloads}   ring{attempt} + its descriptor
                   partial{attempt, result, payloads}   failed{attempt, error}
                   credit{memoryBytes, keepsCache}   prepared{entry, memoryBytes}
pool -> executor   task{attempt, name, entry, request, capBytes, deadlineSeconds, spillDir,
                   ringBytes}   cancel{attempt, reason}   prepare{entry}   drain{}
```

A small answer travels here, most often in `partial` alone. A larger one continues, after the
`bytes` frames, in a Strand ring that the executor creates (`emsqrt.executor.payload_sender`).
"""

from __future__ import annotations

import struct
from typing import Any

import ormsgpack

from sennit_core.errors import Corrupt, TooLarge

VERSION = 3
FRAME_BYTES_MAX = 16 << 20
_LENGTH = struct.Struct("<I")

Frame = dict[str, Any]

MEMBERS: dict[str, frozenset[str]] = {
    "hello": frozenset({"version", "pid"}),
    "loaded": frozenset({"attempt"}),
    "renew": frozenset({"attempt", "progress"}),
    "bytes": frozenset({"attempt", "payloads"}),
    "ring": frozenset({"attempt"}),
    "partial": frozenset({"attempt", "result", "payloads"}),
    "failed": frozenset({"attempt", "error"}),
    "credit": frozenset({"memoryBytes", "keepsCache"}),
    "prepared": frozenset({"entry", "memoryBytes"}),
    "task": frozenset(
        {
            "attempt",
            "name",
            "entry",
            "request",
            "capBytes",
            "deadlineSeconds",
            "spillDir",
            "ringBytes",
        }
    ),
    "cancel": frozenset({"attempt", "reason"}),
    "prepare": frozenset({"entry"}),
    "drain": frozenset(),
}


def encode_frame(word: str, **members: Any) -> bytes:
    """Return one frame, ready to send.

    Raises:
        TypeError: a member has a type that MessagePack cannot encode.
        TooLarge: the frame is over 16 MiB; large things go through the ring or a file.
    """
    assert MEMBERS[word] == members.keys(), f"{word} has {sorted(MEMBERS[word])}"
    body = ormsgpack.packb({"word": word, **members})
    if len(body) > FRAME_BYTES_MAX:
        raise TooLarge(what=f"a {word} frame", limit_bytes=FRAME_BYTES_MAX, actual_bytes=len(body))
    return _LENGTH.pack(len(body)) + body


class FrameReader:
    """Decode received bytes into frames, however they were split."""

    def __init__(self) -> None:
        self._held = bytearray()

    def feed(self, data: bytes) -> list[Frame]:
        """Add received bytes and return the frames that they complete.

        Raises:
            Corrupt: a length over the limit, or an invalid body.
        """
        self._held += data
        frames = []
        while len(self._held) >= _LENGTH.size:
            (size,) = _LENGTH.unpack_from(self._held)
            if size > FRAME_BYTES_MAX:
                raise Corrupt("a control frame", f"at most {FRAME_BYTES_MAX} bytes", f"{size}")
            end = _LENGTH.size + size
            if len(self._held) < end:
                break
            frames.append(_decode(bytes(self._held[_LENGTH.size : end])))
            del self._held[:end]
        return frames


def _decode(body: bytes) -> Frame:
    try:
        frame = ormsgpack.unpackb(body)
    except ValueError as error:
        raise Corrupt("a control frame", "MessagePack", str(error)) from error
    word = frame.get("word") if isinstance(frame, dict) else None
    expected = MEMBERS.get(word) if isinstance(word, str) else None
    if expected is None or frame.keys() != expected | {"word"}:
        raise Corrupt("a control frame", "a known word with its members", repr(frame)[:200])
    return frame  # type: ignore[no-any-return]
