"""Plans of repeated queries: the last ones are kept, large ones are not."""

from __future__ import annotations

from lake.peers.queries.plan_cache import PlanCache
from lake.peers.sql import Cost, DistributedPlan


def plan(sql: str) -> DistributedPlan:
    return DistributedPlan(sql, "push", (), sql, (), (), Cost(1, 2, False), ())


def test_the_plans_that_were_used_last_are_kept() -> None:
    plans = PlanCache()
    for number in range(64):
        plans.put(number, plan(str(number)), 3)
    assert plans.find(0) == plan("0")
    plans.put(64, plan("64"), 3)
    assert plans.find(0) == plan("0")
    assert plans.find(1) is None
    assert plans.find(64) == plan("64")


def test_large_plans_are_not_kept() -> None:
    plans = PlanCache()
    plans.put("shards", plan("SELECT 1"), 2001)
    plans.put("text", plan("x" * 17_000), 3)
    assert plans.find("shards") is None
    assert plans.find("text") is None
