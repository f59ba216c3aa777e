"""Plain v5 rings: rings whose header another implementation of layout version 5 wrote.

Such a header is the same up to byte 3072, and lacks the extension block with this package's counters.
`read_header` accepts it as it is. Before the first role is acquired, the block is added and its
counters are initialized from the words of version 5; from then on the ring can be used by this
package and by plain v5 readers at the same time.
"""

from __future__ import annotations

import struct
import time

from strand import _native, layout
from strand.errors import NoExtension
from strand.header import has_extension, static_bytes
from strand.mapping import RingMapping

__all__ = ["require_extension"]

_CONTROL = struct.Struct("<7I")  # write, commit, read, status, heap write, heap commit, abort
_CONTROL_AT = 28
_LOCK_WORD = slice(28, 32)  # of the block: written by the lock of a ring in a plain buffer
_POLL_SECONDS = 0.001
_POLLS_MAX = 5000


def require_extension(ring: RingMapping) -> None:
    """Ensure that the ring has the counters that roles need; add them to a plain v5 ring.

    Raises:
        NoExtension: The header has no room for them, or other data is in their place.
    """
    if has_extension(ring.memory):
        return
    lock = ring.segment.lock(layout.EXTENSION_AT)
    try:
        for _ in range(_POLLS_MAX):
            if has_extension(ring.memory):
                return
            _check_room(ring)
            if lock.try_acquire():
                if not has_extension(ring.memory):
                    _add_extension(ring)
                return
            time.sleep(_POLL_SECONDS)  # another process is adding them
    finally:
        lock.release()
    raise NoExtension(expected="counters that another process is adding", found="none after 5 s")


def _check_room(ring: RingMapping) -> None:
    found = struct.unpack_from("<I", ring.memory, layout.EXTENSION_AT)[0]
    if ring.map.version != 5:
        raise NoExtension(expected=hex(layout.EXTENSION_MAGIC), found=hex(found))
    end = static_bytes(ring.memory)
    if end > layout.EXTENSION_AT:
        raise NoExtension(
            expected=f"schema and metadata of a plain v5 ring that end by byte {layout.EXTENSION_AT}",
            found=f"an end at byte {end}",
            hint="read_header() reads such a header; writing and consuming need the bytes after "
            "it, so shorten the metadata where the ring is created",
        )
    block = bytearray(ring.memory[layout.EXTENSION_AT : layout.HEADER_BYTES])
    block[_LOCK_WORD] = bytes(4)
    if any(block) and not has_extension(ring.memory):
        raise NoExtension(
            expected=f"{hex(layout.EXTENSION_MAGIC)}, or zeros after a plain v5 header",
            found=hex(found),
        )


def _add_extension(ring: RingMapping) -> None:
    memory = ring.memory
    _, commit, read, status, _, heap, abort = _CONTROL.unpack_from(memory, _CONTROL_AT)
    # Claimed records that were not committed are dropped, as by every resuming producer.
    struct.pack_into("<4Q", memory, layout.PRODUCER_AT, commit, commit, heap, heap)
    struct.pack_into("<II", memory, layout.STATUS_AT, status, abort)
    low_water = min(layout.read_plain_consumers(memory), default=read)
    struct.pack_into("<Q", memory, layout.JOIN_POSITION_AT, min(low_water, commit))
    # Last: a process that sees the magic also sees the counters.
    _native.store_release(memory, layout.EXTENSION_AT, layout.EXTENSION_MAGIC)
