"""Tags, expiry, changes between versions, and compaction."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from elkyn import ElkynStore
from emsqrt.executor import ExecutorPool
from lake import Lake
from lake.catalog.origins import Origin
from lake.maintenance.compaction import small_runs
from sennit_core.errors import Conflict, Corrupt, NotFound, UsageError
from sennit_core.records import ShardInfo
from sennit_core.testing import ManualClock
from sennit_core.units import MIB


@pytest.fixture
def t(lake: Lake) -> Lake:
    """Versions 1 to 4: no rows, 1, 1 and 2, 2 alone."""
    lake.sql("CREATE TABLE t (a BIGINT, b VARCHAR)")
    lake.sql("INSERT INTO t VALUES (1, 'x')")
    lake.sql("INSERT INTO t VALUES (2, 'y')")
    lake.sql("DELETE FROM t WHERE a = 1")
    return lake


def versions(lake: Lake, name: str = "t") -> list[int]:
    return [each.snapshot.version for each in lake.catalog.snapshots(name)]


def changes(
    lake: Lake, since: int | str, until: int | str | None = None
) -> list[tuple[object, ...]]:
    with lake.changes("t", since, until) as execution:
        found = [row for batch in execution.batches() for row in batch.to_pylist()]
    return sorted(tuple(row.values()) for row in found)


# ---- tags ---------------------------------------------------------------------------------------


def test_a_tag_names_a_version_and_may_move(t: Lake) -> None:
    t.tag("t", "first rows", 2)
    assert t.sql("FROM t AT (VERSION => 'first rows')").rows == [(1, "x")]
    t.tag("t", "first rows", 3)
    assert t.sql("SELECT count(*) FROM t AT (VERSION => 'first' || ' rows')").value == 2
    assert t.sql("SELECT count(*) FROM t AT (VERSION => '2')").value == 1

    t.catalog.set_tag("t", "first rows", None)
    assert t.catalog.tags("t") == {}
    with pytest.raises(NotFound, match="tag of 't'"):
        t.sql("FROM t AT (VERSION => 'first rows')")


def test_what_is_no_tag_is_refused(t: Lake) -> None:
    for name in ("", " x", "a\nb", "x" * 129):
        with pytest.raises(UsageError, match="not a name for a tag"):
            t.tag("t", name, 1)
    with pytest.raises(NotFound, match="version 9"):
        t.tag("t", "x", 9)
    with pytest.raises(NotFound):
        t.catalog.set_tag("t", "nosuch", None)


def test_a_damaged_row_of_tags_is_damage(t: Lake) -> None:
    t.tag("t", "x", 2)
    dataset = t.catalog.get("t").id
    row = t.tree.get(f"/tags/{dataset}")
    t.tree.set(f"/tags/{dataset}", {**row, "checksum": "0" * 64})

    with pytest.raises(Corrupt, match="tags"):
        t.sql("FROM t AT (VERSION => 'x')")
    with pytest.raises(Corrupt, match="tags"):
        t.expire("t")  # nobody knows what is kept
    assert t.delete("t").name == "t"
    assert list(t.objects) == []


# ---- expiry -------------------------------------------------------------------------------------


def test_old_versions_expire_with_the_objects_that_only_they_used(t: Lake) -> None:
    before = set(t.objects)
    assert list(t.expire("t", keep=2)) == [1, 2]

    assert versions(t) == [4, 3]
    assert set(t.objects) < before
    assert t.verify().findings == ()
    assert t.sql("SELECT count(*) FROM t AT (VERSION => 3)").value == 2
    with pytest.raises(NotFound, match="versions 3 to 4"):
        t.sql("FROM t AT (VERSION => 1)")
    assert list(t.expire("t")) == [3]
    assert list(t.expire("t")) == []
    assert t.sql("FROM t").rows == [(2, "y")]
    t.sql("INSERT INTO t VALUES (5, 'new')")
    assert versions(t) == [5, 4]


def test_versions_with_a_tag_stay(t: Lake) -> None:
    t.tag("t", "keep", 2)
    assert list(t.expire("t")) == [1, 3]

    assert versions(t) == [4, 2]
    assert t.sql("FROM t AT (VERSION => 'keep')").rows == [(1, "x")]
    t.rollback("t", 2)
    t.catalog.set_tag("t", "keep", None)
    assert list(t.expire("t")) == [2, 4]
    assert t.sql("FROM t").rows == [(1, "x")]
    assert t.verify().findings == ()


def test_versions_expire_by_the_time_when_they_were_replaced(
    tmp_path: Path, pool: ExecutorPool
) -> None:
    clock = ManualClock()
    with (
        ElkynStore(mode="memory") as tree,
        Lake(tmp_path, tree=tree, pool=pool, clock=clock) as lake,
    ):
        for number in range(4):
            lake.sql(f"CREATE OR REPLACE TABLE t AS SELECT {number} AS a")
            clock.advance(3600)
        assert list(lake.expire("t", older_than_seconds=9000)) == [1]
        assert list(lake.expire("t", older_than_seconds=9000, keep=9)) == []
        assert lake.sql("FROM t AT (VERSION => 2)").rows == [(1,)]


def test_what_is_read_stays_until_it_was_read(t: Lake) -> None:
    with t.run("SELECT * FROM t AT (VERSION => 3), range(100_000)") as execution:
        t.expire("t")
        assert sum(batch.num_rows for batch in execution.batches()) == 200_000
    assert t.verify().findings == ()


def test_limits_of_expiry_are_checked(t: Lake) -> None:
    for keep, seconds in ((0, 0.0), (1, -1.0), (1, float("nan"))):
        with pytest.raises(UsageError):
            t.expire("t", keep=keep, older_than_seconds=seconds)


def test_an_expired_history_survives_a_new_start(tmp_path: Path, pool: ExecutorPool) -> None:
    with Lake(tmp_path, pool=pool) as lake:
        for number in range(4):
            lake.sql(f"CREATE OR REPLACE TABLE t AS SELECT {number} AS a")
        lake.expire("t", keep=2)
        kept = set(lake.objects)
    (tmp_path / "lake" / "ended-cleanly").unlink()
    with Lake(tmp_path, pool=pool) as lake:
        assert set(lake.objects) == kept
        assert lake.verify().findings == ()
        assert versions(lake) == [4, 3]


# ---- changes ------------------------------------------------------------------------------------


def test_changes_are_the_rows_added_and_removed(t: Lake) -> None:
    assert changes(t, 1, 3) == [("insert", 1, "x"), ("insert", 2, "y")]
    assert changes(t, 3) == [("delete", 1, "x")]
    assert changes(t, 4, 2) == [("delete", 2, "y"), ("insert", 1, "x")]
    assert changes(t, 2, 2) == []
    t.tag("t", "now", 4)
    t.sql("INSERT INTO t SELECT 2, 'y' FROM range(2)")
    assert changes(t, "now") == [("insert", 2, "y")] * 2


def test_changes_have_the_columns_of_the_later_version(t: Lake) -> None:
    t.sql("ALTER TABLE t RENAME b TO name")
    t.sql("ALTER TABLE t ADD c BIGINT")
    assert changes(t, 4) == []
    t.sql("UPDATE t SET c = 7")

    assert changes(t, 4) == [("delete", 2, "y", None), ("insert", 2, "y", 7)]
    with t.changes("t", 4) as execution:
        assert execution.result()["columns"][0]["name"] == "change"
    with pytest.raises(NotFound, match="version 77"):
        t.changes("t", 77)


def test_a_column_that_a_rollback_brings_back_has_no_values_in_versions_without_it(t: Lake) -> None:
    t.sql("ALTER TABLE t DROP b")  # its files still have it
    t.rollback("t", 4)

    assert changes(t, 5) == [("delete", 2, None), ("insert", 2, "y")]
    assert changes(t, 4) == []


# ---- compaction ---------------------------------------------------------------------------------


def test_small_shards_become_one_with_the_rows_in_order(lake: Lake) -> None:
    lake.sql("CREATE TABLE t (a BIGINT)")
    for number in range(6):
        lake.sql(f"INSERT INTO t VALUES ({number})")
    lake.sql("ALTER TABLE t ADD b VARCHAR")
    lake.sql("INSERT INTO t VALUES (6, 'new')")

    info = lake.compact("t", user="ada")

    assert (info.rows, info.shards) == (7, 1)
    assert lake.sql("FROM t").rows == [*((n, None) for n in range(6)), (6, "new")]
    assert lake.catalog.manifest("t").snapshot.author == "ada"
    assert changes(lake, lake.catalog.manifest("t").snapshot.version - 1) == []
    head = info.head
    assert lake.compact("t").head == head  # nothing is left to do


def test_compaction_and_appends_do_not_conflict(lake: Lake) -> None:
    lake.sql("CREATE TABLE t AS SELECT 0::BIGINT AS a")
    for number in range(1, 4):
        lake.sql(f"INSERT INTO t VALUES ({number})")
    execution = lake.statements.compact("t", "")
    assert execution is not None
    with execution:
        answer = execution._run()
        lake.sql("INSERT INTO t VALUES (4)")
        lake._writer.commit(answer, Origin("compact", ""))

    assert lake.sql("FROM t").rows == [(n,) for n in range(5)]
    assert lake.catalog.get("t").shards == 2


def test_compaction_of_changed_shards_is_a_conflict(lake: Lake) -> None:
    lake.sql("CREATE TABLE t AS SELECT 0::BIGINT AS a")
    lake.sql("INSERT INTO t VALUES (1)")
    execution = lake.statements.compact("t", "")
    assert execution is not None
    with execution:
        answer = execution._run()
        lake.sql("UPDATE t SET a = 7 WHERE a = 1")
        with pytest.raises(Conflict):
            lake._writer.commit(answer, Origin("compact", ""))
    assert lake.sql("FROM t").rows == [(0,), (7,)]
    assert lake.verify().findings == ()


@given(st.lists(st.integers(0, 80 * MIB), max_size=60))
def test_runs_are_of_usual_size_and_worth_it(sizes: list[int]) -> None:
    shards = [ShardInfo(f"{n:064x}", 1, size, {}, {}) for n, size in enumerate(sizes)]
    runs = small_runs(shards)
    for run in runs:
        assert run == list(range(run[0], run[-1] + 1))
        assert len(run) > 1
        total = sum(sizes[n] for n in run)
        assert total <= 64 * MIB
        assert 2 * max(sizes[n] for n in run) <= total
    flat = [n for run in runs for n in run]
    assert flat == sorted(set(flat))


def test_compaction_after_every_append_writes_a_row_a_few_times() -> None:
    shards: list[ShardInfo] = []
    written = 0
    for number in range(512):
        shards.append(ShardInfo(f"{number:064x}", 1, 1000, {}, {}))
        for run in reversed(small_runs(shards)):
            merged = [shards[n] for n in run]
            size = sum(each.bytes for each in merged)
            written += size
            shards[run[0] : run[-1] + 1] = [ShardInfo(f"{written:064x}", 1, size, {}, {})]
    assert written < 12 * 512 * 1000
    assert len(shards) < 12


def test_a_change_runs_again_if_the_version_that_it_read_has_expired(
    t: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Expiry between a statement's read and its commit once failed it with `not-found`."""
    committed = t._writer.commit
    calls: list[int] = []

    def commit_late(*arguments: object, **named: object) -> object:
        calls.append(1)
        if len(calls) == 1:
            t.append("t", pa.table({"a": [9], "b": ["z"]}))
            t.expire("t", keep=1)
        return committed(*arguments, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(t._writer, "commit", commit_late)
    t.sql("UPDATE t SET b = 'new' WHERE a = 2")
    assert len(calls) == 2
    assert t.sql("FROM t ORDER BY a").rows == [(2, "new"), (9, "z")]
