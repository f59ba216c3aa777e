"""Schedules of random plans hold their limits, and a schedule that does not is caught."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emsqrt.pipeline import Pipeline, scan
from emsqrt.plan import Plan
from emsqrt.planner import estimate_work, lower_to_physical, optimize
from emsqrt.planner.statistics import ColumnStats, SourceStats
from emsqrt.te import TeOptions, TeSchedule, plan_te, verify
from emsqrt.te.planning import LEAST_BYTES
from sennit_core.errors import CapTooSmall, UsageError
from sennit_core.schema import Schema

MIB = 1 << 20
SCHEMA = Schema.of(a="Int64", b="Int64", c="Utf8")
COLUMNS = {
    "a": ColumnStats(8, distinct=1e6),
    "b": ColumnStats(8, distinct=50),
    "c": ColumnStats(90),
}


def source(name: str = "a.csv") -> Pipeline:
    return scan(name, schema=SCHEMA)


def schedule_of(
    plan: Plan, cap_bytes: int, rows: float = 1e8, options: TeOptions | None = None
) -> TeSchedule:
    stats = SourceStats(rows, int(rows * 100), COLUMNS)
    work = estimate_work(plan, {"a.csv": stats, "b.csv": replace(stats, rows=rows / 10)})
    return plan_te(
        lower_to_physical(plan, work, "text").plan, work, cap_bytes, options or TeOptions()
    )


def grown(pipelines: st.SearchStrategy[Pipeline]) -> st.SearchStrategy[Pipeline]:
    one: list[Callable[[Pipeline], Pipeline]] = [
        lambda rows: rows.sort("a"),
        lambda rows: rows.top_k(10, "a"),
        lambda rows: rows.distinct(),
        lambda rows: rows.filter("a > 1"),
        lambda rows: rows.expect(unique="a"),
        lambda rows: rows.sample(count=100),
        lambda rows: rows.group_by("a", "b", "c").agg(),
        lambda rows: rows.limit(5),
    ]
    two: list[Callable[[Pipeline, Pipeline], Pipeline]] = [
        lambda left, right: left.join(right, "a").select("a", "b", "c"),
        lambda left, right: left.sort("a").join(right.sort("a"), "a").select("a", "b", "c"),
        lambda left, right: left.join(right, how="cross").select("a", "b", "c"),
        lambda left, right: left.union(right),
    ]
    return st.one_of(
        st.builds(lambda change, rows: change(rows), st.sampled_from(one), pipelines),
        st.builds(lambda join, x, y: join(x, y), st.sampled_from(two), pipelines, pipelines),
    )


PLANS = st.recursive(st.sampled_from([source(), source("b.csv")]), grown, max_leaves=6)


@pytest.mark.slow
@given(
    PLANS,
    st.integers(18, 400),
    st.sampled_from([1e2, 1e5, 1e8, 1e10]),
    st.booleans(),
    st.booleans(),
)
def test_a_schedule_keeps_its_word_or_there_is_none(
    pipeline: Pipeline, cap_mib: int, rows: float, shrinking: bool, eager: bool
) -> None:
    plan = optimize(pipeline.sink("o.csv").plan)
    options = TeOptions(shrinking=shrinking, eager=eager)
    try:
        schedule = schedule_of(plan, cap_mib * MIB, rows, options)
    except CapTooSmall as refused:
        schedule = schedule_of(plan, refused.needed_bytes, rows, options)
    assert verify(schedule) == ()
    assert schedule.peak_bytes <= schedule.working_bytes
    smallest = schedule_of(plan, schedule.c_min_bytes, rows, options)
    assert verify(smallest) == ()
    with pytest.raises(CapTooSmall):
        schedule_of(plan, schedule.c_min_bytes - 2 * MIB, rows, options)


JOINED = source().sort("a:desc").join(source("b.csv").distinct(), "a").group_by("a", "c").agg()


def steps_of(pipeline: Pipeline) -> list[tuple[str, ...]]:
    schedule = schedule_of(pipeline.sink("o.csv").plan, 64 * MIB)
    assert verify(schedule) == ()
    nodes = schedule.plan.nodes
    return [
        (
            step.kind,
            nodes[step.node].operator,
            *(f"{nodes[hold.node].operator} {hold.phase}" for hold in step.holds),
        )
        for step in schedule.steps
        if step.kind != "merge"
    ]


def test_a_merge_join_reads_both_sides_at_once() -> None:
    assert steps_of(source().sort("a").join(source("b.csv").distinct(), "a")) == [
        ("gather", "sort", "sort gather"),
        ("gather", "distinct", "sort drain", "distinct gather"),
        ("write", "sink", "sort drain", "distinct drain", "join drain"),
    ]


def test_the_frontier_of_a_join_is_its_table_and_its_inputs() -> None:
    assert steps_of(JOINED) == [
        ("gather", "distinct", "distinct gather"),
        ("gather", "join", "distinct drain", "join gather"),
        ("gather", "sort", "join drain", "sort gather"),
        ("gather", "aggregate", "sort drain", "join drain", "aggregate gather"),
        ("write", "sink", "aggregate drain"),
    ]


def without_a_hold(schedule: TeSchedule, index: int) -> TeSchedule:
    steps = list(schedule.steps)
    steps[index] = replace(steps[index], holds=steps[index].holds[1:])
    return replace(schedule, steps=tuple(steps))


def other_steps(schedule: TeSchedule, *order: int) -> TeSchedule:
    return replace(schedule, steps=tuple(schedule.steps[index] for index in order))


def other_level(schedule: TeSchedule, place: int, **changes: int) -> TeSchedule:
    blocks = schedule.blocks[place]
    levels = (replace(blocks.levels[0], **changes), *blocks.levels[1:])
    return replace(schedule, blocks={**schedule.blocks, place: replace(blocks, levels=levels)})


def test_a_broken_schedule_is_caught() -> None:
    schedule = schedule_of(JOINED.sink("o.csv").plan, 24 * MIB, 1e9)
    assert verify(schedule) == ()
    count = len(schedule.steps)
    sort = next(node.id for node in schedule.plan.nodes if node.operator == "sort")
    grants = schedule.grants[sort]
    broken = [without_a_hold(schedule, index) for index in range(count)]
    broken += [
        other_steps(schedule, *(each for each in range(count) if each != index))
        for index in range(count)
    ]
    broken += [
        other_steps(schedule, *reversed(range(count))),
        replace(schedule, working_bytes=schedule.peak_bytes - 1),
        replace(schedule, cap_bytes=schedule.working_bytes),
        replace(
            schedule,
            grants={**schedule.grants, sort: replace(grants, drain_bytes=grants.drain_bytes - 1)},
        ),
        other_level(schedule, sort, fan_in=300),
        other_level(schedule, sort, block_bytes=16 * MIB),
        other_level(schedule, sort, runs_after=1, merges=1),
        other_level(schedule, sort, runs_before=7),
    ]
    for each in broken:
        assert verify(each), each.steps


def test_a_refusal_names_the_need_and_the_holders() -> None:
    with pytest.raises(CapTooSmall, match="sort by a") as refused:
        schedule_of(source().sort("a").sink("o.csv").plan, 12 * MIB)
    need = refused.value.needed_bytes
    assert schedule_of(source().sort("a").sink("o.csv").plan, need).c_min_bytes == need


def test_more_rows_never_cause_a_refusal() -> None:
    plan = source().sort("a").sink("o.csv").plan
    for rows in (0.0, 1e3, 1e9, 1e12):
        assert verify(schedule_of(plan, 20 * MIB, rows)) == ()


def test_grants_are_keyed_by_plan_node_and_fill_the_working_set() -> None:
    plan = source().sort("a").sink("o.csv").plan
    schedule = schedule_of(plan, 64 * MIB)
    assert schedule.grant(plan.input).gather_bytes == schedule.working_bytes  # type: ignore[attr-defined]
    with pytest.raises(UsageError):
        schedule.grant(plan)


def test_an_operator_known_to_be_small_gets_little_when_others_want_more() -> None:
    plan = source().sort("a").top_k(10, "b").sink("o.csv").plan
    schedule = schedule_of(plan, 64 * MIB)
    sort, top = (node.id for node in schedule.plan.nodes if node.holds)
    assert schedule.grants[top].gather_bytes < 2 * MIB
    assert schedule.grants[sort].gather_bytes > 30 * MIB
    assert schedule.grants[top].gather_bytes >= LEAST_BYTES
