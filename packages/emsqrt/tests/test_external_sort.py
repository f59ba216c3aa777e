"""Any number of rows is sorted in any memory that holds three of them."""

from __future__ import annotations

import itertools
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from emsqrt._kernel import CsvParser, KeySpec, unpack_rows
from emsqrt._kernel.testing import I64, TEXT, columns, read_back
from emsqrt.external import ExternalSort, plan_sort
from emsqrt.external.fan_in import choose_window, first_merge, passes_of
from emsqrt.external.runs import Runs
from emsqrt.spill import SpillManager
from sennit_core.errors import Cancelled, CapTooSmall, Closed

KIB = 1 << 10
BY_KEY = KeySpec([(0, False, False)])
Row = tuple[int | None, str]


@pytest.fixture(scope="module")
def spill(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SpillManager]:
    with SpillManager(tmp_path_factory.mktemp("spill"), codec="none") as spill:
        yield spill


def new_sort(spill: SpillManager, memory_bytes: int, **options: Any) -> ExternalSort:
    memory = memoryview(bytearray(memory_bytes))
    return ExternalSort(memory, spill, BY_KEY, (0, 1), **options)


def add(sort: ExternalSort, rows: list[Row], batch: int = 1000) -> None:
    for start in range(0, len(rows), batch):
        part = rows[start : start + batch]
        sort.add(columns((I64, [row[0] for row in part]), (TEXT, [row[1] for row in part])))


def rows_of(sort: ExternalSort, out_bytes: int = 64 * KIB) -> list[Row]:
    out, arrays = memoryview(bytearray(out_bytes)), memoryview(bytearray(2 * out_bytes + KIB))
    found: list[Row] = []
    for filled, rows in sort.blocks(out):
        count, end, parts = unpack_rows(out[:filled], 0, rows, [I64, TEXT], arrays)
        assert (count, end) == (rows, filled)
        found += zip(*(read_back(arrays, part, count) for part in parts), strict=True)
    return found


def sorted_rows(rows: list[Row]) -> list[Row]:
    return sorted(rows, key=lambda row: (row[0] is None, row[0] or 0))


def made(count: int, keys: int, text: Callable[[int], str] = str, seed: int = 1) -> list[Row]:
    chance = random.Random(seed)
    return [
        (None if chance.random() < 0.01 else chance.randrange(keys), text(number))
        for number in range(count)
    ]


def test_rows_that_fit_are_not_spilled(spill: SpillManager) -> None:
    rows = made(2000, 50)
    sort = new_sort(spill, 256 * KIB)
    add(sort, rows)
    sort.finish()
    assert rows_of(sort) == sorted_rows(rows)
    stats = sort.stats
    assert (stats.rows, stats.runs, stats.passes, stats.spilled_bytes) == (2000, 0, 0, 0)
    assert 0 < stats.peak_bytes < stats.memory_bytes == 256 * KIB
    sort.close()


@pytest.mark.parametrize("count", [0, 1])
def test_none_and_one(spill: SpillManager, count: int) -> None:
    sort = new_sort(spill, 64 * KIB)
    add(sort, made(count, 5))
    sort.finish()
    assert rows_of(sort) == made(count, 5)


def test_spilled_rows_leave_in_order_after_one_pass(spill: SpillManager) -> None:
    rows = made(30_000, 500)
    sort = new_sort(spill, 256 * KIB)
    add(sort, rows)
    sort.finish()
    assert rows_of(sort) == sorted_rows(rows)
    stats = sort.stats
    assert stats.runs > 5
    assert (stats.passes, stats.fan_in) == (1, stats.runs)
    assert stats.peak_bytes == stats.memory_bytes
    live = spill.stats.live_bytes
    sort.close()
    assert spill.stats.live_bytes < live


def test_tiny_memory_needs_several_passes(spill: SpillManager) -> None:
    rows = made(30_000, 500)
    sort = new_sort(spill, 32 * KIB)
    add(sort, rows)
    sort.finish()
    assert rows_of(sort) == sorted_rows(rows)
    assert sort.stats.passes >= 3
    sort.close()


@pytest.mark.slow
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_any_rows_in_any_memory(spill: SpillManager, data: st.DataObject) -> None:
    seed = data.draw(st.integers(0, 2**32))
    count = data.draw(st.integers(0, 2500))
    long = data.draw(st.sampled_from([0, 10, 300, 3000]))
    keys = data.draw(st.sampled_from([1, 7, 10**6]))
    memory = data.draw(st.sampled_from([32, 40, 64, 128])) * KIB
    limit = data.draw(st.none() | st.integers(0, 3000))
    chance = random.Random(seed)
    rows = made(
        count, keys, lambda n: f"{n}," + "y" * chance.choice([0, chance.randrange(long + 1)])
    )
    sort = new_sort(spill, memory, limit=limit)
    add(sort, rows, data.draw(st.sampled_from([1, 100, 5000])))
    sort.finish()
    assert rows_of(sort, 16 * KIB) == sorted_rows(rows)[:limit]
    sort.close()


