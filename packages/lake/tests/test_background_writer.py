"""Shards that a second thread writes are the same as those of one thread."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from emsqrt.memory import MemoryBudget
from lake.ingest import job
from lake.ingest.background_writer import BACKGROUND_BYTES, BackgroundWriter, Writer
from lake.ingest.shards import Limits, Shard, ShardWriter
from lake.objects.disk_space import WriteBudget, WriteLimit
from sennit_core.errors import BadInput, StorageFull

from .conftest import Encode

LIMITS = Limits(shard_bytes=4096, source_bytes=90, group_rows=7)
BATCHES = {
    "numbers": pa.record_batch({"a": pa.array(range(20)), "b": pa.array([0.5] * 20)}),
    "NaN": pa.record_batch({"a": pa.array([1, None]), "b": pa.array([float("nan"), 1.0])}),
    "widened": pa.record_batch({"a": pa.array(["x", None]), "b": pa.array([1.0, 2.0])}),
    "none": pa.record_batch({"a": pa.array([], pa.int64()), "b": pa.array([], pa.float64())}),
}


def in_background(
    folder: Path,
    *,
    limits: Limits = LIMITS,
    budget: WriteBudget | None = None,
    is_busy: Callable[[], bool] = lambda: False,
) -> BackgroundWriter:
    guard = MemoryBudget(BACKGROUND_BYTES).acquire(BACKGROUND_BYTES, "rows")
    return BackgroundWriter(ShardWriter(folder, limits, "x", budget=budget), guard, is_busy)


def is_running() -> bool:
    return any(each.name == "lake-shard-writer" for each in threading.enumerate())


def written(writer: Writer, names: Sequence[str]) -> list[dict[str, Any]]:
    try:
        for place, name in enumerate(names):
            writer.write(BATCHES[name], start=30 * place, stop=30 * place + 30, line=place)
        writer.cut()
        return [described(shard) for shard in writer.shards]
    finally:
        writer.discard()


def described(shard: Shard) -> dict[str, Any]:
    return shard.to_json() | {"file": shard.path.name, "line": shard.line}


@given(names=st.lists(st.sampled_from(list(BATCHES)), max_size=12))
def test_a_second_thread_writes_the_same_objects(
    names: list[str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    expected = written(ShardWriter(tmp_path_factory.mktemp("one"), LIMITS, "x"), names)

    assert written(in_background(tmp_path_factory.mktemp("two")), names) == expected
    assert not is_running()


@pytest.mark.parametrize("late", ["", "x"])
def test_an_ingest_on_two_threads_has_the_objects_of_one(
    encode: Encode, monkeypatch: pytest.MonkeyPatch, late: str
) -> None:
    rows = "".join(f'{n},{n / 8},"line\n{n % 97}"\n' for n in range(120_000))
    text = f"id,price,note\n{rows}{late}120000,1,end\n"  # `x120000` widens the first column
    limits = {"source_bytes": 500_000}
    found = encode(text, limits=limits)
    monkeypatch.setattr(job, "_BACKGROUND_BYTES_MIN", 1 << 40)
    expected = encode(text, limits=limits)

    keys = ("object", "byteStart", "byteEnd", "firstRow", "stats")
    shards = [[each[key] for key in keys] for each in found.answer["shards"]]
    assert shards == [[each[key] for key in keys] for each in expected.answer["shards"]]
    assert found.report == expected.report
    assert len(shards) == 3


def test_a_bad_row_is_named_and_the_thread_ends(encode: Encode) -> None:
    text = "a,b\n" + "1,2\n" * 600_000 + "1,2,3\n"

    with pytest.raises(BadInput) as error:
        encode(text)

    assert error.value.line == 600_002
    assert not is_running()


def test_a_full_disk_is_reported_by_a_later_write(tmp_path: Path) -> None:
    budget = WriteBudget(WriteLimit(0, 0, bytes_max=10), tmp_path, "the ingest")
    writer = in_background(tmp_path, budget=budget)

    with pytest.raises(StorageFull):
        written(writer, ["numbers"] * 1000)

    assert not is_running()


def test_while_statements_run_one_thread_works(tmp_path: Path) -> None:
    writer = in_background(tmp_path, is_busy=lambda: True)
    writer.write(BATCHES["numbers"], start=0, stop=1)

    assert not is_running()
    writer.cut()
    assert [shard.rows for shard in writer.shards] == [20]
    writer.discard()


def test_the_memory_of_waiting_rows_is_returned(tmp_path: Path) -> None:
    budget = MemoryBudget(BACKGROUND_BYTES)
    guard = budget.acquire(BACKGROUND_BYTES, "rows")
    written(BackgroundWriter(ShardWriter(tmp_path, LIMITS, "x"), guard, lambda: False), ["NaN"])

    assert budget.used_bytes == 0
