"""The 4096-byte header: geometry, schema and metadata of a ring.

The creator writes it once; every process that attaches checks it, in the order and with the errors
that spec/strand-wire.md defines.
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from sennit_core.errors import UsageError
from sennit_core.units import format_bytes, parse_bytes
from strand import _native
from strand.errors import (
    BadChecksum,
    BadGeometry,
    BadMagic,
    BadMetadata,
    BadSchemaLength,
    BadVersion,
    FingerprintMismatch,
    SegmentTooSmall,
)
from strand.fields import SlotLayout, Version
from strand.layout import (
    CAPACITY_MAX,
    CONSUMER_COUNT,
    EXTENSION_AT,
    EXTENSION_MAGIC,
    HEADER_BYTES,
    MAGIC,
    METADATA_END,
    SCHEMA_AT,
    SCHEMA_LENGTH_AT,
    VACANT,
)
from strand.schema import StrandSchema, check_stride, decode_schema, fnv1a, schema_from_facts

if TYPE_CHECKING:
    from typing_extensions import Buffer

__all__ = [
    "Identity",
    "StrandMap",
    "compute_map",
    "find_schema",
    "init_header",
    "read_header",
    "static_bytes",
    "store_schema",
]

_STATIC = struct.Struct("<6I")
_IDENTITY = struct.Struct("<IIQQII")
_ARROW_SCHEMA_BYTES_MAX = 1 << 20  # inflated: a few bytes of another process may become any number


@dataclass(frozen=True)
class Identity:
    """Identity of a process: the pid with start time and boot, because pids are reused."""

    pid: int = 0
    start_ticks: int = 0
    boot: int = 0


@dataclass(frozen=True)
class StrandMap:
    """The static part of a ring's header: geometry, schema, metadata."""

    version: Version
    schema: StrandSchema
    slots: SlotLayout
    records: int
    """Slots of the ring, a power of two."""
    heap_bytes: int
    """Bytes for strings, arrays and payloads, a power of two."""
    metadata: Mapping[str, Any] = field(default_factory=dict)

    @property
    def stride(self) -> int:
        """Bytes of one slot."""
        return self.slots.stride

    @property
    def index_start(self) -> int:
        """Byte offset of the first slot."""
        return HEADER_BYTES

    @property
    def heap_start(self) -> int:
        """Byte offset of the heap."""
        return HEADER_BYTES + self.records * self.slots.stride

    @property
    def total_bytes(self) -> int:
        """Bytes of the whole segment."""
        return self.heap_start + self.heap_bytes

    @property
    def fingerprint(self) -> int:
        """FNV-1a hash of the wire schema: types, flags and offsets, without names."""
        return fnv1a(self.schema.encode(self.slots))

    @property
    def query(self) -> Any:
        """The query that the stream is the result of, as stated by its creator, or None."""
        return self.metadata.get("query")

    @property
    def estimated_records(self) -> int | None:
        """How many records are expected, as stated by the creator, or None."""
        return self.metadata.get("estimated_records")

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


def compute_map(  # noqa: PLR0913 - a ring has these parameters
    schema: StrandSchema,
    records: int = 65536,
    heap: str | int = "16MiB",
    *,
    version: int = 6,
    query: Any = None,
    estimated_records: int | None = None,
    metadata: Mapping[str, Any] | None = None,
) -> StrandMap:
    """Compute a ring's geometry; no memory is allocated or written.

    Args:
        schema: the record schema.
        records: slots, a power of two.
        heap: bytes for strings, arrays and payloads, a power of two (`"16MiB"`); one record may
            use half of it.
        version: layout version: 6 by default, 5 for readers of the public v5 format.
        query: the query that the stream is the result of: any JSON value, for attached processes.
        estimated_records: how many records are expected, so that a consumer can report progress.
        metadata: JSON keys of your own; `"intern"` is the list of strings that `utf8_ref` fields
            refer to; `"columns"` is reserved.

    Raises:
        UsageError: a capacity that is not a power of two, or metadata that does not fit.
    """
    if version not in (5, 6):
        raise UsageError(f"a ring has layout version 5 or 6, not {version!r}")
    checked: Version = 5 if version == 5 else 6
    heap_bytes = parse_bytes(heap)
    least_heap = 128 if checked == 6 else 8  # twice the alignment of a payload
    for what, value, least in (("records", records, 1), ("heap", heap_bytes, least_heap)):
        if not _is_power(value) or not least <= value <= CAPACITY_MAX:
            near = 1 << max(value - 1, least).bit_length()
            raise UsageError(
                f"{what} must be a power of two from {least} to 2**31, not {value}",
                hint=f"{min(near, CAPACITY_MAX)} is the next one",
            )
    full = dict(metadata or {})
    intern = full.get("intern", [])
    if not isinstance(intern, list | tuple) or not all(isinstance(text, str) for text in intern):
        raise UsageError(f'metadata "intern" is a list of strings, not {intern!r}')
    if query is not None:
        full["query"] = query
    if estimated_records is not None:
        full["estimated_records"] = _checked_estimate(estimated_records)
    full["columns"] = list(schema.names)
    made = StrandMap(checked, schema, schema.layout(checked), records, heap_bytes, full)
    size = _metadata_at(made) + 4 + len(_metadata_bytes(made))
    if size > METADATA_END:
        raise UsageError(
            f"schema and metadata end at byte {size}, beyond the limit of {METADATA_END}",
            hint="shorten the field names or the metadata",
        )
    return made


