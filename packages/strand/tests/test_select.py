"""Waiting for several rings at once, with futex_waitv and without."""

import ctypes
import errno
import multiprocessing
import struct
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest

import strand
import strand.producer
import strand.selection
from sennit_core.errors import UsageError

FORK = multiprocessing.get_context("fork")
FUTEX_WAITV = 449


@pytest.fixture
def rings() -> Iterator[list[strand.Ring]]:
    with ExitStack() as stack:
        yield [
            stack.enter_context(strand.open_ring(strand.BLOCKS, records=8, heap=4096))
            for _ in range(3)
        ]


@pytest.fixture
def views(rings: list[strand.Ring]) -> list[strand.StrandView]:
    return [ring.consumer() for ring in rings]


def test_the_views_with_records_are_ready(
    rings: list[strand.Ring], views: list[strand.StrandView]
) -> None:
    assert strand.select(views, 0) == []
    first, _, third = (ring.producer() for ring in rings)
    third.write_bytes(b"a")
    assert strand.select(views) == [views[2]]
    first.write_bytes(b"b")
    assert strand.select(views) == [views[0], views[2]]
    views[2].acknowledge_read(1)
    assert strand.select(views) == [views[0]]


def test_an_ended_stream_is_ready(rings: list[strand.Ring], views: list[strand.StrandView]) -> None:
    with rings[1].producer():
        pass
    assert strand.select(views) == [views[1]]


def test_a_failed_stream_is_ready(rings: list[strand.Ring], views: list[strand.StrandView]) -> None:
    rings[0].producer()._locks[3136].release()  # as if its process were killed
    assert strand.select(views) == [views[0]]
    rings[2].producer().abort("no")
    assert views[2] in strand.select(views)


def test_a_stream_that_was_reset_is_ready(
    rings: list[strand.Ring], views: list[strand.StrandView]
) -> None:
    writer = rings[0].producer()
    writer.write_bytes(b"x")
    views[0].acknowledge_read(1)
    writer.finalize()
    writer.reset()
    assert strand.select(views, 0) == [views[0]]


def test_no_views_are_a_mistake() -> None:
    with pytest.raises(UsageError, match="one view"):
        strand.select([])


def read_all(rings: list[strand.Ring]) -> list[int]:
    """Read every ring to its end by select alone; the counts."""
    counts = [0] * len(rings)
    open_views = {ring.consumer(): at for at, ring in enumerate(rings)}
    while open_views:
        for view in strand.select(open_views):
            stop = view.committed_count
            counts[open_views[view]] += stop - view.window_start
            view.acknowledge_read(stop)
            if view.status == "eos" and stop == view.committed_count:
                del open_views[view]
    return counts


def write_all(ring: strand.Ring, count: int) -> None:
    with ring.producer() as writer:
        for index in range(count):
            writer.write_bytes(b"%d" % index)


def run_all(rings: list[strand.Ring]) -> list[int]:
    writers = [FORK.Process(target=write_all, args=(ring, 500)) for ring in rings]
    for writer in writers:
        writer.start()
    try:
        return read_all(rings)
    finally:
        for writer in writers:
            writer.join()


def test_many_rings_are_read_by_one_process(rings: list[strand.Ring]) -> None:
    assert run_all(rings) == [500, 500, 500]


@pytest.mark.timeout(60)
def test_no_wake_up_is_lost_when_naps_never_end(
    rings: list[strand.Ring], monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (strand.selection, strand.producer):  # forked processes inherit it
        monkeypatch.setattr(module, "NAP_NANOSECONDS", 10**15)
    assert run_all(rings) == [500, 500, 500]


@pytest.mark.slow
@pytest.mark.parametrize("refusal", [errno.ENOSYS, errno.EPERM])
def test_the_same_without_futex_waitv(rings: list[strand.Ring], refusal: int) -> None:
    """As on an older kernel (ENOSYS), or in a container that filters it (EPERM)."""

    def child() -> None:
        refuse_system_call(FUTEX_WAITV, refusal)
        assert count_naps() < 1000
        assert run_all(rings) == [500, 500, 500]

    process = FORK.Process(target=child)
    process.start()
    process.join(60)
    assert process.exitcode == 0


def count_naps() -> int:
    """How often an idle select goes to sleep in a fifth of a second: not to sleep is to spin."""
    naps = 0
    nap_any = strand._native.nap_any

    def nap(bells: list[Any], seen: list[int], nanoseconds: int) -> list[int]:
        nonlocal naps
        naps += 1
        return nap_any(bells, seen, nanoseconds)

    with pytest.MonkeyPatch.context() as patch, ExitStack() as stack:
        patch.setattr(strand._native, "nap_any", nap)
        rings = [stack.enter_context(strand.open_ring(strand.BLOCKS, 8, 4096)) for _ in range(2)]
        views = [ring.consumer() for ring in rings]
        assert strand.select(views, 0.2) == []
    return naps


def refuse_system_call(number: int, error: int) -> None:
    """Have one system call fail in this process from now on, by a seccomp filter."""

    class Program(ctypes.Structure):
        _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_void_p))

    load, jump_if_equal, answer, allow, fail = 0x20, 0x15, 0x06, 0x7FFF0000, 0x00050000
    steps: list[tuple[int, int, int, int]] = [
        (load, 0, 0, 0),  # the call's number
        (jump_if_equal, 0, 1, number),
        (answer, 0, 0, fail | error),
        (answer, 0, 0, allow),
    ]
    code = ctypes.create_string_buffer(b"".join(struct.pack("<HBBI", *step) for step in steps))
    program = Program(len(steps), ctypes.cast(code, ctypes.c_void_p))
    libc: Any = ctypes.CDLL(None, use_errno=True)
    assert libc.prctl(38, 1, 0, 0, 0) == 0  # PR_SET_NO_NEW_PRIVS
    assert libc.prctl(22, 2, ctypes.byref(program)) == 0  # PR_SET_SECCOMP, filter
