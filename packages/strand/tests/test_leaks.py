"""A thousand rings later: no descriptor, mapping, segment, object or memory more than before."""

import gc
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import strand
from sennit_core.errors import SennitError
from strand import _native

TYPED = strand.build_schema([("id", "u32"), ("name", "utf8"), ("data", "bytes")])
CYCLES = 1000
RSS_GROWTH_MAX = 2 << 20  # allocators keep some; a leaked mapping or object each time is far more


def use_blocks(ring: strand.Ring) -> Any:
    """Write, read and lease; return a view that outlives the ring."""
    with ring.producer() as writer, ring.consumer() as view:
        writer.write_bytes(b"x" * 100)
        with writer.claim_payload(50) as memory:
            memory[:] = b"y" * 50
        return memoryview(view._read_block(0))


def use_typed(ring: strand.Ring) -> Any:
    with ring.producer() as writer, ring.consumer() as view:
        writer.write_record_batch([(1, "one", b"1"), {"id": 2, "name": "two", "data": b"22"}])
        cursor = view.allocate_cursor()
        cursor.seek(1)
        view.register_consumer("next")
        return view.tuples(0, 2), cursor.to_dict(), cursor["data"]


def fail_in_every_way(ring: strand.Ring) -> Any:
    def expect(act: Callable[[], object]) -> None:
        with pytest.raises(SennitError):
            act()

    with ring.producer() as writer, ring.consumer() as view:
        expect(ring.producer)
        expect(lambda: writer.write((1, 2, 3)))
        expect(lambda: writer.write({"id": 1, "nom": "x"}))
        expect(lambda: writer.write_record_batch([(1, "a", b""), (2, "b" * 4000, b"")]))
        expect(lambda: writer.write_bytes(b"no block ring"))
        expect(lambda: view.tuples(0, 9))
        expect(lambda: view.acknowledge_read(9))
        expect(lambda: view.release_consumer(7))
    expect(lambda: strand.attach_ring(buffer=bytearray(5000)))


def blocks(**where: Any) -> strand.Ring:
    return strand.open_ring(strand.BLOCKS, 8, 4096, **where)


def attached() -> Any:
    with blocks() as ring, strand.attach_ring(ring.fileno()) as other:
        return use_blocks(other)


def cycle_of(kind: str) -> Callable[[], Any]:
    """Return what is done again and again."""

    def once() -> Any:
        if kind == "attached":
            return attached()
        if kind in ("typed", "failing"):
            with strand.open_ring(TYPED, 8, 4096) as ring:
                return use_typed(ring) if kind == "typed" else fail_in_every_way(ring)
        where: dict[str, dict[str, Any]] = {
            "named": {"name": "test-leaks"},
            "buffer": {"buffer": bytearray(8320)},
        }
        with blocks(**where.get(kind, {})) as ring:
            return use_blocks(ring)

    return once


def is_ours(each: object) -> bool:
    return str(type(each).__module__).startswith("strand")  # some classes have a descriptor there


def facts() -> dict[str, Any]:
    """Return what a leak would show in."""
    gc.collect()
    maps = Path("/proc/self/maps").read_text().splitlines()
    return {
        "descriptors": len(os.listdir("/proc/self/fd")),  # noqa: PTH208 - names are what is counted
        "mappings": sum("strand" in line or "deleted" in line for line in maps),
        "segments": len(list(Path("/dev/shm").glob("strand-test-leaks*"))),
        "objects": sum(is_ours(each) for each in gc.get_objects()),
        "layouts": sys.getrefcount(_native.Layout),
        "producers": sys.getrefcount(_native.Producer),
        "consumers": sys.getrefcount(_native.Consumer),
        "leases": sys.getrefcount(_native.Lease),
    }


def rss_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.nightly
@pytest.mark.parametrize("kind", ["memfd", "named", "buffer", "attached", "typed", "failing"])
def test_nothing_is_left_of_a_thousand_rings(kind: str) -> None:
    once = cycle_of(kind)
    for _ in range(50):  # caches fill
        once()
    before, rss = facts(), rss_bytes()
    for _ in range(CYCLES if kind == "memfd" else CYCLES // 4):
        once()
    assert facts() == before
    assert rss_bytes() - rss < RSS_GROWTH_MAX


def blocks_of_rounds(once: Callable[[], object]) -> int:
    """Return by how many memory blocks the process grew while it did this 200 times."""
    gc.collect()
    before = sys.getallocatedblocks()
    for _ in range(200):
        once()
    gc.collect()
    return sys.getallocatedblocks() - before


@pytest.mark.nightly
@pytest.mark.parametrize("kind", ["typed", "failing"])
def test_records_and_errors_leave_no_object_behind(kind: str) -> None:
    once = cycle_of(kind)
    for _ in range(600):  # caches fill, the last of them by chance
        once()
    # The count is the whole process's: a thread or a cache of another test can add to one round,
    # a leak adds to each of them.
    assert min(blocks_of_rounds(once) for _ in range(3)) < 100  # not one for every other ring


@pytest.mark.nightly
def test_a_view_that_is_kept_holds_its_mapping_alone() -> None:
    before = facts()
    kept = [cycle_of("memfd")() for _ in range(20)]
    held = facts()
    assert held["descriptors"] == before["descriptors"] + 20  # mmap keeps one of its own
    assert held["mappings"] == before["mappings"] + 20
    assert {bytes(each) for each in kept} == {b"x" * 100}
    kept.clear()
    assert facts() == before


@pytest.mark.nightly
def test_a_ring_that_is_dropped_closes_itself() -> None:
    before = facts()
    for _ in range(20):
        ring = blocks()
        ring.consumer()
        ring.producer().write_bytes(b"x")
        del ring
    assert facts() == before