def test_rows_longer_than_blocks_pass(spill: SpillManager) -> None:
    rows = made(400, 100, lambda n: "z" * (14_000 if n % 37 == 0 else 200))
    sort = new_sort(spill, 64 * KIB)
    add(sort, rows, 10)
    sort.finish()
    assert rows_of(sort, 32 * KIB) == sorted_rows(rows)
    assert sort.stats.passes > 1
    sort.close()


def test_a_row_longer_than_memory_is_refused_with_its_size(spill: SpillManager) -> None:
    sort = new_sort(spill, 64 * KIB)
    add(sort, [(1, "a")])
    with pytest.raises(CapTooSmall, match="row 1 of the sort has 100") as caught:
        add(sort, [(2, "b" * 100_000)])
    assert caught.value.needed_bytes > 300_000
    sort.close()


def test_a_row_that_could_not_be_merged_is_refused_when_rows_spill(spill: SpillManager) -> None:
    sort = new_sort(spill, 64 * KIB)
    add(sort, [(1, "b" * 30_000)])
    with pytest.raises(CapTooSmall, match="a row before row"):
        add(sort, made(2000, 10))
    sort.close()


def test_an_output_shorter_than_a_row_is_refused(spill: SpillManager) -> None:
    long: Row = (5, "b" * 5000)
    for rows in ([long], [*made(3000, 9), long]):
        sort = new_sort(spill, 64 * KIB)
        add(sort, rows)
        sort.finish()
        with pytest.raises(CapTooSmall, match="a row"):
            rows_of(sort, 4 * KIB)
        sort.close()


def test_packed_rows_and_lines(spill: SpillManager) -> None:
    keys = random.Random(3).sample(range(10_000), 5000)
    block = b"".join(
        (8 + 4 + 5).to_bytes(4, "little")
        + (4).to_bytes(4, "little")
        + key.to_bytes(4, "big")
        + b"%05d" % key
        for key in keys
    )
    sort = ExternalSort(memoryview(bytearray(64 * KIB)), spill, None, None)
    for start in range(0, len(block), 17 * 100):
        sort.add_rows(block[start : start + 17 * 100])
    sort.finish()
    out = memoryview(bytearray(1000))
    text = b"".join(bytes(out[:filled]) for filled, _ in sort.blocks(out, ending=b"\n"))
    assert text == b"".join(b"%05d\n" % key for key in sorted(keys))
    assert sort.stats.runs > 1
    sort.close()


def test_records_leave_as_they_were_written(spill: SpillManager) -> None:
    chance = random.Random(4)
    records = [b'%d,"a ""quoted"", text",%d' % (chance.randrange(99), n) for n in range(3000)]
    parser = CsvParser(memoryview(bytearray(64 * KIB)), field_count=3, columns=[(0, "Int64")])
    sort = ExternalSort(memoryview(bytearray(64 * KIB)), spill, BY_KEY, "line")
    block, start = b"\n".join(records) + b"\n", 0
    while start < len(block):
        batch, start = parser.parse(block, start)
        sort.add(batch)
    sort.finish()
    out = memoryview(bytearray(1000))
    text = b"".join(bytes(out[:filled]) for filled, _ in sort.blocks(out, ending=b"\n"))
    assert text.splitlines() == sorted(records, key=lambda record: int(record.split(b",")[0]))
    assert sort.stats.runs > 1
    sort.close()


def test_a_limit_that_fits_never_spills(spill: SpillManager) -> None:
    rows = made(50_000, 10**9)
    sort = new_sort(spill, 128 * KIB, limit=100)
    add(sort, rows)
    sort.finish()
    assert rows_of(sort) == sorted_rows(rows)[:100]
    assert sort.stats.runs == 0
    sort.close()


@pytest.mark.slow
@pytest.mark.parametrize("order", ["random", "falling"])
def test_a_limit_uses_little_of_a_large_memory(spill: SpillManager, order: str) -> None:
    rows = made(50_000, 10**9)
    if order == "falling":  # each row belongs to the first ones when it comes
        rows = [(-number, str(number)) for number in range(50_000)]
    sort = new_sort(spill, 8192 * KIB, limit=5)
    add(sort, rows)
    sort.finish()
    assert rows_of(sort) == sorted_rows(rows)[:5]
    assert sort.stats.peak_bytes < 256 * KIB
    sort.close()


