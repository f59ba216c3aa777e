"""Offsets of the header's words (spec/strand-wire.md), and access to those that Python uses.

The C core updates the counters. Python writes the holders of roles and the reason of an abort.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any

__all__ = ["CONSUMER_COUNT", "HEADER_BYTES", "ConsumerWords", "consumer_entry_at"]

MAGIC = 0x5354524E
EXTENSION_MAGIC = 0x53454E36
HEADER_BYTES = 4096
SCHEMA_LENGTH_AT, SCHEMA_AT = 88, 92
METADATA_END = 3072
EXTENSION_AT, PRODUCER_AT, SLEEP_AT, CONSUMERS_AT = 3072, 3136, 3200, 3264
GENERATION_AT, STALLS_AT, STATUS_AT, JOIN_POSITION_AT = 3096, 3184, 3208, 3224
CONSUMER_BYTES, CONSUMER_COUNT = 64, 8
PRODUCER_BELL_AT, CONSUMER_BELL, BELL_BYTES = 3216, 32, 4
REASON_AT, REASON_BYTES_MAX = 3776, 316  # to the end of the header
# A v5 consumer slot without a reader. A v5 stream ends at this many records, so the only position
# that looks vacant is its last one, after which there is nothing to read.
VACANT = 0x7FFFFFFF
CAPACITY_MAX = 1 << 31  # the highest power of two that the header's u32 holds

STATE_VACANT, STATE_ATTACHED, STATE_LEFT = 0, 1, 2
INITIALIZING, STREAMING, EOS, ERROR = 0, 1, 2, 3

BLOCK_POINTER = struct.Struct("<QI")  # a v6 heap pointer: offset, length; its last u32 stays zero
# One consumer's entry: read, threshold, pid, state, start ticks, bell, lock word, sleeps, rings.
_CONSUMER = struct.Struct("<QQIIQII2Q")


@dataclass(frozen=True)
class ConsumerWords:
    """The words of one consumer's entry at the time of reading."""

    index: int
    read: int
    threshold: int
    pid: int
    state: int
    start_ticks: int
    sleeps: int
    rings: int


def consumer_entry_at(index: int) -> int:
    """Return the byte offset of consumer entry `index`, which is also its role byte."""
    return CONSUMERS_AT + CONSUMER_BYTES * index


def read_consumer(memory: Any, index: int) -> ConsumerWords:
    """Return the words of consumer entry `index`."""
    # Not atomic as a whole: a word may be newer than its neighbour. A process that changes the entry
    # because of what it reads here holds the entry's lock.
    words = _CONSUMER.unpack_from(memory, consumer_entry_at(index))
    read, threshold, pid, state, start_ticks, _bell, _lock, sleeps, rings = words
    return ConsumerWords(index, read, threshold, pid, state, start_ticks, sleeps, rings)


def read_consumers(memory: Any) -> list[ConsumerWords]:
    """Return the words of all eight entries."""
    return [read_consumer(memory, index) for index in range(CONSUMER_COUNT)]


def read_plain_consumers(memory: Any) -> list[int]:
    """Return the position of each plain v5 reader, from the v5 part of the header."""
    return [read for read in struct.unpack_from("<8I", memory, 56) if read != VACANT]


def low_water_of(entries: list[ConsumerWords]) -> int:
    """Return the low-water mark of the entries, by the rule of `strand_low_water`."""
    attached = [entry.read for entry in entries if entry.state == STATE_ATTACHED]
    if attached:
        return min(attached)
    return max((entry.read for entry in entries if entry.state == STATE_LEFT), default=0)


def name_holder(memory: Any, at: int, pid: int, start_ticks: int) -> None:
    """Write the holder of the role whose byte is `at`, for error messages and inspection."""
    if at == PRODUCER_AT:
        struct.pack_into("<I", memory, PRODUCER_AT + 32, pid)
        struct.pack_into("<Q", memory, PRODUCER_AT + 40, start_ticks)
    else:
        struct.pack_into("<I", memory, at + 16, pid)
        struct.pack_into("<Q", memory, at + 24, start_ticks)


def holder_of(memory: Any, at: int) -> tuple[int, int]:
    """Return pid and start time of the last holder of the role whose byte is `at`."""
    if at == EXTENSION_AT:  # the creator, written with the header
        return struct.unpack_from("<IQ", memory, EXTENSION_AT + 4)
    pid_at, start_at = (32, 40) if at == PRODUCER_AT else (16, 24)
    pid = struct.unpack_from("<I", memory, at + pid_at)[0]
    return pid, struct.unpack_from("<Q", memory, at + start_at)[0]


def read_status(memory: Any) -> tuple[int, bool]:
    """Return the status word, and whether an abort was requested."""
    status, aborted = struct.unpack_from("<II", memory, STATUS_AT)
    return status, aborted != 0


def write_reason(memory: Any, reason: str) -> None:
    """Store the reason of an abort, cut to REASON_BYTES_MAX bytes."""
    # Cut between characters: decoding drops a cut one. The status is set after this, with release
    # order, so a consumer that sees it also sees the text.
    text = reason.encode(errors="replace")[:REASON_BYTES_MAX].decode(errors="ignore").encode()
    memory[REASON_AT + 4 : REASON_AT + 4 + len(text)] = text
    struct.pack_into("<I", memory, REASON_AT, len(text))


def read_reason(memory: Any) -> str:
    """Return the reason of an abort, or an empty string."""
    # another process wrote the length: it must not lead beyond the header
    size = min(struct.unpack_from("<I", memory, REASON_AT)[0], REASON_BYTES_MAX)
    return bytes(memory[REASON_AT + 4 : REASON_AT + 4 + size]).decode(errors="replace")
