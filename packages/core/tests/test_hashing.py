import hashlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sennit_core.errors import UsageError
from sennit_core.hashing import CHUNK_BYTES, ObjectHasher, hash_file, object_id, sha256_hex

# Made with sha256sum from the definition in CONTRACTS.md; every stored object depends on them.
GOLDEN = [
    (b"", "5196a6c1f019866dee30c8b151f5e4461284c2ca7c514eb78534577c2ccd0a49"),
    (b"sennit", "85e801caeb8ee95dfa602e24bbbf3e5a58d24c97f8cbe8f3b7066693f23ed53b"),
    (bytes(2**20 + 1), "ff5b073427105ae4b560473e5ccace6aa2b3427012da32a816b86edd40a01561"),
]
ONE_CHUNK = sha256_hex(b"x")


@pytest.mark.parametrize(("data", "expected"), GOLDEN, ids=["empty", "short", "two chunks"])
def test_object_ids_are_frozen(data: bytes, expected: str) -> None:
    assert ObjectHasher().update(data).finish().object == expected


@given(st.binary(max_size=300), st.integers(1, 64), st.lists(st.integers(0, 40), max_size=12))
def test_object_id_does_not_depend_on_how_the_bytes_arrive(
    data: bytes, chunk_bytes: int, cuts: list[int]
) -> None:
    hasher, rest = ObjectHasher(chunk_bytes), data
    for cut in cuts:
        hasher.update(rest[:cut])
        rest = rest[cut:]
    digest = hasher.update(rest).finish()
    chunks = [data[i : i + chunk_bytes] for i in range(0, len(data), chunk_bytes)]
    assert digest.chunks == tuple(hashlib.sha256(chunk).hexdigest() for chunk in chunks)
    assert digest.size == len(data)
    assert digest.object == object_id(len(data), chunk_bytes, digest.chunks)


def test_chunk_size_is_part_of_the_id() -> None:
    one = ObjectHasher(1024).update(b"x").finish()
    other = ObjectHasher(2048).update(b"x").finish()
    assert one.chunks == other.chunks
    assert one.object != other.object


def test_hasher_continues_after_finish() -> None:
    hasher = ObjectHasher(4).update(b"abc")
    hasher.finish()
    assert hasher.update(b"def").finish() == ObjectHasher(4).update(b"abcdef").finish()


def test_buffers_of_wide_items_count_in_bytes() -> None:
    view = memoryview(bytes(range(16))).cast("I")
    assert (
        ObjectHasher(5).update(view).finish() == ObjectHasher(5).update(bytes(range(16))).finish()
    )


def test_file_hashes_as_its_bytes(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"abc" * CHUNK_BYTES)
    assert hash_file(path) == ObjectHasher().update(path.read_bytes()).finish()


@pytest.mark.parametrize(
    ("size", "chunk_bytes", "digests"),
    [
        (1, 4, ()),
        (5, 4, (ONE_CHUNK,)),
        (0, 4, (ONE_CHUNK,)),
        (-1, 4, ()),
        (1, 0, ()),
        (1, 2**32, (ONE_CHUNK,)),
        (1, 4, ("xyz",)),
        (1, 4, (ONE_CHUNK[:-2],)),
    ],
)
def test_digests_that_do_not_fit_are_refused(
    size: int, chunk_bytes: int, digests: tuple[str, ...]
) -> None:
    with pytest.raises(UsageError):
        object_id(size, chunk_bytes, digests)


@pytest.mark.parametrize("chunk_bytes", [0, -1, 2**32])
def test_impossible_chunk_sizes_are_refused(chunk_bytes: int) -> None:
    with pytest.raises(UsageError, match="chunk_bytes"):
        ObjectHasher(chunk_bytes)
