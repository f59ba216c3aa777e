"""Corrupted shared memory: clean errors, no crash, no endless loop, for any bytes."""

import random
import signal
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest

import strand
from sennit_core.errors import Corrupt, SennitError
from strand import layout
from strand.filters import between
from strand.header import read_header
from strand.schema import fnv1a

BUSY_SECONDS = 10  # a guard against endless loops; an example needs milliseconds
RECORDS, HEAP = 4, 512

TYPED = strand.build_schema(
    [
        ("id", "u32"),
        ("name", "utf8"),
        {"name": "data", "type": "bytes", "nullable": True},
        ("tag", "utf8_ref"),
        ("numbers", "f32_array"),
        ("extra", "json"),
    ]
)
ROW = (7, "seven", b"\x07" * 40, "b", [1.0, 2.0], {"a": [None, 1]})
META = {"intern": ["a", "b"]}

NASTY = (0, 1, 2, 3, 7, 2**15, 2**16, 2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**63, 2**64 - 1)
WORDS = [*range(28, 88, 4), *range(layout.EXTENSION_AT, 3840, 4)]


class Stalled(Exception):
    """A write would have waited."""


def stall(_threshold: int) -> None:
    raise Stalled


@contextmanager
def only_clean_errors() -> Iterator[None]:
    """Allow errors of ours, and nothing else, within a time limit."""

    def interrupt(_number: int, _frame: object) -> None:
        raise AssertionError("an endless loop")

    before = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, BUSY_SECONDS)
    try:
        with suppress(SennitError, Stalled):
            yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def make_ring(version: int, *, blocks: bool) -> strand.Ring:
    schema = strand.BLOCKS if blocks else TYPED
    metadata = None if blocks else META
    return strand.open_ring(schema, RECORDS, HEAP, version=version, metadata=metadata)


def write_some(writer: Any, *, blocks: bool) -> None:
    for index in range(3):
        if blocks:
            writer.write_bytes(bytes([index]) * 60)
        else:
            writer.write(ROW)


def uses_of(ring: strand.Ring, writer: Any, view: Any) -> list[Callable[[], object]]:
    """What a reader and a writer may do with a ring, none of which waits for long."""
    blocks = ring.map.is_blocks
    cursor = view.allocate_cursor()
    at = view.window_start
    return [
        lambda: list(view.payloads(timeout_seconds=0.001)),
        lambda: list(view.batches(timeout_seconds=0.001)),
        lambda: list(view.record_views(timeout_seconds=0.001)),
        lambda: view.wait_for_commit(at, 0),
        lambda: view.tuples(at, at + 3),
        lambda: view.to_arrow(at, at + 3),
        lambda: view.records(at, view.committed_count),
        lambda: view.get_filter_bitset("id", between(1, 9)),
        lambda: [cursor.seek(at + index) and cursor.to_dict() for index in range(5)],
        lambda: view.acknowledge_read(view.committed_count),
        lambda: view.release_consumer(view.register_consumer("next")),
        lambda: (view.progress, view.stats(), ring.stats(), view.status, view.find_failure()),
        lambda: write_some(writer, blocks=blocks),
        lambda: writer.write_columns({"id": [1]}),
        lambda: writer.claim_heap_bytes(100, 64),
        lambda: writer.commit_slot(writer.claim_slot()[1]),
        lambda: ring.consumer("oldest").close(),
        lambda: (writer.finalize(), writer.reset()),
    ]


def scribble(memory: Any, dice: random.Random, total: int) -> None:
    """Overwrite words of the header, or bytes of slots and heap."""
    for _ in range(dice.randint(1, 4)):
        where = dice.random()
        value = dice.choice([*NASTY, dice.getrandbits(64), dice.randint(0, 2 * HEAP)])
        if where < 0.4:
            struct.pack_into("<I", memory, dice.choice(WORDS), value & 0xFFFFFFFF)
        elif where < 0.7:
            struct.pack_into("<Q", memory, dice.choice(WORDS), value)
        else:
            at = dice.randrange(layout.HEADER_BYTES, total - 8)
            struct.pack_into("<Q", memory, at, value)


def attack(seed: int) -> None:
    """Use a ring while its memory is scribbled over."""
    dice = random.Random(seed)
    blocks, version = dice.choice([(True, 6), (False, 5), (False, 6)])
    with make_ring(version, blocks=blocks) as ring:
        other = strand.attach_ring(ring.fileno())
        try:
            writer: Any = other.producer()
            writer._wait_for_room = stall
            view = ring.consumer()
            write_some(writer, blocks=blocks)
            uses = uses_of(ring, writer, view)
            for _ in range(6):
                scribble(ring.memory, dice, ring.map.total_bytes)
                with only_clean_errors():
                    dice.choice(uses)()
        finally:
            with only_clean_errors():
                other.close()


