"""Rings in memory of the caller's: any writable buffer, in one process or in several."""

import array
import gc
import mmap
import os
import signal
import struct
import subprocess
import sys
from multiprocessing import resource_tracker, shared_memory
from typing import Any

import numpy as np
import pytest

import strand
from sennit_core.errors import UsageError
from strand import layout
from strand.owners import is_word_held

SIZE = strand.compute_map(strand.BLOCKS, 8, 4096).total_bytes


def open_in(buffer: Any) -> strand.Ring:
    return strand.open_ring(strand.BLOCKS, 8, 4096, buffer=buffer)


def talk(ring: strand.Ring, other: strand.Ring) -> None:
    """Send twenty payloads from one ring to the other: the slots wrap."""
    with other.producer() as writer, ring.consumer() as view:
        for index in range(20):
            writer.write_bytes(b"%d" % index * 20)
            assert bytes(view._read_block(index)) == b"%d" % index * 20
            view.acknowledge_read(index + 1)


@pytest.mark.sample(2)
@pytest.mark.slow
@pytest.mark.parametrize(
    "make",
    [
        bytearray,
        lambda size: mmap.mmap(-1, size),
        lambda size: array.array("d", bytes(size + -size % 8)),
        lambda size: np.zeros(size // 8 + 1, "u8"),
        lambda size: memoryview(bytearray(size + 64))[64:],
    ],
    ids=["bytearray", "mmap", "array", "numpy", "slice"],
)
def test_a_ring_works_in_any_writable_buffer(make: Any) -> None:
    buffer = make(SIZE)
    with open_in(buffer) as ring, strand.attach_ring(buffer=buffer) as other:
        talk(ring, other)
    gc.collect()
    with memoryview(buffer) as view:
        assert view.nbytes >= SIZE


def test_a_closed_ring_releases_its_buffer() -> None:
    buffer = bytearray(SIZE)
    with open_in(buffer) as ring, ring.producer() as writer, ring.consumer() as view:
        writer.write_bytes(b"kept")
        kept = memoryview(view._read_block(0))
        with pytest.raises(BufferError):
            buffer.clear()
    with pytest.raises(BufferError):  # a view of a payload is still alive
        buffer.clear()
    assert bytes(kept) == b"kept"
    kept.release()
    del kept, view, writer
    buffer.clear()


@pytest.mark.parametrize(
    ("buffer", "why"),
    [
        (bytes(SIZE), "writable"),
        (memoryview(bytearray(SIZE)).toreadonly(), "writable"),
        (memoryview(bytearray(SIZE + 8))[1:], "multiple of 8"),
        (memoryview(bytearray(SIZE + 8))[4:], "multiple of 8"),
        (memoryview(bytearray(2 * SIZE))[::2], "contiguous"),
        (bytearray(SIZE - 1), "needs"),
        (bytearray(), "needs"),
        ("text", "contiguous"),
    ],
)
def test_a_buffer_that_cannot_hold_a_ring_is_refused(buffer: Any, why: str) -> None:
    with pytest.raises(UsageError, match=why):
        open_in(buffer)


def test_a_ring_in_a_buffer_has_no_descriptor_to_hand_on() -> None:
    with open_in(bytearray(SIZE)) as ring, pytest.raises(UsageError, match="descriptor"):
        ring.fileno()


def test_a_buffer_or_a_name_not_both() -> None:
    with pytest.raises(UsageError):
        strand.open_ring(strand.BLOCKS, 8, 4096, name="test-both", buffer=bytearray(SIZE))
    with pytest.raises(UsageError):
        strand.attach_ring(0, buffer=bytearray(SIZE))


# ---- roles, held by words ------------------------------------------------------------------------


def test_roles_in_a_buffer_exclude_each_other() -> None:
    with open_in(bytearray(SIZE)) as ring:
        views = [ring.consumer() for _ in range(8)]
        with ring.producer() as writer:
            with pytest.raises(strand.RoleTaken) as raised:
                ring.producer()
            assert raised.value.pid == os.getpid()
            with pytest.raises(strand.RoleTaken):
                ring.consumer()
            views[3].close()
            ring.consumer()
            writer.write_bytes(b"x")


def run_in_child(act: Any) -> int:
    """Fork, act, and end as a killed process does."""
    pid = os.fork()
    if pid == 0:
        try:
            act()
        finally:
            os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(pid, 0)
    return pid


def test_the_roles_of_a_dead_process_are_free_again() -> None:
    with open_in(mmap.mmap(-1, SIZE)) as ring:

        def act() -> None:
            ring.consumer()
            ring.producer().write_bytes(b"last words")

        dead = run_in_child(act)
        assert struct.unpack_from("<I", ring.memory, layout.PRODUCER_AT + 36)[0] == dead
        with ring.consumer() as view:
            assert bytes(next(view.payloads())) == b"last words"
            with pytest.raises(strand.ProducerDied) as died:
                view.wait_for_commit(1)
            assert died.value.pid == dead
            with ring.producer(resume=True) as writer:
                writer.write_bytes(b"next")
            assert bytes(view._read_block(1)) == b"next"


def test_a_reused_pid_holds_nothing() -> None:
    with open_in(bytearray(SIZE)) as ring:
        at = layout.PRODUCER_AT
        struct.pack_into("<I", ring.memory, at + 36, os.getpid())
        layout.name_holder(ring.memory, at, os.getpid(), 1)  # we did not start at the boot's tick 1
        assert not is_word_held(ring.memory, at)
        ring.producer(resume=True).finalize()


CHILD = """
import sys
from multiprocessing import resource_tracker, shared_memory
import strand
shared = shared_memory.SharedMemory(name=sys.argv[1])
resource_tracker.unregister(shared._name, "shared_memory")
with strand.attach_ring(buffer=shared.buf) as ring, ring.producer() as writer:
    for index in range(100):
        writer.write_bytes(b"%d" % index * 30)
shared.close()
"""


def test_two_processes_share_a_ring_in_shared_memory_of_their_own() -> None:
    shared = shared_memory.SharedMemory(create=True, size=SIZE)
    resource_tracker.unregister(shared._name, "shared_memory")  # type: ignore[attr-defined]
    try:
        with open_in(shared.buf) as ring, ring.consumer() as view:
            with subprocess.Popen([sys.executable, "-c", CHILD, shared.name]) as child:
                received = [bytes(data) for data in view.payloads(timeout_seconds=30)]
            assert child.returncode == 0
            assert received == [b"%d" % index * 30 for index in range(100)]
    finally:
        shared.close()
        resource_tracker.register(shared._name, "shared_memory")  # type: ignore[attr-defined]
        shared.unlink()
