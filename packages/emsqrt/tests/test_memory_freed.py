from __future__ import annotations

import resource
from collections.abc import Iterator

import pytest

from emsqrt._kernel import keep_freed
from emsqrt.memory import MemoryBudget
from emsqrt.memory.freed import KEPT_BYTES, keep_freed_blocks

MIB = 1 << 20


@pytest.fixture(autouse=True)
def threshold() -> Iterator[None]:
    if not keep_freed(256 << 10, 256 << 10):
        pytest.skip("the allocator is not glibc's")
    yield
    keep_freed(256 << 10, 256 << 10)


def faults_of_batches() -> int:
    """Allocate and free what a batch takes, again and again; return how many pages were mapped."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(50):
        blocks = [bytearray(100_000) for _ in range(10)]
        del blocks
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


def test_with_room_freed_blocks_serve_the_next_batch() -> None:
    faults_before = faults_of_batches()
    assert keep_freed_blocks(MemoryBudget(48 * MIB)) == KEPT_BYTES
    faults_of_batches()
    assert faults_of_batches() < faults_before / 10


def test_without_room_nothing_is_kept() -> None:
    assert keep_freed_blocks(MemoryBudget(8 * MIB)) == 0
