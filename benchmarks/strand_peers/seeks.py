"""A cursor over what is already there: how fast, and whether it leaves anything behind."""

from __future__ import annotations

import gc
import tracemalloc
from functools import partial
from pathlib import Path
from typing import Any

import strand
from strand_peers.jobs import RowJob
from strand_peers.measure import Clock, Figure
from strand_peers.records import SCHEMA
from strand_peers.tables import Row, Table, Target

__all__ = ["heap_growth", "seeks"]

_SEEKS = 100_000
_RECORDS = 65536


def seeks(quick: bool) -> Table:
    """100,000 times seek() and two getters, over a full ring; best of the rounds."""
    rounds = 2 if quick else 20
    return Table(
        "seeks",
        "Cursor: seek + 2 gets on committed records",
        "M seeks/s",
        (
            Row("strand, u32 and f32", partial(_rate, rounds, "score"), "ours", Target(5.0)),
            Row("strand, u32 and string", partial(_rate, rounds, "label"), "ours"),
            Row("a list of tuples, by index", partial(_list_rate, rounds), "limit"),
        ),
        cpu_unit="CPU s/M",
    )


def heap_growth(quick: bool) -> Table:
    """What 100,000 seeks leave on the heap, as Python and as the kernel count it."""
    return Table(
        "heap",
        f"Memory that {_SEEKS:,} seeks + 2 gets leave behind",
        "MB",
        (
            Row("strand, tracemalloc", partial(_growth, traced=True), "ours", Target(0.05)),
            Row("strand, anonymous memory", partial(_growth, traced=False), "ours", Target(0.05)),
        ),
        cpu_unit="CPU s/MB",
        less_is_better=True,
    )


def _full_view() -> Any:
    ring = strand.open_ring(SCHEMA, _RECORDS, "4MiB")
    writer = ring.producer()
    writer.write_record_batch(RowJob(_RECORDS).messages())
    view: Any = ring.consumer()
    view.kept = (ring, writer)  # for as long as the view is looked at
    return view


def _rate(rounds: int, field: str) -> Figure:
    view = _full_view()
    read = _read_numbers if field == "score" else _read_labels
    read(view, 1000)
    gc.collect()
    clock = Clock()
    for _ in range(rounds):
        read(view, _SEEKS)
    began, ended, used = clock.read()
    work = rounds * _SEEKS
    return Figure(work / (ended - began), used, work)


def _read_numbers(view: Any, count: int) -> None:
    cursor = view.allocate_cursor()
    seek, get_u32, get_f32 = cursor.seek, cursor.get_u32, cursor.get_f32
    last = _RECORDS - 1
    for at in range(count):
        seek(at & last)
        get_u32("id")
        get_f32("score")


def _read_labels(view: Any, count: int) -> None:
    cursor = view.allocate_cursor()
    seek, get_u32, get_string = cursor.seek, cursor.get_u32, cursor.get_string
    last = _RECORDS - 1
    for at in range(count):
        seek(at & last)
        get_u32("id")
        get_string("label")


def _list_rate(rounds: int) -> Figure:
    """The same loop over Python objects that are there already: what the interpreter costs."""
    rows = RowJob(_RECORDS).messages()
    last = _RECORDS - 1
    clock = Clock()
    for _ in range(rounds):
        for at in range(_SEEKS):
            row = rows[at & last]
            row[0]
            row[1]
    began, ended, used = clock.read()
    work = rounds * _SEEKS
    return Figure(work / (ended - began), used, work)


def _growth(*, traced: bool) -> Figure:
    view = _full_view()
    _read_labels(view, 1000)
    gc.collect()
    if traced:
        tracemalloc.start()
    measure = tracemalloc.get_traced_memory if traced else _anonymous_bytes
    measure()
    clock = Clock()
    before = measure()[0]
    _read_labels(view, _SEEKS)
    after = measure()[0]
    return Figure(max(0, after - before), clock.read()[2], 1e6)


def _anonymous_bytes() -> tuple[int]:
    """Memory of this process that no file is behind, as the kernel counts it."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith("RssAnon:"):
            return (int(line.split()[1]) << 10,)
    raise OSError("the kernel does not tell RssAnon")
