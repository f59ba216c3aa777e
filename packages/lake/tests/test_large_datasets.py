# ruff: noqa: ISC004 - statements over two lines, in lists
"""Datasets of many shards: a statement reads the lists of shards whose summaries may match."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import duckdb
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from elkyn import ElkynStore
from emsqrt.executor import ExecutorPool
from lake import Lake
from lake.access.rules import PolicyRule
from lake.catalog.file_schemas import column_ids
from lake.catalog.list_summaries import summary_of
from lake.catalog.shard_lists import LeftOut
from sennit_core.errors import Conflict
from sennit_core.records import ShardInfo, SnapshotInfo
from sennit_core.schema import Schema

from .test_policies import ask
from .test_pruning import ROWS, TYPES, _apply, _key, _values, explained, predicates


@pytest.fixture
def small_lists(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lists of two to four shards, with summaries, that statements choose from."""
    monkeypatch.setattr("lake.catalog.manifests.UNLISTED_MAX", 1)
    monkeypatch.setattr("lake.catalog.manifests.LIST_MAX", 4)
    monkeypatch.setattr("lake.catalog.shard_lists.LIST_MAX", 4)
    monkeypatch.setattr("lake.catalog.manifests.SUMMARIZED_MIN", 2)
    monkeypatch.setattr("lake.statements.tables.CHOSEN_MIN", 1)
    monkeypatch.setattr("lake.statements.shard_statistics.PRUNED_MIN", 1)


@pytest.fixture
def events(small_lists: None, lake: Lake) -> Lake:
    """Dataset `t` of 20 shards with 10 rows each, in lists of two and a rest."""
    for start in range(0, 200, 10):
        lake.append("t", pa.table({"i": range(start, start + 10), "s": [f"k{start}"] * 10}))
    return lake


def lists_of(lake: Lake) -> list[str]:
    return [each.object for each in lake.catalog.stored_manifest("t").lists]


def damage_lists(lake: Lake, *needed: int) -> None:
    """Damage the lists of `t` that have no shard with one of these numbers, as a proof that none is read."""
    wanted = {lake.catalog.manifest("t").snapshot.shards[number].object for number in needed}
    for each in lake.catalog.stored_manifest("t").lists:
        shards = lake.catalog.lists.without("t", lake.catalog.stored_manifest("t"), ())
        assert shards.shards == lake.catalog.get("t").shards
        if not wanted & {s.object for s in lake.catalog.lists._manifests.shards_of(each)}:
            lake.objects.place(each.object).write_bytes(b"damaged")
    lake.catalog.reload()


@pytest.mark.parametrize(
    ("statement", "count", "left"),
    [
        ("SELECT count(*) FROM t WHERE i = 55", 1, 200),
        ("DELETE FROM t WHERE i BETWEEN 52 AND 54", 3, 197),
        ("DELETE FROM t WHERE s = 'k50'", 10, 190),
        ("UPDATE t SET s = 'x' WHERE i = 55", 1, 200),
        ("MERGE INTO t USING (SELECT 55 AS k) AS n ON t.i = n.k AND t.i = 55 "
         "WHEN MATCHED THEN DELETE", 1, 199),
        ("INSERT INTO t SELECT i + 1000, s FROM t WHERE s = 'k50'", 10, 210),
    ],
)  # fmt: skip
def test_a_statement_reads_the_lists_that_it_needs(
    events: Lake, statement: str, count: int, left: int
) -> None:
    before = lists_of(events)
    damage_lists(events, 5)

    assert events.sql(statement).value == count

    assert events.catalog.get("t").rows == left
    assert len(set(before) - set(lists_of(events))) <= 1


def test_explain_counts_the_shards_of_lists_that_are_not_read(events: Lake) -> None:
    assert explained(events, "FROM t WHERE i = 55") == "t: shards: 1 of 20 (statistics of i)"
    assert explained(events, "FROM t WHERE i < 500") == "t: shards: 20 of 20"
    assert explained(events, "FROM t WHERE i < 0") == "t: shards: 0 of 20 (statistics of i)"


def test_engine_emsqrt_reads_the_lists_that_it_needs(events: Lake) -> None:
    damage_lists(events, 5)

    assert events.sql("SELECT count(*) FROM t WHERE i = 55", engine="emsqrt").value == 1


def test_a_policy_chooses_lists_by_its_condition(events: Lake) -> None:
    events.set_policy("t", [PolicyRule("alice", rows="s = 'k50'")])
    damage_lists(events, 5)

    assert ask(events, "SELECT count(*), min(i) FROM t WHERE i >= 0") == [(10, 50)]


def test_changes_of_earlier_shards_keep_null_counts_and_order(events: Lake) -> None:
    events.sql("UPDATE t SET s = NULL WHERE i IN (3, 55, 199)")
    events.sql("DELETE FROM t WHERE i = 3 OR i >= 190")

    manifest = events.catalog.manifest("t").snapshot
    assert manifest.stats["s"] == {"nulls": 1}
    rows = [i for i in range(190) if i != 3]
    assert events.sql("SELECT i FROM t").fetchall() == [(i,) for i in rows]


