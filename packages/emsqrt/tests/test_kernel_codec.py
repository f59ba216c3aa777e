"""XXH3 and LZ4 of the kernel, compared with the reference hash and with Arrow's codec."""

from __future__ import annotations

import random

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from emsqrt._kernel import lz4_bound, lz4_compress, lz4_decompress, xxh3_64

ARROW = pa.Codec("lz4_raw")
SEEDS = (0, 1, 0x9E3779B185EBCA87, 2**64 - 1)
# Every class of length has its own branch, and each branch its edges.
LENGTHS = (0, 1, 3, 4, 8, 9, 16, 17, 32, 33, 64, 65, 96, 97, 128, 129, 144, 240, 241, 1024, 1025)


def repetitive() -> st.SearchStrategy[bytes]:
    """Bytes in which LZ4 finds matches of all distances, up to some hundred kilobytes."""
    piece = st.tuples(st.binary(min_size=1, max_size=40), st.integers(1, 3000))
    return st.lists(piece, max_size=6).map(lambda parts: b"".join(p * n for p, n in parts))


def compressed(data: bytes) -> bytes:
    target = bytearray(lz4_bound(len(data)))
    return bytes(target[: lz4_compress(data, target)])


def decompressed(block: bytes, room: int) -> bytes:
    target = bytearray(room)
    return bytes(target[: lz4_decompress(block, target)])


def test_hash_of_known_bytes() -> None:
    assert xxh3_64(b"") == 0x2D06800538D394C2
    assert xxh3_64(b"abc") == 0x78AF5F94892F3950
    assert xxh3_64(bytes(1000)) == 0x24C1EA6074DD588C


@pytest.mark.parametrize("seed", SEEDS)
def test_hash_is_the_reference_for_every_class_of_length(seed: int) -> None:
    reference = pytest.importorskip("xxhash")
    data = random.Random(seed).randbytes(200_001)
    for length in (*LENGTHS, *range(0, 2200, 7), len(data)):
        wanted = reference.xxh3_64_intdigest(data[:length], seed=seed)
        assert xxh3_64(data[:length], seed) == wanted


@given(st.binary(max_size=3000), st.integers(0, 2**64 - 1), st.integers(0, 7))
def test_hash_minds_no_alignment(data: bytes, seed: int, shift: int) -> None:
    reference = pytest.importorskip("xxhash")
    moved = memoryview(bytes(shift) + data)[shift:]
    assert xxh3_64(moved, seed=seed) == reference.xxh3_64_intdigest(data, seed=seed)


@pytest.mark.parametrize("seed", [-1, 2**64])
def test_hash_refuses_a_seed_of_more_than_64_bits(seed: int) -> None:
    with pytest.raises(OverflowError):
        xxh3_64(b"", seed)


@given(st.one_of(st.binary(max_size=2000), repetitive()))
def test_lz4_round_trips_here_and_in_arrow(data: bytes) -> None:
    block = compressed(data)
    assert decompressed(block, len(data)) == data
    if data:
        assert ARROW.decompress(block, len(data)).to_pybytes() == data


@given(repetitive())
def test_lz4_reads_what_arrow_wrote(data: bytes) -> None:
    if data:
        assert decompressed(ARROW.compress(data).to_pybytes(), len(data)) == data


@given(repetitive())
def test_lz4_fits_exactly_or_says_so(data: bytes) -> None:
    block = compressed(data)
    exact = bytearray(len(block))
    assert lz4_compress(data, exact) == len(block)
    assert exact == block
    assert lz4_compress(data, bytearray(len(block) - 1)) == 0


@pytest.mark.slow
@given(repetitive(), st.data())
def test_damaged_lz4_is_refused_or_stays_in_its_room(data: bytes, draw: st.DataObject) -> None:
    block = bytearray(compressed(data))
    for _ in range(draw.draw(st.integers(0, 3))):
        block[draw.draw(st.integers(0, len(block) - 1))] = draw.draw(st.integers(0, 255))
    del block[draw.draw(st.integers(0, len(block))) :]
    room = draw.draw(st.integers(0, len(data) + 40))
    fence = bytearray(b"\xa5" * (room + 64))
    try:
        made = lz4_decompress(bytes(block), memoryview(fence)[32 : 32 + room])
    except ValueError:
        made = 0
    assert made <= room
    assert fence[:32] == fence[32 + room :] == b"\xa5" * 32


@pytest.mark.parametrize(
    "block",
    [
        b"",
        b"\x10",  # a literal that is not there
        b"\xf0\xff\xff",  # a length that never ends
        b"\x10a\x00\x00\x10a",  # distance zero
        b"\x10a\x02\x00\x10a",  # before the beginning
        b"\x10a\x01\x00",  # ends with a match
        b"\x1fa\x01\x00\xff\xff\xff\xff\x00\x00",  # more than there is room for
    ],
)
def test_bytes_that_are_no_block_are_refused(block: bytes) -> None:
    with pytest.raises(ValueError, match="not an LZ4 block"):
        lz4_decompress(block, bytearray(100))


def test_overlap_of_source_and_target_is_refused() -> None:
    memory = memoryview(bytearray(100))
    with pytest.raises(ValueError, match="overlap"):
        lz4_compress(memory[:60], memory[50:])
    with pytest.raises(ValueError, match="overlap"):
        lz4_decompress(memory[50:], memory[:60])


def test_a_bound_beyond_the_format_is_refused() -> None:
    with pytest.raises(ValueError, match="at most"):
        lz4_bound(1 << 31)
