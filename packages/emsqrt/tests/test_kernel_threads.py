"""Kernel objects that two threads use at one time raise, or serialize; they never crash."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress

import pytest

from emsqrt._kernel import (
    AggTable,
    CsvParser,
    KeySpec,
    Merger,
    RowStore,
    lz4_compress,
    lz4_decompress,
    merger_bytes,
    xxh3_64,
)
from emsqrt._kernel.testing import I64, TEXT, columns
from emsqrt.external.aggregate_state import AggregateState, StateOp

SECONDS, SECONDS_MAX = 0.25, 20.0
ROWS = 20_000
BATCH = columns(
    (I64, [number * 7919 % ROWS for number in range(ROWS)]),
    (TEXT, [f"{number:020}" for number in range(ROWS)]),
)
BY_KEY = KeySpec([(0, False, False)])
BLOCK = b"".join(b"%d,%020d\n" % (number * 7919 % ROWS, number) for number in range(ROWS))
REFUSED = "another thread"


def hammer(*loops: Callable[[], object], until: str = "") -> set[str]:
    """Call each function again and again on a thread of its own; return what they raised.

    Goes on for a while, and then until one raised something with `until` in it.
    """
    started, raised, begin = time.monotonic(), set[str](), threading.Barrier(len(loops))

    def is_over() -> bool:
        gone = time.monotonic() - started
        met = not until or any(until in text for text in list(raised))
        return gone > SECONDS_MAX or (gone > SECONDS and met)

    def work(loop: Callable[[], object]) -> None:
        begin.wait()
        while not is_over():
            try:
                loop()
            except (RuntimeError, ValueError) as error:
                raised.add(str(error))

    threads = [threading.Thread(target=work, args=(loop,)) for loop in loops]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return raised


def test_a_store_that_two_threads_fill_sort_and_drain() -> None:
    store = RowStore(memoryview(bytearray(8 << 20)))
    out = [memoryview(bytearray(1 << 16)) for _ in range(2)]

    def fill() -> None:
        store.reset()
        store.add(BATCH, BY_KEY, (1,))

    def drain(room: memoryview) -> None:
        with suppress(RuntimeError):
            store.sort()
        for position in range(0, store.rows, 500):
            store.drain(room, position, store.rows)

    raised = hammer(fill, fill, lambda: drain(out[0]), lambda: drain(out[1]), until=REFUSED)
    assert any(REFUSED in text for text in raised)
    fill()
    store.sort()
    assert store.rows == ROWS


def test_a_store_that_follows_one_in_use() -> None:
    stores = [RowStore(memoryview(bytearray(8 << 20))) for _ in range(2)]

    def fill() -> None:
        stores[0].reset()
        stores[0].add(BATCH, BY_KEY, (1,))

    hammer(fill, lambda: stores[1].follow(stores[0]))
    fill()
    stores[1].follow(stores[0])
    assert stores[1].positions == stores[0].positions
    assert stores[1].row_bytes_max == stores[0].row_bytes_max
    with pytest.raises(TypeError):
        stores[1].follow(b"")  # type: ignore[arg-type]


def test_a_table_that_two_threads_fill_sort_and_drain() -> None:
    parts = [AggregateState(StateOp.COUNT_ROWS, 0, 0).as_tuple()]
    table = AggTable(memoryview(bytearray(8 << 20)), [(0, I64, False, False)], parts)
    out = memoryview(bytearray(1 << 16))

    def fill() -> None:
        table.reset()
        table.add(BATCH, 0, False)

    def drain() -> None:
        with suppress(RuntimeError):
            table.sort()
        table.drain(out, 0)

    raised = hammer(fill, fill, drain, until=REFUSED)
    assert any(REFUSED in text for text in raised)
    fill()
    assert table.groups == ROWS


def test_a_merger_that_two_threads_run() -> None:
    store, block = RowStore(memoryview(bytearray(8 << 20))), memoryview(bytearray(4 << 20))
    store.add(BATCH, BY_KEY, (1,))
    store.sort()
    size, _ = store.drain(block, 0, store.rows)
    need = -(-size // 64) * 64
    memory = memoryview(bytearray(merger_bytes(2) + 2 * need))
    outs = [memoryview(bytearray(1 << 14)) for _ in range(2)]
    held = [Merger(memory, [need, need])]

    def begin() -> None:
        merger = Merger(memoryview(bytearray(len(memory))), [need, need])
        for source in range(2):
            merger.refill(source, 0)
        held[0] = merger

    begin()
    hammer(
        lambda: held[0].run(outs[0]), lambda: held[0].run(outs[1]), lambda: held[0].head(), begin
    )


def test_a_parser_whose_columns_another_thread_reads() -> None:
    parser = CsvParser(
        memoryview(bytearray(2 << 20)), field_count=2, columns=[(0, "Int64"), (1, "Utf8")]
    )
    store = RowStore(memoryview(bytearray(8 << 20)))
    first, _ = parser.parse(BLOCK)
    latest = [first]

    def parse() -> None:
        latest[0], _ = parser.parse(BLOCK)

    def read() -> None:
        store.reset()
        store.add(latest[0], BY_KEY, (1,))

    raised = hammer(parse, read, parser.release, until="reads what was parsed")
    assert any("reads what was parsed" in text for text in raised)
    parse()
    read()
    assert store.rows == len(latest[0]) > 0


@pytest.mark.parametrize("bytes_each", [1 << 10, 1 << 20])
def test_codecs_work_side_by_side(bytes_each: int) -> None:
    raw = (b"spilled rows " * bytes_each)[:bytes_each]
    expected = xxh3_64(raw)

    def round_trip() -> None:
        stored, back = bytearray(2 * bytes_each), bytearray(bytes_each)
        size = lz4_compress(raw, stored)
        assert lz4_decompress(memoryview(stored)[:size], back) == bytes_each
        assert xxh3_64(back) == expected

    failed = hammer(round_trip, round_trip)
    assert not failed
