"""Heads of spilled blocks: written ones are read, all others are refused."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emsqrt._kernel import (
    lz4_bound,
    lz4_compress,
    open_block,
    read_block_head,
    sync_range,
    write_block_head,
    xxh3_64,
)

U64 = st.integers(0, 2**64 - 1)
U32 = st.integers(0, 2**32 - 1)
RAW, LZ4, ZSTD = 0, 1, 2


def head_of(stored: bytes, segment: int, codec: int, raw_bytes: int, schema: int = 5) -> bytearray:
    head = bytearray(64)
    write_block_head(head, stored, schema, segment, 3, codec, 9, raw_bytes)
    return head


def lz4(raw: bytes) -> bytes:
    target = bytearray(lz4_bound(len(raw)))
    return bytes(target[: lz4_compress(raw, target)])


@given(st.binary(max_size=300), U64, U64, U32, U64)
def test_a_head_round_trips(
    stored: bytes, schema: int, segment: int, number: int, rows: int
) -> None:
    head = bytearray(64)
    write_block_head(head, stored, schema, segment, number, RAW, rows, len(stored))
    size = len(stored)
    wanted = (schema, number, RAW, rows, size, size, xxh3_64(stored, segment))
    assert read_block_head(head, segment) == wanted


@given(st.binary(max_size=300), U64, st.integers(0, 63), st.integers(0, 7))
def test_any_flipped_bit_of_a_head_is_seen(stored: bytes, segment: int, at: int, bit: int) -> None:
    head = head_of(stored, segment, RAW, len(stored))
    head[at] ^= 1 << bit
    with pytest.raises(ValueError, match="the head is damaged"):
        read_block_head(head, segment)


@given(st.binary(min_size=64, max_size=64), U64)
def test_random_bytes_are_no_head(head: bytes, segment: int) -> None:
    with pytest.raises(ValueError, match="the head is damaged"):
        read_block_head(head, segment)


@given(U64, U64)
def test_the_head_of_another_segment_is_refused(segment: int, other: int) -> None:
    if segment != other:
        with pytest.raises(ValueError, match="the head is damaged"):
            read_block_head(head_of(b"abc", segment, RAW, 3), other)


@pytest.mark.parametrize(
    ("codec", "raw_bytes"),
    [(3, 3), (RAW, 4), (LZ4, 2**32 - 1)],
    ids=["unknown codec", "raw of another length", "longer than a block can be"],
)
def test_heads_that_make_no_sense_are_refused(codec: int, raw_bytes: int) -> None:
    with pytest.raises(ValueError, match="the head is damaged"):
        read_block_head(head_of(b"abc", 1, codec, raw_bytes), 1)


@given(st.binary(max_size=2000), st.sampled_from([RAW, LZ4]), U64)
def test_a_block_is_opened_into_a_target_with_room(raw: bytes, codec: int, segment: int) -> None:
    stored = lz4(raw) if codec == LZ4 else raw
    target = bytearray(len(raw) + 7)
    assert open_block(head_of(stored, segment, codec, len(raw)), segment, stored, target) == len(
        raw
    )
    assert target[: len(raw)] == raw
    assert target[len(raw) :] == bytes(7)


@given(st.binary(min_size=1, max_size=500), st.data())
def test_any_flipped_bit_of_a_block_is_seen(raw: bytes, draw: st.DataObject) -> None:
    codec = draw.draw(st.sampled_from([RAW, LZ4]))
    stored = bytearray(lz4(raw) if codec == LZ4 else raw)
    head = head_of(bytes(stored), 1, codec, len(raw))
    stored[draw.draw(st.integers(0, len(stored) - 1))] ^= 1 << draw.draw(st.integers(0, 7))
    with pytest.raises(ValueError, match="damaged"):
        open_block(head, 1, bytes(stored), bytearray(len(raw)))


def test_a_raw_block_is_checked_in_place_and_no_other_overlap_is_accepted() -> None:
    memory = memoryview(bytearray(b"abcdefgh"))
    head = head_of(b"abcd", 1, RAW, 4)
    assert open_block(head, 1, memory[:4], memory[:4]) == 4
    with pytest.raises(ValueError, match="overlap"):
        open_block(head, 1, memory[:4], memory[2:6])


def test_a_block_with_a_wrong_checksum_behind_a_right_head_is_refused() -> None:
    """A stored block that LZ4 cannot read, with checksums as they should be."""
    with pytest.raises(ValueError, match="damaged"):
        open_block(head_of(b"\xf0\xff", 1, LZ4, 100), 1, b"\xf0\xff", bytearray(100))
    with pytest.raises(ValueError, match="damaged"):
        open_block(head_of(b"abc", 1, ZSTD, 100), 1, b"abc", bytearray(100))


@pytest.mark.parametrize(("stored", "room"), [(b"ab", 3), (b"abcd", 3), (b"abc", 2)])
def test_lengths_that_differ_from_the_head_are_refused(stored: bytes, room: int) -> None:
    with pytest.raises(ValueError, match="do not fit the block's head"):
        open_block(head_of(b"abc", 1, RAW, 3), 1, stored, bytearray(room))


@pytest.mark.parametrize("size", [0, 63, 65])
def test_a_head_has_64_bytes(size: int) -> None:
    with pytest.raises(ValueError, match="64 bytes"):
        write_block_head(bytearray(size), b"", 0, 0, 0, RAW, 0, 0)
    with pytest.raises(ValueError, match="the head is damaged"):
        read_block_head(bytes(size), 0)


def test_a_range_is_pushed_to_the_disk(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(100_000))
    file = os.open(path, os.O_RDWR)
    sync_range(file, 0, 4096, False)
    sync_range(file, 4096, 0, True)
    os.close(file)
    with pytest.raises(OSError, match="Bad file"):
        sync_range(-1, 0, 0, True)
