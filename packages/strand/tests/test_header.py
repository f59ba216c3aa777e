"""The header: golden bytes, and each kind of damage refused by its own error."""

import json
import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import strand
from sennit_core.errors import UsageError
from strand import errors
from strand.header import StrandMap, compute_map, init_header, read_header
from strand.layout import HEADER_BYTES, MAGIC
from strand.schema import fnv1a

SCHEMA = strand.build_schema([("id", "u32"), {"name": "note", "type": "utf8", "nullable": True}])


def header_bytes(version: int = 5, records: int = 4, heap: int = 256) -> bytearray:
    made = compute_map(SCHEMA, records, heap, version=version)
    memory = bytearray(made.total_bytes)
    init_header(memory, made)
    return memory


def seal(memory: bytearray) -> None:
    """Recompute checksum and fingerprint after a change."""
    size = struct.unpack_from("<I", memory, 88)[0]
    struct.pack_into("<I", memory, 8, fnv1a(bytes(memory[92 : 92 + size])))
    struct.pack_into("<I", memory, 24, fnv1a(bytes(memory[:24])))


def read(memory: bytearray) -> StrandMap:
    return read_header(memory)


@pytest.mark.parametrize("version", [5, 6])
def test_a_header_reads_back(version: Any) -> None:
    header = read(header_bytes(version))
    assert header.version == version
    assert header.schema == SCHEMA
    assert (header.records, header.heap_bytes) == (4, 256)
    assert header.metadata == {"columns": ["id", "note"]}


def damage_magic(memory: bytearray) -> None:
    memory[0] ^= 1


def damage_version(memory: bytearray) -> None:
    struct.pack_into("<I", memory, 4, 7)


def damage_checksum(memory: bytearray) -> None:
    memory[24] ^= 1


def damage_schema_length(memory: bytearray) -> None:
    struct.pack_into("<I", memory, 88, 5000)


def damage_field_count(memory: bytearray) -> None:
    struct.pack_into("<H", memory, 92, 3)


def damage_type_tag(memory: bytearray) -> None:
    memory[94] = 14


def damage_flags(memory: bytearray) -> None:
    memory[95] = 8


def damage_descending_in_v5(memory: bytearray) -> None:
    memory[95] = 4


def damage_fingerprint(memory: bytearray) -> None:
    struct.pack_into("<I", memory, 8, 1)
    struct.pack_into("<I", memory, 24, fnv1a(bytes(memory[:24])))


def damage_overlap(memory: bytearray) -> None:
    struct.pack_into("<H", memory, 96, 0)
    seal(memory)


def damage_stride(memory: bytearray) -> None:
    struct.pack_into("<I", memory, 12, 20)
    seal(memory)


def damage_capacity(memory: bytearray) -> None:
    struct.pack_into("<I", memory, 16, 3)
    seal(memory)


def damage_heap(memory: bytearray) -> None:
    struct.pack_into("<I", memory, 20, 300)
    seal(memory)


def damage_size(memory: bytearray) -> None:
    struct.pack_into("<I", memory, 20, 512)
    seal(memory)


def damage_metadata_json(memory: bytearray) -> None:
    memory[92 + 10 + 4] = ord("[")


def damage_metadata_length(memory: bytearray) -> None:
    struct.pack_into("<I", memory, 92 + 10, 3000)


def damage_columns(memory: bytearray) -> None:
    text = json.dumps({"columns": ["id"]}).encode()
    struct.pack_into("<I", memory, 92 + 10, len(text))
    memory[92 + 14 : 92 + 14 + len(text)] = text


@pytest.mark.parametrize(
    ("damage", "error"),
    [
        (damage_magic, errors.BadMagic),
        (damage_version, errors.BadVersion),
        (damage_checksum, errors.BadChecksum),
        (damage_schema_length, errors.BadSchemaLength),
        (damage_field_count, errors.BadSchemaLength),
        (damage_type_tag, errors.UnknownField),
        (damage_flags, errors.UnknownField),
        (damage_descending_in_v5, errors.UnknownField),
        (damage_fingerprint, errors.FingerprintMismatch),
        (damage_overlap, errors.BadStride),
        (damage_stride, errors.BadStride),
        (damage_capacity, errors.BadGeometry),
        (damage_heap, errors.BadGeometry),
        (damage_size, errors.BadGeometry),
        (damage_metadata_json, errors.BadMetadata),
        (damage_metadata_length, errors.BadMetadata),
        (damage_columns, errors.BadMetadata),
    ],
)
def test_each_damage_has_its_own_error(
    damage: Callable[[bytearray], None], error: type[Exception]
) -> None:
    memory = header_bytes()
    damage(memory)
    with pytest.raises(error):
        read(memory)


def test_the_checks_come_in_the_order_of_the_specification() -> None:
    memory = header_bytes()
    repairs = [
        (errors.BadGeometry, 20, 300),
        (errors.BadStride, 12, 20),
        (errors.FingerprintMismatch, 8, 1),
    ]
    for _, at, value in repairs:
        struct.pack_into("<I", memory, at, value)
    struct.pack_into("<I", memory, 24, fnv1a(bytes(memory[:24])))
    original = header_bytes()
    for expected, at, _ in reversed(repairs):
        with pytest.raises(expected):
            read(memory)
        memory[at : at + 4] = original[at : at + 4]
        struct.pack_into("<I", memory, 24, fnv1a(bytes(memory[:24])))
    read(memory)


def test_fewer_bytes_than_a_header_are_refused_first() -> None:
    with pytest.raises(errors.SegmentTooSmall):
        read_header(bytes(HEADER_BYTES - 1))


@given(st.binary(min_size=24, max_size=200), st.integers(0, 150))
def test_no_header_however_damaged_escapes_as_another_error(noise: bytes, at: int) -> None:
    memory = header_bytes()
    memory[at : at + len(noise)] = noise
    struct.pack_into("<II", memory, 0, MAGIC, 5)
    struct.pack_into("<I", memory, 24, fnv1a(bytes(memory[:24])))
    try:
        read(memory)
    except errors.StrandHeaderError:
        return


def test_a_file_that_is_no_ring_is_not_attached_to(tmp_path: Path) -> None:
    file = tmp_path / "noise"
    file.write_bytes(os.urandom(8192))
    with file.open("rb+") as opened, pytest.raises(errors.StrandHeaderError):
        strand.attach_ring(opened.fileno())


def test_a_truncated_segment_is_not_attached_to(tmp_path: Path) -> None:
    file = tmp_path / "short"
    file.write_bytes(header_bytes()[:-1])
    with file.open("rb+") as opened, pytest.raises(errors.BadGeometry):
        strand.attach_ring(opened.fileno())


def test_a_v6_ring_without_its_counters_grants_no_roles(tmp_path: Path) -> None:
    memory = header_bytes(version=6)
    struct.pack_into("<I", memory, 3072, 0)
    file = tmp_path / "plain"
    file.write_bytes(memory)
    with (
        file.open("rb+") as opened,
        strand.attach_ring(opened.fileno()) as ring,
        pytest.raises(errors.NoExtension),
    ):
        ring.consumer()


@pytest.mark.parametrize(
    "arguments",
    [
        {"records": 3},
        {"records": 0},
        {"heap": 1000},
        {"heap": 64},
        {"version": 4},
        {"metadata": {"note": "x" * 3000}},
        {"metadata": {"intern": "abc"}},
        {"metadata": {"intern": ["a", 1]}},
        {"estimated_records": -1},
    ],
)
def test_parameters_that_make_no_ring_are_refused(arguments: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        strand.open_ring(SCHEMA, **{"records": 4, "heap": 256, **arguments})