@pytest.mark.sample(2)
@pytest.mark.slow
@pytest.mark.parametrize("seeds", [range(start, start + 150) for start in range(0, 600, 150)])
def test_any_bytes_in_shared_memory_are_survived(seeds: range) -> None:
    for seed in seeds:
        attack(seed)


@pytest.mark.nightly
@pytest.mark.timeout(900)
def test_any_bytes_in_shared_memory_are_survived_for_long() -> None:
    for seed in range(1000, 20_000):
        attack(seed)


# ---- headers -------------------------------------------------------------------------------------


def header_bytes(version: int) -> bytearray:
    memory = bytearray(strand.compute_map(TYPED, RECORDS, HEAP, version=version).total_bytes)
    made = strand.compute_map(TYPED, RECORDS, HEAP, version=version, metadata=META)
    strand.init_header(memory, made)
    return memory


def with_checksums(memory: bytearray) -> bytearray:
    """Make what was changed look intended."""
    size = min(struct.unpack_from("<I", memory, 88)[0], 2900)
    struct.pack_into("<I", memory, 8, fnv1a(bytes(memory[92 : 92 + size])))
    struct.pack_into("<I", memory, 24, fnv1a(bytes(memory[:24])))
    return memory


def use(memory: bytearray) -> None:
    """Attach, and read and write a little."""
    with only_clean_errors(), strand.attach_ring(buffer=memory) as ring:
        view = ring.consumer()
        writer: Any = ring.producer()
        writer._wait_for_room = stall
        for act in uses_of(ring, writer, view)[:13]:
            with suppress(SennitError, Stalled):
                act()


@pytest.mark.slow
@pytest.mark.sample(1)
@pytest.mark.parametrize("version", [5, 6])
@pytest.mark.parametrize("flip", [0x01, 0x80, 0xFF])
def test_every_byte_of_a_header_may_be_wrong(version: int, flip: int) -> None:
    intact = header_bytes(version)
    last = intact.index(b"]}", 92) + 4
    for at in (*range(last), *range(layout.EXTENSION_AT, layout.EXTENSION_AT + 36)):
        for repair in (bytearray, with_checksums):
            memory = bytearray(intact)
            memory[at] ^= flip
            use(repair(memory))


@pytest.mark.parametrize("version", [5, 6])
def test_geometry_that_leaves_the_memory_is_refused(version: int) -> None:
    intact = header_bytes(version)
    for at in (12, 16, 20, 88):
        for value in NASTY[:10]:
            memory = bytearray(intact)
            struct.pack_into("<I", memory, at, value)
            use(with_checksums(memory))


def test_a_header_cut_short_is_no_ring() -> None:
    intact = header_bytes(6)
    for size in (1, 4, 91, 92, 200, 4095, 4096, len(intact) - 1):
        with pytest.raises(strand.StrandHeaderError):
            strand.attach_ring(buffer=bytearray(intact[:size]))


@pytest.mark.parametrize("text", [b"[" * 2500, b'{"columns":' * 200, b"\xff\xfe", b'"' + b"9" * 99])
def test_metadata_of_any_shape_is_distinguished(text: bytes) -> None:
    memory = header_bytes(6)
    at = 92 + struct.unpack_from("<I", memory, 88)[0]
    struct.pack_into("<I", memory, at, len(text))
    memory[at + 4 : at + 4 + len(text)] = text
    with pytest.raises(strand.StrandHeaderError):
        read_header(memory)


# ---- what used to spin or to be believed -----------------------------------------------------------


@pytest.mark.parametrize("status", [4, 7, 2**32 - 1])
def test_an_unknown_status_ends_a_stream(ring: strand.Ring, status: int) -> None:
    with ring.consumer() as view, ring.producer() as writer:
        writer.write_bytes(b"one")
        struct.pack_into("<I", ring.memory, layout.STATUS_AT, status)
        payloads = view.payloads()
        assert bytes(next(payloads)) == b"one"
        with pytest.raises(Corrupt, match="status"):
            next(payloads)


@pytest.mark.parametrize("count", [10, 2**32, 2**64 - 1])
def test_a_count_of_more_records_than_slots_is_refused(ring: strand.Ring, count: int) -> None:
    with ring.consumer() as view, ring.producer() as writer:
        writer.write_bytes(b"one")
        struct.pack_into("<Q", ring.memory, layout.PRODUCER_AT + 8, count)
        with pytest.raises(Corrupt):
            next(view.payloads())


def test_a_reader_that_read_more_than_there_is_stops_the_writer(ring: strand.Ring) -> None:
    with ring.consumer(), ring.producer() as writer:
        for _ in range(8):
            writer.write_bytes(b"x")
        struct.pack_into("<Q", ring.memory, layout.CONSUMERS_AT, 2**40)
        with pytest.raises(Corrupt):
            writer.write_bytes(b"x")