@pytest.mark.slow
def test_crowded_runs_are_merged_early(
    spill: SpillManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("emsqrt.external.runs.RUNS_MAX", 6)
    rows = made(20_000, 500)
    sort = new_sort(spill, 32 * KIB)
    add(sort, rows)
    sort.finish()
    assert rows_of(sort) == sorted_rows(rows)
    sort.close()


def test_fewer_runs_wait_where_memory_is_small(spill: SpillManager) -> None:
    def most(memory_bytes: int) -> int:
        runs = Runs(memoryview(bytearray(memory_bytes)), spill, name="waiting")
        with runs.create() as writer:
            segment = writer.finish()
        while not runs.has_too_many():
            runs.add(segment)
        return len(runs)

    assert [most(size) for size in (16 * KIB, 512 * KIB, 1024 * KIB, 8192 * KIB)] == [
        64,
        256,
        512,
        1024,
    ]


def test_compressed_runs_are_read_within_the_granted_memory(tmp_path: Path) -> None:
    rows = made(8000, 50, lambda n: f"{n % 10}" * 60)
    with SpillManager(tmp_path, codec="lz4") as spill:
        sort = new_sort(spill, 64 * KIB)
        add(sort, rows)
        sort.finish()
        assert rows_of(sort) == sorted_rows(rows)
        assert spill.stats.written_bytes < spill.stats.raw_bytes / 2
        sort.close()


def test_a_check_that_raises_ends_the_work(spill: SpillManager) -> None:
    calls = itertools.count()

    def check() -> None:
        if next(calls) > 20:
            raise Cancelled("enough")

    sort = new_sort(spill, 32 * KIB, check=check)
    with pytest.raises(Cancelled):
        add(sort, made(50_000, 100))
    sort.close()
    with pytest.raises(Closed):
        sort.finish()


def test_numbered_keys_distinguish_rows(spill: SpillManager) -> None:
    rows = made(3000, 2)
    sort = new_sort(spill, 64 * KIB, numbered=True)
    add(sort, rows, 70)
    sort.finish()
    assert rows_of(sort) == sorted_rows(rows)
    sort.close()


def test_blocks_left_early_close_their_files(spill: SpillManager) -> None:
    sort = new_sort(spill, 64 * KIB)
    add(sort, made(10_000, 9))
    sort.finish()
    blocks = sort.blocks(memoryview(bytearray(KIB)))
    next(blocks)
    blocks.close()  # type: ignore[attr-defined]
    sort.close()


def test_the_memory_can_be_released(spill: SpillManager) -> None:
    memory = memoryview(bytearray(64 * KIB))
    sort = ExternalSort(memory, spill, BY_KEY, (0, 1))
    add(sort, made(5000, 9))
    sort.finish()
    rows_of(sort)
    sort.close()
    del sort
    memory.release()


def test_the_first_merge_leaves_full_ones() -> None:
    for runs, fan_in in itertools.product(range(1, 200), (2, 3, 10)):
        left, passes = runs, passes_of(runs, fan_in)
        while left > fan_in:
            left -= first_merge(left, fan_in) - 1
            assert passes_of(left, fan_in) <= passes
        assert first_merge(left, fan_in) <= fan_in


def test_the_window_of_fewest_bytes_is_merged() -> None:
    assert choose_window([9, 9, 1, 2, 9], [64] * 5, 2, 10**6) == (2, 4)
    assert choose_window([1, 1, 1], [10**6, 64, 64], 3, 10**5) == (1, 3)
    assert choose_window([1, 1], [10**6, 64], 2, 10**5) == (0, 0)


def test_a_plan_is_what_happens(spill: SpillManager) -> None:
    rows = made(30_000, 500)
    sort = new_sort(spill, 256 * KIB)
    add(sort, rows)
    sort.finish()
    stats = sort.stats
    plan = plan_sort(256 * KIB, stats.spilled_bytes, stats.spilled_bytes // stats.rows)
    assert abs(plan.runs - stats.runs) <= 1
    assert plan.passes == 1
    assert plan_sort(256 * KIB, 100_000, 100).runs == 0
    assert plan_sort(100 << 20, 10 << 30, 150).passes == 1
    sort.close()


def test_no_package_of_others_is_loaded() -> None:
    code = "import sys, emsqrt.external; print({'numpy', 'pyarrow'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout == "set()\n"


@pytest.mark.nightly
def test_a_hundred_megabytes_in_a_quarter_of_one(spill: SpillManager) -> None:
    chance = random.Random(5)
    sort = new_sort(spill, 256 * KIB)
    for start in range(0, 1_000_000, 5000):
        keys = [chance.randrange(50_000) for _ in range(5000)]
        texts = [f"{start + row:07d}" + "x" * 93 for row in range(5000)]
        sort.add(columns((I64, keys), (TEXT, texts)))
    sort.finish()
    last, seen = (-1, ""), 0
    out, arrays = memoryview(bytearray(64 * KIB)), memoryview(bytearray(128 * KIB))
    for filled, rows in sort.blocks(out):
        _, _, parts = unpack_rows(out[:filled], 0, rows, [I64, TEXT], arrays)
        for row in zip(*(read_back(arrays, part, rows) for part in parts), strict=True):
            assert last < row, "by key, and rows with equal keys as they came"
            last = row
        seen += rows
    assert seen == 1_000_000
    assert sort.stats.passes >= 2
    sort.close()
