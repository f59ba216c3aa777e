"""The 4096-byte header: geometry, schema, metadata, and the extension block's identity.

Written once by the creator, checked by everybody who attaches, in the order and with the errors
that spec/strand-wire.md prescribes. The counters behind it belong to the C core.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sennit_core.errors import UsageError
from sennit_core.units import format_bytes
from strand.errors import (
    BadChecksum,
    BadGeometry,
    BadMagic,
    BadMetadata,
    BadSchemaLength,
    BadVersion,
    FingerprintMismatch,
    NoExtension,
    SegmentTooSmall,
)
from strand.schema import (
    SlotLayout,
    StrandSchema,
    Version,
    check_stride,
    decode_schema,
    fnv1a,
    schema_from_facts,
)

__all__ = ["HEADER_BYTES", "Header", "Identity", "read_header", "write_header"]

MAGIC = 0x5354524E
EXTENSION_MAGIC = 0x53454E36
HEADER_BYTES = 4096
SCHEMA_LENGTH_AT, SCHEMA_AT = 88, 92
METADATA_END = 3072
EXTENSION_AT, PRODUCER_AT, SLEEP_AT, CONSUMERS_AT = 3072, 3136, 3200, 3264
CONSUMER_BYTES, CONSUMER_COUNT = 64, 8
REASON_AT, REASON_BYTES_MAX = 3776, 316
VACANT = 0x7FFFFFFF
CAPACITY_MAX = 1 << 31

_STATIC = struct.Struct("<6I")
_IDENTITY = struct.Struct("<IIQQII")


@dataclass(frozen=True)
class Identity:
    """Who a process is: pids are reused, so its start time and the boot go with it."""

    pid: int = 0
    start_ticks: int = 0
    boot: int = 0


@dataclass(frozen=True)
class Header:
    """What the static part of a ring says; `slots` is the layout of one record."""

    version: Version
    schema: StrandSchema
    slots: SlotLayout
    records: int
    heap_bytes: int
    metadata: Mapping[str, Any] = field(default_factory=dict)
    creator: Identity = Identity()

    @property
    def heap_start(self) -> int:
        """Byte offset of the heap."""
        return HEADER_BYTES + self.records * self.slots.stride

    @property
    def total_bytes(self) -> int:
        """Bytes of the whole segment."""
        return self.heap_start + self.heap_bytes

    @property
    def geometry(self) -> tuple[int, int, int, int]:
        """Version, stride, capacity and heap capacity, as the C core takes them."""
        return self.version, self.slots.stride, self.records, self.heap_bytes

    @property
    def is_blocks(self) -> bool:
        """Whether this is a v6 block ring: one plain `bytes` field."""
        fields = self.schema.fields
        return (
            self.version == 6
            and len(fields) == 1
            and fields[0].type == "bytes"
            and not fields[0].nullable
        )


def plan_header(
    schema: StrandSchema,
    records: int,
    heap_bytes: int,
    *,
    version: int = 6,
    metadata: Mapping[str, Any] | None = None,
    creator: Identity = Identity(),
) -> Header:
    """Check a ring's parameters and return its header, not written anywhere yet.

    Args:
        schema: the record schema.
        records: slots, a power of two.
        heap_bytes: heap capacity in bytes, a power of two.
        version: 5 or 6.
        metadata: the producer's keys; `columns` is ours.
        creator: the creating process.

    Raises:
        UsageError: a capacity that is no power of two, metadata that does not fit.
    """
    if version not in (5, 6):
        raise UsageError(f"a ring has layout version 5 or 6, not {version!r}")
    checked: Version = 5 if version == 5 else 6
    least_heap = 128 if checked == 6 else 8  # twice the alignment of a payload
    for what, value, least in (("records", records, 1), ("heap", heap_bytes, least_heap)):
        if not _is_power(value) or not least <= value <= CAPACITY_MAX:
            near = 1 << max(value - 1, least).bit_length()
            raise UsageError(
                f"{what} must be a power of two from {least} to 2**31, not {value}",
                hint=f"{min(near, CAPACITY_MAX)} is the next one",
            )
    full = {**(metadata or {}), "columns": list(schema.names)}
    header = Header(checked, schema, schema.layout(checked), records, heap_bytes, full, creator)
    size = _metadata_at(header) + 4 + len(_metadata_bytes(header))
    if size > METADATA_END:
        raise UsageError(
            f"schema and metadata end at byte {size}, and must before {METADATA_END}",
            hint="shorten the field names or the metadata",
        )
    return header


def write_header(memory: memoryview, header: Header) -> None:
    """Write everything but the magic, which whoever publishes the segment stores last."""
    encoded = header.schema.encode(header.slots)
    static = _STATIC.pack(
        MAGIC,
        header.version,
        fnv1a(encoded),
        header.slots.stride,
        header.records,
        header.heap_bytes,
    )
    memory[4:24] = static[4:]
    struct.pack_into("<I", memory, 24, fnv1a(static))
    struct.pack_into("<8i", memory, 56, *[VACANT] * CONSUMER_COUNT)
    struct.pack_into("<I", memory, SCHEMA_LENGTH_AT, len(encoded))
    memory[SCHEMA_AT : SCHEMA_AT + len(encoded)] = encoded
    metadata = _metadata_bytes(header)
    at = _metadata_at(header)
    struct.pack_into("<I", memory, at, len(metadata))
    memory[at + 4 : at + 4 + len(metadata)] = metadata
    who = header.creator
    _IDENTITY.pack_into(
        memory, EXTENSION_AT, EXTENSION_MAGIC, who.pid, who.start_ticks, who.boot, 0, 0
    )


def read_header(memory: memoryview, segment_bytes: int) -> Header:
    """Check a header and return what it says.

    The checks come in this order, each with its own error: size, magic, version, checksum, schema
    length, known tags and flags, fingerprint, stride, geometry, metadata.

    Args:
        memory: the segment, or at least its first 4096 bytes.
        segment_bytes: size of the file behind it.

    Raises:
        HeaderError: the subclass that belongs to the check that failed.
    """
    if segment_bytes < HEADER_BYTES or len(memory) < HEADER_BYTES:
        raise SegmentTooSmall(expected=f"{HEADER_BYTES} bytes or more", found=str(segment_bytes))
    head = bytes(memory[:HEADER_BYTES])
    magic, version, fingerprint, stride, records, heap_bytes = _STATIC.unpack_from(head)
    if magic != MAGIC:
        raise BadMagic(expected=hex(MAGIC), found=hex(magic))
    if version not in (5, 6):
        raise BadVersion(expected="layout version 5 or 6", found=str(version))
    checksum = struct.unpack_from("<I", head, 24)[0]
    if checksum != fnv1a(head[:24]):
        raise BadChecksum(expected=hex(fnv1a(head[:24])), found=hex(checksum))
    schema_bytes = struct.unpack_from("<I", head, SCHEMA_LENGTH_AT)[0]
    if schema_bytes < 2 or SCHEMA_AT + schema_bytes + 4 > METADATA_END:
        raise BadSchemaLength(
            expected="a schema that fits the header", found=f"{schema_bytes} bytes"
        )
    encoded = head[SCHEMA_AT : SCHEMA_AT + schema_bytes]
    slots, facts = decode_schema(encoded, version, stride)
    if fingerprint != fnv1a(encoded):
        raise FingerprintMismatch(expected=hex(fnv1a(encoded)), found=hex(fingerprint))
    check_stride(slots, facts)
    _check_geometry(stride, records, heap_bytes, segment_bytes)
    metadata = _read_metadata(head, SCHEMA_AT + schema_bytes, len(facts))
    schema = schema_from_facts(metadata["columns"], facts)
    creator = _read_creator(head)
    return Header(version, schema, slots, records, heap_bytes, metadata, creator)


def has_extension(memory: memoryview) -> bool:
    """Whether the ring carries the counters of this package; a plain v5 ring does not."""
    return bool(struct.unpack_from("<I", memory, EXTENSION_AT)[0] == EXTENSION_MAGIC)


def check_extension(memory: memoryview) -> None:
    """Refuse a ring without the extension block, which roles need; inspecting works without."""
    if not has_extension(memory):
        found = struct.unpack_from("<I", memory, EXTENSION_AT)[0]
        raise NoExtension(expected=hex(EXTENSION_MAGIC), found=hex(found))


def consumer_entry_at(index: int) -> int:
    """Return the byte offset of consumer entry `index`."""
    return CONSUMERS_AT + CONSUMER_BYTES * index


def write_reason(memory: memoryview, reason: str) -> None:
    """Store why a stream was aborted, cut to what fits."""
    text = reason.encode()[:REASON_BYTES_MAX].decode(errors="ignore").encode()
    memory[REASON_AT + 4 : REASON_AT + 4 + len(text)] = text
    struct.pack_into("<I", memory, REASON_AT, len(text))


def read_reason(memory: memoryview) -> str:
    """Return why a stream was aborted, or nothing."""
    size = min(struct.unpack_from("<I", memory, REASON_AT)[0], REASON_BYTES_MAX)
    return bytes(memory[REASON_AT + 4 : REASON_AT + 4 + size]).decode(errors="replace")


def _check_geometry(stride: int, records: int, heap_bytes: int, segment_bytes: int) -> None:
    for what, value in (("index", records), ("heap", heap_bytes)):
        if not _is_power(value) or value > CAPACITY_MAX:
            raise BadGeometry(expected=f"{what} capacity a power of two", found=str(value))
    total = HEADER_BYTES + stride * records + heap_bytes
    if total > segment_bytes:
        found = format_bytes(segment_bytes)
        raise BadGeometry(expected=f"a segment of {format_bytes(total)}", found=found)


def _read_metadata(head: bytes, at: int, columns: int) -> dict[str, Any]:
    size = struct.unpack_from("<I", head, at)[0]
    if at + 4 + size > METADATA_END:
        raise BadMetadata(expected=f"an end before byte {METADATA_END}", found=f"{size} bytes")
    try:
        metadata = json.loads(head[at + 4 : at + 4 + size])
    except ValueError as error:
        raise BadMetadata(expected="a JSON object", found=str(error)) from error
    names = metadata.get("columns") if isinstance(metadata, dict) else None
    if (
        not isinstance(names, list)
        or len(names) != columns
        or not all(isinstance(name, str) and name for name in names)
        or len(set(names)) != columns
    ):
        raise BadMetadata(expected=f'"columns" with {columns} different names', found=repr(names))
    return dict(metadata)


def _read_creator(head: bytes) -> Identity:
    magic, pid, start_ticks, boot, _, _ = _IDENTITY.unpack_from(head, EXTENSION_AT)
    return Identity(pid, start_ticks, boot) if magic == EXTENSION_MAGIC else Identity()


def _metadata_bytes(header: Header) -> bytes:
    return json.dumps(header.metadata, ensure_ascii=False, separators=(",", ":")).encode()


def _metadata_at(header: Header) -> int:
    return SCHEMA_AT + 2 + 4 * len(header.schema.fields)


def _is_power(value: int) -> bool:
    return value > 0 and value & (value - 1) == 0
