"""A run's memory: grants by the schedule, smaller ones under pressure, and nothing left held."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import closing
from functools import partial
from pathlib import Path

import pyarrow as pa
import pytest
from fuzz_runs import smallest
from typing_extensions import Buffer

from emsqrt import scan
from emsqrt.execution_context import ExecutionContext
from emsqrt.executor.context import EntryContext
from emsqrt.memory import MemoryBudget
from emsqrt.memory.grant_plan import HOLDER_BYTES_MIN, GrantPlan
from emsqrt.metering import Meter, prefetch_first
from emsqrt.plan import FileTarget, Sink, StreamTarget, plan_to_json
from emsqrt.session import run_plan
from sennit_core.errors import CapTooSmall
from sennit_core.schema import Schema

MIB = 1 << 20


class _NullStream:
    payload_bytes_max = 1 << 16

    def write_bytes(self, payload: Buffer) -> None:
        """Drop it."""


class _Collected(_NullStream):
    def __init__(self) -> None:
        self.data = bytearray()

    def write_bytes(self, payload: Buffer) -> None:
        """Keep it."""
        self.data += payload


def context_of(size: int, folder: Path, stream: _NullStream | None = None) -> EntryContext:
    budget = MemoryBudget(size)
    return EntryContext(
        "the test", size, stream or _NullStream(), lambda _: None, folder / "spill", budget=budget
    )


def opened(run: ExecutionContext, sharing: GrantPlan, *nodes: int) -> list[ExecutionContext]:
    views = [run.at(node, "sort") for node in nodes]
    for view in views:
        view.expect_holder()
    run.map_working_set(sharing)
    return views


def test_operators_that_are_not_live_together_share_memory(tmp_path: Path) -> None:
    everything = float("inf")
    sharing = GrantPlan(
        (frozenset({1, 2}), frozenset({2, 3})), {1: everything, 2: everything, 3: everything}
    )
    with closing(context_of(64 * MIB, tmp_path)) as context, ExecutionContext(context) as run:
        one, two, three = opened(run, sharing, 1, 2, 3)
        first = one.acquire_working_memory("one")
        second = two.acquire_working_memory("two")
        assert first.size + second.size <= run.working_bytes < first.size + second.size + 3 * 4096
        first.release()
        third = three.acquire_working_memory("three")
        assert third.size == first.size or third.size == second.size
        second.release()
        third.release()


def test_grants_are_contiguous_after_any_earlier_use(tmp_path: Path) -> None:
    everything = float("inf")
    live_sets = frozenset({1, 2, 3}), frozenset({3, 4})
    sharing = GrantPlan(live_sets, dict.fromkeys((1, 2, 3, 4), everything))
    with closing(context_of(64 * MIB, tmp_path)) as context, ExecutionContext(context) as run:
        join, sort, window, group = opened(run, sharing, 1, 2, 3, 4)
        one, two, three = (each.acquire_working_memory("below") for each in (join, sort, window))
        two.release()
        one.release()
        with three, group.acquire_working_memory("group") as held:
            assert held.size > 2 * three.size - 4096
            assert held.size + three.size <= run.working_bytes


def test_the_rows_of_a_stream_are_emitted_once(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("k\n1\n2\n")

    def run(target: FileTarget | StreamTarget) -> bytes:
        emitted = _Collected()
        plan = Sink(scan(tmp_path / "a.csv").plan, target)
        with closing(context_of(64 * MIB, tmp_path, emitted)) as context:
            run_plan(plan_to_json(plan), context, tmp_path, copy_bytes_max=1 << 16)
        return bytes(emitted.data)

    stream = run(StreamTarget("arrow"))
    with pa.BufferReader(stream) as rows:
        assert pa.ipc.open_stream(rows).read_all().num_rows == 2
        assert rows.read() == b""
    copied = run(FileTarget(str(tmp_path / "out.parquet"), "parquet"))
    assert pa.ipc.open_stream(copied).read_all().num_rows == 2


@pytest.mark.nightly
def test_a_plan_whose_middle_of_three_stages_outlives_the_others_runs_in_the_named_cap(
    tmp_path: Path,
) -> None:
    for name, column, rows in (("a", "n", 400), ("b", "m", 300)):
        lines = [f"{row * 7 % 60},{row}\n" for row in range(rows)]
        (tmp_path / f"{name}.csv").write_text("".join([f"k,{column}\n", *lines]))
    left, right = (scan(tmp_path / f"{name}.csv") for name in "ab")
    joined = left.sort("n:desc").join(right, "k", "left").window((), "n", at="row_number()")
    median = joined.group_by("k", "m").agg(
        q="median(n)", e="quantile(at, 0.9)", d="sum(distinct n)"
    )
    plan = median.sink(tmp_path / "out.parquet").plan

    def run(size: int) -> int:
        with closing(context_of(size, tmp_path)) as context:
            return run_plan(plan_to_json(plan), context, tmp_path).rows_out

    rows, size = smallest(run)
    assert rows == 300
    assert size < 16 * MIB


def test_a_grant_is_smaller_when_memory_is_short(tmp_path: Path) -> None:
    sharing = GrantPlan((frozenset({1}),), {1: float("inf")})
    for room, expected in ((3 * MIB, 3 * MIB), (1000, HOLDER_BYTES_MIN)):
        with closing(context_of(64 * MIB, tmp_path)) as context, ExecutionContext(context) as run:
            (view,) = opened(run, sharing, 1)
            context.room_bytes = partial(int, room)
            with view.acquire_working_memory("sort") as held:
                assert held.size == expected
                assert view.meter.granted_bytes == expected


@pytest.mark.parametrize("room", [0, HOLDER_BYTES_MIN + 200])
def test_a_grant_is_never_smaller_than_the_need_of_its_operator(room: int, tmp_path: Path) -> None:
    least = HOLDER_BYTES_MIN + 100
    with closing(context_of(64 * MIB, tmp_path)) as context, ExecutionContext(context) as run:
        view = run.at(1, "aggregate")
        view.expect_holder(least_bytes=least)
        run.map_working_set(GrantPlan((frozenset({1}),), {1: float("inf")}))
        context.room_bytes = partial(int, room)
        with view.acquire_working_memory("aggregate") as held:
            assert held.size >= least


def test_an_operator_that_holds_twice_has_its_grant_in_two_parts(tmp_path: Path) -> None:
    sharing = GrantPlan((frozenset({1}),), {1: float("inf")})
    with closing(context_of(64 * MIB, tmp_path)) as context, ExecutionContext(context) as run:
        view = run.at(1, "sample")
        view.expect_holder()
        view.expect_holder()
        run.map_working_set(sharing)
        with view.acquire_working_memory("a") as one, view.acquire_working_memory("b") as two:
            assert one.size == two.size
            assert one.size + two.size <= run.working_bytes


def test_two_parts_of_an_odd_number_of_pages_are_there_both(tmp_path: Path) -> None:
    sharing = GrantPlan((frozenset({1}),), {1: float("inf")})
    for size in range(1_800_000, 1_800_000 + 5 * 4096, 4096):
        with closing(context_of(size, tmp_path)) as context, ExecutionContext(context) as run:
            view = run.at(1, "sample")
            view.expect_holder()
            view.expect_holder()
            run.map_working_set(sharing)
            with view.acquire_working_memory("a") as one, view.acquire_working_memory("b") as two:
                assert one.size == two.size < HOLDER_BYTES_MIN


def test_operators_that_no_schedule_knows_are_live_all_the_time() -> None:
    sharing = GrantPlan((frozenset({1}), frozenset({2})), {1: 1.0, 2: 1.0})
    seen = sharing.with_holders({1: 1, 2: 1, 9: 1})
    assert set(seen.live_sets) == {frozenset({1, 9}), frozenset({2, 9}), frozenset({9})}
    assert GrantPlan.from_json(seen.to_json()).live_sets == seen.live_sets
    grants = seen.grants(10 * MIB)
    assert max(grants[1], grants[2]) + grants[9] <= 10 * MIB


def test_a_stream_is_begun_before_memory_is_reserved_and_ended_with_it() -> None:
    events: list[str] = []

    def stream() -> Generator[int]:
        events.append("begun")
        try:
            yield 1
            yield 2
        finally:
            events.append("ended")

    with prefetch_first(stream()) as items:
        assert events == ["begun"]
        assert list(items) == [1, 2]
        assert events == ["begun", "ended"]


def test_a_meter_counts_from_the_first_row_in_to_the_last_out() -> None:
    below = Meter(0, "scan")
    above = Meter(1, "sort", [below])
    items = above.watch((n for n in below.watch(iter_of(3), measure)), measure)
    assert list(items) == [0, 1, 2]
    figures = above.to_json()
    assert (figures["rowsIn"], figures["rowsOut"], figures["bytesIn"]) == (3, 3, 30)
    assert figures["seconds"] >= 0


def iter_of(count: int) -> Generator[int]:
    yield from range(count)


def measure(_: object) -> tuple[int, int]:
    return 1, 10


@pytest.mark.nightly
@pytest.mark.parametrize("shape", ["scan", "sort", "join", "three"])
def test_a_refused_budget_names_one_that_works(tmp_path: Path, shape: str) -> None:
    path = tmp_path / "in.csv"
    path.write_text("k,v\n" + "1,2\n" * 1000)
    rows = scan(path, schema=Schema.of(k="Int64", v="Int64"))
    plans = {
        "scan": rows,
        "sort": rows.sort("k"),
        "join": rows.join(rows.distinct(), "k"),
        "three": rows.sort("k").top_k(10, "v").sort("k", "v"),
    }
    plan = plans[shape].sink(tmp_path / "out.parquet").plan
    with closing(context_of(2 * MIB, tmp_path)) as context, pytest.raises(CapTooSmall) as refused:
        run_plan(plan_to_json(plan), context, tmp_path)
    with closing(context_of(refused.value.needed_bytes, tmp_path)) as context:
        run_plan(plan_to_json(plan), context, tmp_path)
        assert context.budget.used_bytes == 0


def test_a_failed_run_leaves_nothing_reserved_and_no_spill(tmp_path: Path) -> None:
    path = tmp_path / "in.csv"
    path.write_text("k,v\n" + "1,2\n" * 1000 + "x,1\n")
    rows = scan(path, schema=Schema.of(k="Int64", v="Int64")).sort("k")
    with closing(context_of(64 * MIB, tmp_path)) as context:
        with pytest.raises(Exception, match="'x'"):
            run_plan(plan_to_json(rows.sink(tmp_path / "o.parquet").plan), context, tmp_path)
        assert context.budget.used_bytes == 0
    assert sorted(each.name for each in tmp_path.iterdir()) == ["in.csv"]
