from __future__ import annotations

import subprocess
import sys

from emsqrt.memory import MemoryBudget
from emsqrt.memory.malloc_tuning import keep_freed_blocks

MIB = 1 << 20
COUNTED = """
import resource
from emsqrt._kernel import keep_freed
from emsqrt.memory import MemoryBudget
from emsqrt.memory.malloc_tuning import KEPT_BYTES, keep_freed_blocks

def faults_of_batches():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(50):
        blocks = [bytearray(100_000) for _ in range(10)]
        del blocks
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

keep_freed(256 << 10, 256 << 10)
untuned = faults_of_batches()
kept = keep_freed_blocks(MemoryBudget(48 << 20))
faults_of_batches()
print(kept in (0, KEPT_BYTES), kept == 0 or 10 * faults_of_batches() < untuned)
"""


def test_with_room_freed_blocks_serve_the_next_batch() -> None:
    done = subprocess.run(
        [sys.executable, "-c", COUNTED], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["True", "True"]


def test_without_room_nothing_is_kept() -> None:
    assert keep_freed_blocks(MemoryBudget(8 * MIB)) == 0
