# ruff: noqa: ISC004 - statements over two lines, in lists
"""Shards that are left out of changes, views, earlier versions, EM-√'s plans and datasets under a policy."""

from __future__ import annotations

import re
from typing import Any

import duckdb
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lake import Lake
from lake.access.rules import ColumnRule, PolicyRule
from sennit_core.errors import Corrupt, Denied, SennitError

from .test_policies import ask
from .test_pruning import ROWS, TYPES, _apply, _key, _values, explained, predicates, shared

__all__ = ["shared"]


@pytest.fixture
def events(lake: Lake) -> Lake:
    """Dataset `t` of ten shards with 100 rows each, by the day of `ts`."""
    lake.sql(
        "CREATE TABLE t PARTITIONED BY (d) AS SELECT i, i // 100 AS d, 'k' || (i // 100) AS s, "
        "TIMESTAMP '2024-01-01' + INTERVAL (i) HOUR AS ts FROM range(1000) AS r(i)"
    )
    return lake


def damage_shards(lake: Lake, *intact: int) -> None:
    """Damage the shards of `t` but the first, which views open, and those of some values of `d`."""
    shards = lake.catalog.manifest("t").snapshot.shards
    for place, shard in enumerate(shards):
        if place and shard.stats["d"]["min"] not in intact:
            lake.objects.place(shard.object).write_bytes(b"damaged")


@pytest.mark.parametrize(
    ("statement", "count"),
    [
        ("DELETE FROM t WHERE i = 512", 1),
        ("DELETE FROM t WHERE s = 'k5' AND i % 2 = 0", 50),
        ("DELETE FROM t WHERE ts BETWEEN '2024-01-21 20:00:00' AND '2024-01-21 21:00:00'", 2),
        ("DELETE FROM t AS x USING range(3) AS r(k) WHERE x.i = 510 + r.k AND x.d = 5", 3),
        ("UPDATE t SET i = -i WHERE d = 5 AND i > 590", 9),
        ("UPDATE t AS x SET s = (SELECT max(s) FROM t WHERE d = 5) WHERE x.i IN (501, 502)", 2),
        ("UPDATE t SET s = NULL WHERE s LIKE 'k5%'", 100),
        ("WITH w AS (FROM range(520, 530) AS r(k)) DELETE FROM t USING w WHERE i = k AND d = 5",
         10),
        ("MERGE INTO t USING (SELECT 512 AS k) AS n ON t.i = n.k AND t.d = 5 "
         "WHEN MATCHED THEN DELETE", 1),
        ("MERGE INTO t USING range(595, 605) AS n(k) ON t.i = n.k AND t.d = 5 "
         "WHEN MATCHED THEN UPDATE SET s = 'x' WHEN NOT MATCHED THEN INSERT (i, d) VALUES (k, 20)",
         10),
        ("INSERT INTO t SELECT i + 1000, d, s, ts FROM t WHERE d = 5", 100),
    ],
)  # fmt: skip
def test_a_change_opens_the_shards_that_its_conditions_need(
    events: Lake, statement: str, count: int
) -> None:
    before = {shard.object for shard in events.catalog.manifest("t").snapshot.shards}
    damage_shards(events, 5)

    assert events.sql(statement).value == count

    kept = {shard.object for shard in events.catalog.manifest("t").snapshot.shards}
    assert len(before - kept) == (0 if statement.startswith("INSERT") else 1)


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM t WHERE i = 512 OR random() > 2",
        "DELETE FROM t WHERE i = 512 AND i = (SELECT max(i) FROM t)",
        "MERGE INTO t USING (SELECT 512 AS k) AS n ON t.i = n.k AND t.d = 5 "
        "WHEN MATCHED THEN DELETE WHEN NOT MATCHED BY SOURCE AND t.i = 3 THEN DELETE",
    ],
)
def test_a_change_that_may_need_every_shard_reports_damage(events: Lake, statement: str) -> None:
    damage_shards(events, 5)

    with pytest.raises(Corrupt, match=r"shard \d"):
        events.sql(statement)


