# ruff: noqa: F811 - arguments named as the imported fixture
"""Plans of queries under a policy: nothing of the policy or the hidden rows is in them."""

from __future__ import annotations

from pathlib import Path

import pytest

from lake import Lake
from lake.access.rules import PolicyRule
from sennit_core.errors import Denied, UnknownColumn

from .test_policies import PEOPLE, ask, people  # noqa: F401 - a fixture


@pytest.mark.parametrize("sql", ["EXPLAIN ANALYZE FROM people", "EXPLAIN (ANALYZE) FROM people"])
def test_profiles_count_hidden_rows_so_they_are_refused(people: Lake, sql: str) -> None:
    with pytest.raises(Denied, match="profiling a query over 'people'"):
        ask(people, sql)


def test_a_plan_shows_nothing_of_the_policy_or_the_rows(people: Lake, tmp_path: Path) -> None:
    query = (
        "EXPLAIN SELECT a.owner, count(*) FROM people a JOIN people b ON a.id = b.id "
        "WHERE a.pay > 5 GROUP BY ALL"
    )
    (plan,) = ask(people, query)
    assert "people" in plan[1]
    assert "id = id" in plan[1]
    for word in ("regexp", "alice", "3000", "3,000", "1500", "1,500", "READ_PARQUET", "LIMIT"):
        assert word not in plan[1]
    with Lake(tmp_path, pool=people.pool) as empty:
        empty.append("people", PEOPLE.slice(0, 1))  # as if there were no row
        empty.set_policy("people", [PolicyRule("alice", rows="id < 0")])
        assert ask(empty, query) == [plan]
    assert "3000" in ask(people, "EXPLAIN FROM people", "", "")[0][1].replace(",", "")
    with pytest.raises(UnknownColumn, match="ssn"):
        ask(people, "EXPLAIN SELECT ssn FROM people", "carol")
    assert ask(people, "SELECT count(*) FROM people") == [(1500,)]  # of the instance for queries
