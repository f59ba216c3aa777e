"""Rings whose header another implementation of layout version 5 wrote.

Such a header agrees with ours up to byte 3072, and has nothing where our counters are. Reading it
needs no more than that. Before the first role is taken, the counters are filled in from the words
that version 5 defines; from then on the ring is one of ours, and its plain readers are served.
"""

from __future__ import annotations

import struct
import time
from typing import TYPE_CHECKING

from strand import _native, layout
from strand.errors import NoExtension
from strand.header import has_extension, static_bytes

if TYPE_CHECKING:
    from strand.ring import Ring

__all__ = ["require_extension"]

_CONTROL = struct.Struct("<7I")  # write, commit, read, status, heap write, heap commit, abort
_CONTROL_AT = 28
_LOCK_WORD = slice(28, 32)  # of the block: written by the lock of a ring in a plain buffer
_LOOK_SECONDS = 0.001
_LOOKS_MAX = 5000


def require_extension(ring: Ring) -> None:
    """Return once the ring has the counters that roles need, adding them to a plain v5 ring.

    Raises:
        NoExtension: The header has no room for them, or something else is in their place.
    """
    if has_extension(ring.memory):
        return
    lock = ring.segment.lock(layout.EXTENSION_AT)
    try:
        for _ in range(_LOOKS_MAX):
            if has_extension(ring.memory):
                return
            _check_room(ring)
            if lock.try_acquire():
                if not has_extension(ring.memory):
                    _add_extension(ring)
                return
            time.sleep(_LOOK_SECONDS)  # another process is adding them
    finally:
        lock.release()
    raise NoExtension(expected="counters that another process is adding", found="none after 5 s")


def _check_room(ring: Ring) -> None:
    found = struct.unpack_from("<I", ring.memory, layout.EXTENSION_AT)[0]
    if ring.map.version != 5:
        raise NoExtension(expected=hex(layout.EXTENSION_MAGIC), found=hex(found))
    end = static_bytes(ring.memory)
    if end > layout.EXTENSION_AT:
        raise NoExtension(
            expected=f"schema and metadata of a plain v5 ring that end by byte {layout.EXTENSION_AT}",
            found=f"an end at byte {end}",
            hint="read_header() reads such a header; writing and consuming need the bytes behind "
            "it, so shorten the metadata where the ring is made",
        )
    block = bytearray(ring.memory[layout.EXTENSION_AT : layout.HEADER_BYTES])
    block[_LOCK_WORD] = bytes(4)
    if any(block) and not has_extension(ring.memory):
        raise NoExtension(
            expected=f"{hex(layout.EXTENSION_MAGIC)}, or zeros behind a plain v5 header",
            found=hex(found),
        )


def _add_extension(ring: Ring) -> None:
    memory = ring.memory
    _, commit, read, status, _, heap, abort = _CONTROL.unpack_from(memory, _CONTROL_AT)
    # What was claimed and not committed is dropped, as by every producer that takes over.
    struct.pack_into("<4Q", memory, layout.PRODUCER_AT, commit, commit, heap, heap)
    struct.pack_into("<II", memory, layout.STATUS_AT, status, abort)
    low_water = min(layout.read_plain_consumers(memory), default=read)
    struct.pack_into("<Q", memory, layout.JOIN_POSITION_AT, min(low_water, commit))
    # Last: who sees the magic sees the counters.
    _native.store_release(memory, layout.EXTENSION_AT, layout.EXTENSION_MAGIC)