@pytest.mark.parametrize(
    ("statement", "rows"),
    [
        ("DELETE FROM t WHERE i = 512 RETURNING i, s", [(512, "k5")]),
        ("UPDATE t SET i = -i, s = DEFAULT WHERE d = 5 AND i > 598 RETURNING i, s", [(-599, "new")]),
        ("MERGE INTO t USING (SELECT 512 AS k) AS n ON t.i = n.k AND t.d = 5 "
         "WHEN MATCHED THEN UPDATE SET s = 'x' RETURNING i, s", [(512, "x")]),
        ("MERGE INTO t USING (SELECT 7 AS k) AS n ON t.i = n.k AND t.d = 20 "
         "WHEN NOT MATCHED THEN INSERT (i) VALUES (k) RETURNING i, s", [(7, "new")]),
        ("INSERT INTO t SELECT i, d, s, ts FROM t WHERE d = 5 AND i = 512 RETURNING i, s",
         [(512, "k5")]),
    ],
)  # fmt: skip
def test_a_change_that_opens_some_shards_returns_its_rows(
    events: Lake, statement: str, rows: list[tuple[int, str]]
) -> None:
    events.sql("ALTER TABLE t ALTER s SET DEFAULT 'new'")
    damage_shards(events, 5)

    assert [tuple(row.values()) for row in events.sql(statement).to_arrow().to_pylist()] == rows


def test_damage_is_reported_with_the_number_of_the_shard(events: Lake) -> None:
    place = next(
        place
        for place, shard in enumerate(events.catalog.manifest("t").snapshot.shards)
        if shard.stats["d"]["min"] == 7
    )
    shard = events.catalog.manifest("t").snapshot.shards[place]
    events.objects.place(shard.object).write_bytes(b"damaged")
    for statement in (
        "DELETE FROM t WHERE d = 7 AND i % 2 = 0",
        "SELECT sum(i) FROM t WHERE d = 7",
    ):
        with pytest.raises(Corrupt, match=f"shard {place}"):
            events.sql(statement)


def test_a_change_uses_one_time_for_pruning_and_rows(events: Lake) -> None:
    events.sql("UPDATE t SET ts = now() + INTERVAL 1 DAY WHERE d = 9")

    assert events.sql("DELETE FROM t WHERE ts < now()").value == 900
    assert events.sql("SELECT count(*) FROM t").value == 100


@pytest.mark.parametrize(
    ("view", "query", "shown"),
    [
        ("v AS SELECT i, d FROM t WHERE d = 5", "SELECT count(*) FROM v", "1 of 10"),
        ("v AS FROM t", "FROM v WHERE d IN (3, 5) AND v.i > 400", "1 of 10"),
        ("v (a, b) AS SELECT d, i FROM t ORDER BY d", "FROM v AS w WHERE w.a = 5", "1 of 10"),
        ("v AS SELECT t.*, 1 AS one FROM t", "FROM v WHERE i < 150", "2 of 10"),
        ("v AS SELECT d AS e FROM t UNION ALL SELECT i FROM t", "FROM v WHERE e = 950", "1 of 10"),
        ("v AS SELECT d AS e FROM t WHERE i < 300", "FROM (FROM v) AS q WHERE e > 1", "1 of 10"),
        ("v AS SELECT d, count(*) AS c FROM t GROUP BY d", "FROM v WHERE d = 5", "10 of 10"),
        ("v AS SELECT d, i FROM t LIMIT 500", "FROM v WHERE d = 5", "10 of 10"),
        ("v AS SELECT d + 0 AS d FROM t", "FROM v WHERE d = 5", "10 of 10"),
    ],
)
def test_conditions_in_and_above_a_view_leave_out_shards(
    events: Lake, view: str, query: str, shown: str
) -> None:
    events.sql(f"CREATE VIEW {view}")
    rows = sorted(map(repr, events.sql(query).rows))

    assert shown in explained(events, query)
    with duckdb.connect() as peer:
        peer.register("rows", events.sql("FROM t").to_arrow())
        peer.execute(f"CREATE TABLE t AS FROM rows; CREATE VIEW {view}")
        assert rows == sorted(map(repr, peer.execute(query).fetchall()))


def test_a_dataset_that_a_view_reads_whole_is_not_pruned_by_another_mention(events: Lake) -> None:
    events.sql("CREATE VIEW v AS SELECT count(*) AS c FROM t")

    assert events.sql("SELECT c, i FROM v, t WHERE i = 55").fetchall() == [(1000, 55)]


def test_earlier_versions_are_pruned(events: Lake) -> None:
    events.sql("DELETE FROM t WHERE d = 5")
    query = "SELECT count(*) FROM t AT (VERSION => 1) WHERE d = 5"

    assert events.sql(query).value == 100
    assert explained(events, query) == "t AT (VERSION => 1): shards: 1 of 10 (partition d)"


def test_em_sqrt_reads_the_shards_that_a_condition_needs(events: Lake) -> None:
    damage_shards(events, 5)

    for query in (
        "SELECT count(*) FROM t WHERE d = 5 AND i < 530",
        "SELECT count(*) FROM (SELECT d, i FROM t) AS q WHERE d = 5 AND i < 530",
    ):
        assert events.sql(query, engine="emsqrt").value == 30