def test_a_delete_finds_its_shards_after_others_were_appended_or_compacted(events: Lake) -> None:
    """The second one begins before the first is committed, and replaces shards by their objects."""
    with events.run("DELETE FROM t WHERE i IN (55, 195)") as execution:
        for start in range(200, 240, 10):
            events.append("t", pa.table({"i": range(start, start + 10), "s": ["k"] * 10}))
        events.sql("DELETE FROM t WHERE i = 12")
        execution.result()

    assert events.sql("SELECT count(*), count(*) FILTER (i IN (12, 55, 195)) FROM t").rows == [
        (237, 0)
    ]


def test_a_list_that_time_makes_needed_is_read_in_a_second_attempt(
    events: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As if the time between the choice and the statement had made all lists match."""
    events.sql("CREATE OR REPLACE TABLE t AS SELECT now() AS ts, 0 AS i FROM range(3)")
    for step in range(6):
        events.sql(f"INSERT INTO t SELECT now() - INTERVAL ({step} - 3) HOUR, {step}")

    def too_many(*_: Any) -> dict[str, LeftOut]:
        head = events.catalog.stored_manifest("t")
        every = frozenset(each.object for each in head.lists)
        snapshot = head.snapshot
        return {snapshot.dataset: LeftOut(snapshot.schema, column_ids(snapshot), every)}

    monkeypatch.setattr("lake.statements.statements.Statements._choose_lists", too_many)

    assert events.sql("DELETE FROM t WHERE ts < now() - INTERVAL 30 MINUTE").value == 2
    with pytest.raises(Conflict, match="meantime"):
        events.sql("SELECT count(*) FROM t WHERE ts > now() - INTERVAL 30 MINUTE")


VALUES = {
    "Int64": st.integers(-(2**62), 2**62).map(lambda n: n if abs(n) < 2**53 else str(n)),
    "Float64": st.floats(allow_nan=False, allow_infinity=False),
    "Utf8": st.text(max_size=3),
    "Date": st.dates().map(str),
    "Decimal(9,2)": st.decimals(-99, 99, places=2).map(str),
}


@given(st.data())
def test_a_summary_has_the_bounds_of_all_shards(data: st.DataObject) -> None:
    kind = data.draw(st.sampled_from(sorted(VALUES)))
    pairs = data.draw(st.lists(st.tuples(VALUES[kind], VALUES[kind]), min_size=1, max_size=5))
    schema = Schema.of(a=kind)
    snapshot = SnapshotInfo("", None, "", schema, (), {}, "", None, ())

    def plain(value: Any) -> Any:
        number = kind in ("Int64", "Float64", "Decimal(9,2)")
        return float(value) if number and kind != "Int64" else int(value) if number else value

    shards = tuple(
        ShardInfo("ab", 3, 5, {"k": 1}, {"a": {"min": min(pair, key=plain),
                                              "max": max(pair, key=plain), "nulls": 1}})
        for pair in pairs
    )  # fmt: skip
    (found,) = summary_of(snapshot, shards)

    flat = [plain(value) for pair in pairs for value in pair]
    assert (plain(found.stats["a"]["min"]), plain(found.stats["a"]["max"])) == (
        min(flat), max(flat),
    )  # fmt: skip
    assert (found.rows, found.stats["a"]["nulls"], found.partition) == (
        3 * len(pairs), len(pairs), {"k": 1},
    )  # fmt: skip


@pytest.fixture(scope="module")
def twice(tmp_path_factory: pytest.TempPathFactory, pool: ExecutorPool) -> Iterator[Lake]:
    folder = tmp_path_factory.mktemp("lake")
    with ElkynStore(mode="memory") as tree, Lake(folder, tree=tree, pool=pool) as lake:
        yield lake


STEPS = st.lists(
    st.tuples(st.just("insert"), ROWS)
    | st.tuples(st.just("insert"), ROWS)
    | st.tuples(st.just("update"), predicates(), st.sampled_from(list(TYPES)))
    | st.tuples(st.just("delete"), predicates())
    | st.tuples(st.just("rename"), st.just("s"))
    | st.tuples(st.just("compact"), st.none()),
    min_size=4,
    max_size=9,
)


@settings(
    max_examples=8,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
@given(STEPS, st.lists(predicates(), min_size=3, max_size=6))
def test_histories_are_the_same_with_and_without_lists(
    twice: Lake, small_lists: None, monkeypatch: pytest.MonkeyPatch, steps: Any, filters: list[str]
) -> None:
    columns = ", ".join(f"{name} {kind}" for name, kind in TYPES.items())
    twice.sql(f"CREATE OR REPLACE TABLE r ({columns})")
    with duckdb.connect() as peer:
        peer.execute(f"SET TimeZone = 'UTC'; CREATE TABLE r ({columns})")
        for step in steps:
            _apply(twice, peer, step)
        for condition in ("true", *filters):
            query = f"SELECT * REPLACE (tz::VARCHAR AS tz) FROM r WHERE {condition}"
            try:
                wanted = peer.execute(query).fetchall()
            except duckdb.Error:
                continue
            found = list(_values(twice.sql(query).rows))
            assert sorted(map(_key, found)) == sorted(map(_key, wanted)), condition
        assert twice.catalog.get("r").rows == twice.sql("SELECT count(*) FROM r").value