def init_header(buffer: Buffer, map: StrandMap, creator: Identity | None = None) -> None:  # noqa: A002 - the original's name
    """Write a new ring's header into a buffer, its magic last.

    Args:
        buffer: writable, at least `map.total_bytes` long; its first 4096 bytes are overwritten.
        map: the geometry, from `compute_map`.
        creator: the creating process; unknown by default.

    Raises:
        UsageError: a buffer that is too small or read-only.
    """
    with memoryview(buffer) as view:
        if view.readonly or view.nbytes < map.total_bytes:
            found = "a read-only buffer" if view.readonly else f"{view.nbytes} bytes"
            raise UsageError(f"this ring needs {map.total_bytes} writable bytes, not {found}")
        with view.cast("B") as memory:
            memory[:HEADER_BYTES] = bytes(HEADER_BYTES)
            _write_header(memory, map, creator or Identity())
            _native.store_release(
                memory, 0, MAGIC
            )  # last: a process that sees the magic also sees the header


def _write_header(memory: memoryview, header: StrandMap, who: Identity) -> None:
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
    _IDENTITY.pack_into(
        memory, EXTENSION_AT, EXTENSION_MAGIC, who.pid, who.start_ticks, who.boot, 0, 0
    )


def read_header(buffer: Buffer, segment_bytes: int | None = None) -> StrandMap:
    """Check a header and decode it.

    The checks are made in this order, each with its own error: size, magic, version, checksum, schema
    length, known tags and flags, fingerprint, stride, geometry, metadata.

    Args:
        buffer: the segment, or at least its first 4096 bytes.
        segment_bytes: size of the whole segment; that of the buffer by default.

    Raises:
        StrandHeaderError: a check failed; the subclass names it.
    """
    with memoryview(buffer) as view, view.cast("B") as memory:
        size = len(memory) if segment_bytes is None else segment_bytes
        head = bytes(memory[:HEADER_BYTES])  # a copy, so that the checked bytes cannot change
    if size < HEADER_BYTES or len(head) < HEADER_BYTES:
        raise SegmentTooSmall(expected=f"{HEADER_BYTES} bytes or more", found=str(size))
    magic, version, fingerprint, stride, records, heap_bytes = _STATIC.unpack_from(head)
    if magic != MAGIC:
        raise BadMagic(expected=hex(MAGIC), found=hex(magic))
    if version not in (5, 6):
        raise BadVersion(expected="layout version 5 or 6", found=str(version))
    checksum = struct.unpack_from("<I", head, 24)[0]
    if checksum != fnv1a(head[:24]):
        raise BadChecksum(expected=hex(fnv1a(head[:24])), found=hex(checksum))
    schema_bytes = struct.unpack_from("<I", head, SCHEMA_LENGTH_AT)[0]
    # A plain v5 header has no extension block, so its metadata may use those bytes.
    end = HEADER_BYTES if version == 5 and not has_extension(head) else METADATA_END
    if schema_bytes < 2 or SCHEMA_AT + schema_bytes + 4 > end:
        raise BadSchemaLength(
            expected="a schema that fits the header", found=f"{schema_bytes} bytes"
        )
    encoded = head[SCHEMA_AT : SCHEMA_AT + schema_bytes]
    slots, facts = decode_schema(encoded, version, stride)
    if fingerprint != fnv1a(encoded):
        raise FingerprintMismatch(expected=hex(fnv1a(encoded)), found=hex(fingerprint))
    check_stride(slots, facts)
    _check_geometry(stride, records, heap_bytes, size)
    metadata = _read_metadata(head, SCHEMA_AT + schema_bytes, len(facts), end)
    schema = schema_from_facts(metadata["columns"], facts)
    return StrandMap(version, schema, slots, records, heap_bytes, metadata)