def test_a_policy_prunes_by_its_own_condition_and_shows_nothing_of_it(events: Lake) -> None:
    rule = PolicyRule("alice", write=True, rows="d = 5", columns=(ColumnRule("s"),))
    events.set_policy("t", [rule])
    damage_shards(events, 5)

    assert ask(events, "SELECT count(*), min(i) FROM t") == [(100, 500)]
    assert ask(events, "DELETE FROM t WHERE i < 510", role="writer") == [(10,)]
    assert ask(events, "SELECT count(*) FROM t AT (VERSION => 1)") == [(100,)]
    plans = [ask(events, f"EXPLAIN FROM t WHERE i < {limit}") for limit in (5, 550)]
    assert not any("shards" in row for plan in plans for row in plan)
    with pytest.raises(Denied):
        ask(events, "EXPLAIN ANALYZE FROM t")


def test_under_a_policy_no_condition_of_the_user_decides_what_is_opened(events: Lake) -> None:
    """If it did, damage in a shard of hidden rows, or the time to open it, would show their bounds."""
    events.set_policy("t", [PolicyRule("alice", write=True, rows="i % 2 = 0")])
    damage_shards(events, 5)

    for condition in ("i = 512", "i = 300", "d = 5", "i < 0"):
        with pytest.raises(Corrupt):
            ask(events, f"SELECT count(*) FROM t WHERE {condition}")
        with pytest.raises(Corrupt):
            ask(events, f"DELETE FROM t WHERE {condition}", role="writer")


def outcome(lake: Lake, query: str, **options: Any) -> Any:
    """Return the rows of a query, or its error."""
    try:
        return sorted(map(_key, _values(ask(lake, query, **options))))
    except SennitError as error:
        return type(error), str(error)


def renamed(condition: str) -> str:
    """Return a condition on `i` as one on the view's name of that column."""
    return re.sub(r"\bi\b", "a", condition)


WIDE = "SELECT * REPLACE (tz::VARCHAR AS tz)"
STEPS = st.lists(
    st.tuples(st.just("insert"), ROWS)
    | st.tuples(st.just("update"), predicates(), st.sampled_from(list(TYPES)))
    | st.tuples(st.just("delete"), predicates()),
    min_size=3,
    max_size=6,
)


@settings(
    max_examples=8,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
@given(STEPS, st.lists(predicates(), min_size=3, max_size=5), predicates())
def test_every_kind_of_scan_has_the_rows_of_all_shards(
    shared: Lake,
    monkeypatch: pytest.MonkeyPatch,
    steps: Any,
    filters: list[str],
    limit: str,
) -> None:
    """Views, earlier versions, policies and EM-√, with pruning and without."""
    columns = ", ".join(f"{name} {kind}" for name, kind in TYPES.items())
    shared.sql(f"CREATE OR REPLACE TABLE r ({columns})")
    first = shared.catalog.get("r").id
    with duckdb.connect() as peer:
        peer.execute(f"SET TimeZone = 'UTC'; CREATE TABLE r ({columns})")
        for step in steps:
            _apply(shared, peer, step)
    shared.sql(
        f"CREATE OR REPLACE VIEW w AS SELECT b, i AS a, * EXCLUDE (i, b) FROM r WHERE {limit}"
    )
    shared.sql("CREATE OR REPLACE VIEW u AS SELECT * FROM r UNION ALL SELECT * FROM r WHERE i > 3")
    shared.set_policy(first, [PolicyRule("alice", rows=limit)])
    versions = [each.snapshot.version for each in shared.catalog.snapshots("r")]
    queries = [
        (text, options)
        for condition in filters
        for text, options in (
            (f"{WIDE} FROM w WHERE {renamed(condition)}", {"user": ""}),
            (f"{WIDE} FROM u WHERE {condition}", {"user": ""}),
            (f"{WIDE} FROM (SELECT * FROM r) AS q WHERE {condition}", {"user": ""}),
            (f"{WIDE} FROM r AT (VERSION => {versions[len(versions) // 2]}) WHERE {condition}",
             {"user": ""}),
            (f"{WIDE} FROM r WHERE {condition}", {"user": "alice"}),
            (f"SELECT i, s, f FROM r WHERE {condition}", {"user": "", "engine": "emsqrt"}),
        )
    ]  # fmt: skip
    pruned = [outcome(shared, text, use_cache=False, **options) for text, options in queries]
    with monkeypatch.context() as patch:
        patch.setattr("lake.statements.shard_statistics.PRUNED_MIN", 1 << 30)
        for (text, options), found in zip(queries, pruned, strict=True):
            whole = outcome(shared, text, use_cache=False, **options)
            # Without the rows whose values have an error, there may be none.
            if not isinstance(whole, tuple):
                assert found == whole, text
