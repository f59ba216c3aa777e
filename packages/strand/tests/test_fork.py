"""Roles and locks after a fork: they stay with the parent."""

import os
import subprocess
import sys
from collections.abc import Callable

import pytest

import strand
from strand.layout import PRODUCER_AT
from strand.owners import is_held


def run_in_child(check: Callable[[], object]) -> int:
    """Fork, run `check` in the child, and return its exit code."""
    pid = os.fork()
    if pid == 0:
        try:
            check()
        except BaseException:  # noqa: BLE001 - a child must not come back into pytest
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_an_inherited_writer_refuses_and_the_parents_continues(ring: strand.Ring) -> None:
    with ring.producer() as writer:
        writer.write_bytes(b"before")

        def child() -> None:
            with pytest.raises(strand.RoleInherited):
                writer.write_bytes(b"from the child")
            with pytest.raises(strand.RoleInherited):
                writer.finalize()
            with pytest.raises(strand.RoleInherited):
                writer.abort("no")

        assert run_in_child(child) == 0
        writer.write_bytes(b"after")
    with ring.consumer() as view:
        assert [bytes(data) for data in view.payloads()] == [b"before", b"after"]


def test_an_inherited_view_refuses(ring: strand.Ring) -> None:
    with ring.consumer() as view:

        def child() -> None:
            with pytest.raises(strand.RoleInherited):
                view.wait_for_commit(0, 0)

        assert run_in_child(child) == 0


def test_a_child_that_closes_an_inherited_ring_removes_nothing() -> None:
    with strand.open_ring(strand.BLOCKS, 8, 4096, name="test-fork") as ring, ring.producer():
        assert run_in_child(ring.close) == 0
        assert is_held(ring.fileno(), PRODUCER_AT)
        strand.attach_ring(name="test-fork").close()


def test_a_forked_child_does_not_keep_its_parents_role_alive(ring: strand.Ring) -> None:
    reading, writing = os.pipe()
    writer = ring.producer()
    pid = os.fork()
    if pid == 0:
        os.close(writing)
        os.read(reading, 1)  # lives on until the parent is done
        os._exit(0)
    try:
        writer._locks[
            PRODUCER_AT
        ].forget()  # what the kernel does when the parent dies: closed, not unlocked
        os.close(reading)
        with ring.consumer() as view, pytest.raises(strand.ProducerDied):
            view.wait_for_commit(0, 10)
    finally:
        os.close(writing)
        os.waitpid(pid, 0)


def test_a_child_may_attach_again(ring: strand.Ring) -> None:
    def child() -> None:
        with strand.attach_ring(ring.fileno()) as own, own.producer() as writer:
            writer.write_bytes(b"hello")

    with ring.consumer() as view:
        assert run_in_child(child) == 0
        assert [bytes(data) for data in view.payloads()] == [b"hello"]


EXITS = """
import gc, os, sys, strand
ring = strand.open_ring(strand.BLOCKS, 8, 4096, name="test-fork-exits")
writer, view = ring.producer(), ring.consumer()
writer.write_bytes(b"before")
if os.fork() == 0:
    sys.exit()  # a whole interpreter's end: finalizers, weak references, everything
assert os.wait()[1] == 0
writer.write_bytes(b"after")
writer.finalize()
print(*map(bytes, view.payloads()), ring.status, os.path.exists(ring.name))
"""


def test_a_child_that_ends_removes_nothing_of_its_parent() -> None:
    done = subprocess.run(
        [sys.executable, "-X", "dev", "-c", EXITS], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "b'before' b'after' eos True\n"


def test_a_child_claims_a_role_that_its_parent_released(ring: strand.Ring) -> None:
    ring.consumer().close()

    def child() -> None:
        with ring.consumer() as view:
            assert bytes(next(view.payloads())) == b"for the child"
            view.acknowledge_read(1)

    with ring.producer() as writer:
        writer.write_bytes(b"for the child")
        assert run_in_child(child) == 0
        assert ring.consumer().acknowledged_count == 1