def has_extension(memory: Any) -> bool:
    """Whether the ring carries the counters of this package; a plain v5 ring does not."""
    return bool(struct.unpack_from("<I", memory, EXTENSION_AT)[0] == EXTENSION_MAGIC)


def store_schema(memory: Any, message: Any) -> bool:
    """Store an Arrow schema message in the header's free bytes, for consumers that join later.

    Args:
        memory: the segment of a block ring.
        message: the serialized schema; it is stored deflated (RFC 1950).

    Returns:
        Whether it fits; if not, the schema of an earlier stream is still removed.
    """
    packed = zlib.compress(message, 9)
    at, room = _free_span(memory)
    if room < 4:
        return False
    # Length 0 first: a consumer must not combine the old length with the new bytes.
    _native.store_release(memory, at, 0)
    if len(packed) > room - 4:
        return False
    memory[at + 4 : at + 4 + len(packed)] = packed
    _native.store_release(
        memory, at, len(packed)
    )  # last: a process that sees the length also sees the bytes
    return True


def find_schema(memory: Any) -> bytes | None:
    """Return the Arrow schema message that the producer stored in the header, or None.

    Raises:
        BadMetadata: the bytes are not a deflated Arrow schema.
    """
    at, room = _free_span(memory)
    size = struct.unpack_from("<I", memory, at)[0] if room >= 4 else 0
    if size == 0:
        return None
    if size > room - 4:
        raise BadMetadata(expected=f"an Arrow schema of {room - 4} bytes or less", found=str(size))
    packed = bytes(memory[at + 4 : at + 4 + size])
    unpack = zlib.decompressobj()
    try:
        message = unpack.decompress(packed, _ARROW_SCHEMA_BYTES_MAX)
    except zlib.error as error:
        raise BadMetadata(expected="a deflated Arrow schema", found=str(error)) from error
    if not unpack.eof:
        raise BadMetadata(expected="a whole Arrow schema", found=f"{size} bytes, cut")
    return message


def _free_span(memory: Any) -> tuple[int, int]:
    """Return the offset and number of the header's free bytes, which follow the metadata."""
    # Both lengths are bounded here, because the header may have changed since it was checked.
    schema_bytes = struct.unpack_from("<I", memory, SCHEMA_LENGTH_AT)[0]
    metadata_at = min(SCHEMA_AT + schema_bytes, METADATA_END - 4)
    metadata_bytes = struct.unpack_from("<I", memory, metadata_at)[0]
    at = min(metadata_at + 4 + metadata_bytes, METADATA_END)
    at = (at + 3) & ~3
    return at, METADATA_END - at


def _check_geometry(stride: int, records: int, heap_bytes: int, segment_bytes: int) -> None:
    for what, value in (("index", records), ("heap", heap_bytes)):
        if not _is_power(value) or value > CAPACITY_MAX:
            raise BadGeometry(expected=f"{what} capacity a power of two", found=str(value))
    total = HEADER_BYTES + stride * records + heap_bytes
    if total > segment_bytes:
        found = format_bytes(segment_bytes)
        raise BadGeometry(expected=f"a segment of {format_bytes(total)}", found=found)


def static_bytes(memory: Any) -> int:
    """Return the end offset of schema and metadata in a checked header."""
    at = SCHEMA_AT + int(struct.unpack_from("<I", memory, SCHEMA_LENGTH_AT)[0])
    return at + 4 + int(struct.unpack_from("<I", memory, at)[0])


def _read_metadata(head: bytes, at: int, columns: int, end: int) -> dict[str, Any]:
    size = struct.unpack_from("<I", head, at)[0]
    if at + 4 + size > end:
        raise BadMetadata(expected=f"an end before byte {end}", found=f"{size} bytes")
    try:
        metadata = json.loads(head[at + 4 : at + 4 + size])
    except (ValueError, RecursionError) as error:
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


def _metadata_bytes(header: StrandMap) -> bytes:
    return json.dumps(header.metadata, ensure_ascii=False, separators=(",", ":")).encode()


def _metadata_at(header: StrandMap) -> int:
    return SCHEMA_AT + 2 + 4 * len(header.schema.fields)


def _is_power(value: int) -> bool:
    return value > 0 and value & (value - 1) == 0


def _checked_estimate(count: int) -> int:
    if isinstance(count, bool) or not isinstance(count, int) or count < 0:
        raise UsageError(f"estimated_records is a count, not {count!r}")
    return count
