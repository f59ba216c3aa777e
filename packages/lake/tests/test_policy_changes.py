# ruff: noqa: ISC004 - statements over two lines, in lists
"""Changes by users who see a part of a dataset: as on the visible part alone, and no hidden row moves.

As in `test_policies`, a dataset under a policy is compared with one of the visible rows alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pytest

from emsqrt.executor import ExecutorPool
from lake import Lake
from lake.access.rules import ColumnRule, PolicyRule
from lake.statements.limits import Requester
from sennit_core.errors import Denied, SennitError, SqlError, UnknownColumn

from .test_policies import ask

ROWS = pa.table(
    {
        "id": pa.array(range(40), pa.int64()),
        "owner": ["alice" if i % 3 == 0 else "bob" for i in range(40)],
        "code": [str(i) if i % 3 == 0 else f"SECRET{i}" for i in range(40)],
        "pay": pa.array([i * 10 for i in range(40)], pa.int64()),
    }
)
RULE = PolicyRule("alice", write=True, rows="owner = current_user")
EVERYTHING = "SELECT * FROM t ORDER BY ALL"


@pytest.fixture
def whole(tmp_path_factory: pytest.TempPathFactory, pool: ExecutorPool) -> Iterator[Lake]:
    """`t` in four shards, of which alice sees and may change every third row."""
    with Lake(tmp_path_factory.mktemp("whole"), pool=pool) as lake:
        for start in range(0, 40, 10):
            lake.append("t", ROWS.slice(start, 10))
        lake.set_policy("t", [RULE])
        yield lake


@pytest.fixture
def part(tmp_path_factory: pytest.TempPathFactory, pool: ExecutorPool) -> Iterator[Lake]:
    """`t` with the rows that alice sees."""
    with Lake(tmp_path_factory.mktemp("part"), pool=pool) as lake:
        for start in range(0, 40, 10):
            rows = ROWS.slice(start, 10).to_pylist()
            lake.append("t", pa.Table.from_pylist([row for row in rows if row["owner"] == "alice"]))
        yield lake


def outcome(lake: Lake, sql: str) -> Any:
    try:
        return ask(lake, sql, "alice", "writer")
    except SennitError as error:
        return type(error), str(error), error.hint


def hidden(lake: Lake) -> Any:
    return lake.sql("SELECT * FROM t WHERE owner <> 'alice' ORDER BY id").rows


STATEMENTS = [
    "UPDATE t SET pay = pay + 1",
    "UPDATE t SET pay = 0 WHERE CAST(code AS INT) > 6",
    "UPDATE t SET pay = CAST(code AS INT)",
    "UPDATE t SET pay = (SELECT count(*) FROM t)",
    "UPDATE t SET pay = (SELECT max(pay) FROM t) WHERE id IN (SELECT id FROM t WHERE id > 9)",
    "UPDATE t SET code = CAST(to_json(t) AS VARCHAR)",
    "UPDATE t SET code = CAST(t AS VARCHAR) WHERE CAST(t AS VARCHAR) LIKE '%1%'",
    "UPDATE t SET code = CAST(hash(t) AS VARCHAR)",
    "UPDATE t SET pay = s.n FROM (SELECT id, row_number() OVER (ORDER BY id) AS n FROM t) s "
    "WHERE s.id = t.id",
    "UPDATE t SET pay = 1 / (pay - 30)",
    "UPDATE t SET pay = CAST(pay AS TINYINT) WHERE id = 39",
    "UPDATE t SET pay = NULL WHERE error(owner) IS NULL",
    "UPDATE t SET id = file_row_number",
    "UPDATE t SET id = rowid",
    "UPDATE t SET pay = 0 WHERE t.file_index > 0",
    "UPDATE t SET nosuch = 1",
    "UPDATE t x SET pay = 5 WHERE x.owner = 'bob'",
    "UPDATE t SET pay = 5 WHERE owner = 'bob' OR CAST(code AS INT) < 0",
    "DELETE FROM t",
    "DELETE FROM t WHERE owner = 'bob'",
    "DELETE FROM t WHERE CAST(code AS INT) > 10",
    "DELETE FROM t WHERE CASE WHEN owner = 'bob' THEN error(code) ELSE id = 3 END",
    "DELETE FROM t USING t AS u WHERE t.id = u.id + 3",
    "DELETE FROM t WHERE COLUMNS(*)::VARCHAR <> '9'",
    "DELETE FROM t WHERE struct_extract(t, 'file_row_number') > 2",
    "TRUNCATE t",
    "INSERT INTO t VALUES (100, 'alice', 'x', 5)",
    "INSERT INTO t SELECT id + 100, owner, code, pay FROM t",
    "INSERT INTO t BY NAME SELECT 'alice' AS owner, max(id) AS id FROM t",
    "INSERT INTO t (owner) VALUES ('alice'), ('alice')",
    "INSERT INTO t SELECT CAST(code AS INT), 'alice', 'x', 1 FROM t",
    "INSERT INTO t VALUES (1, 2)",
    "MERGE INTO t USING (SELECT 3 AS id, 7 AS n UNION SELECT 4, 7) s ON t.id = s.id "
    "WHEN MATCHED THEN UPDATE SET pay = s.n",
    "MERGE INTO t USING (SELECT range AS id FROM range(40)) s ON t.id = s.id WHEN MATCHED THEN DELETE",
    "MERGE INTO t USING (SELECT range AS id FROM range(6)) s ON t.id = s.id "
    "WHEN MATCHED THEN UPDATE SET code = CAST(t AS VARCHAR) "
    "WHEN NOT MATCHED THEN INSERT VALUES (s.id, 'alice', 'new', 0)",
    "MERGE INTO t USING (SELECT range AS id FROM range(6)) s ON t.id = s.id "
    "WHEN NOT MATCHED BY SOURCE THEN DELETE",
    "MERGE INTO t USING t AS s ON t.id = s.id AND CAST(t.code AS INT) > 3 WHEN MATCHED THEN DELETE",
]


@pytest.mark.parametrize("sql", STATEMENTS)
def test_a_change_is_as_if_the_hidden_rows_did_not_exist(whole: Lake, part: Lake, sql: str) -> None:
    before = hidden(whole)
    found = outcome(whole, sql)

    assert found == outcome(part, sql)
    assert "SECRET" not in repr(found)
    assert hidden(whole) == before
    assert ask(whole, EVERYTHING, "alice") == ask(part, EVERYTHING, "alice")


@pytest.mark.parametrize(
    "sql",
    [
        "INSERT INTO t VALUES (100, 'bob', 'x', 1)",
        "INSERT INTO t VALUES (100, 'alice', 'x', 1), (101, NULL, 'x', 1)",
        "INSERT INTO t SELECT id, 'bob', code, pay FROM t WHERE id = 3",
        "UPDATE t SET owner = 'bob' WHERE id = 3",
        "UPDATE t SET owner = NULL",
        "MERGE INTO t USING (SELECT 3 AS id) s ON t.id = s.id "
        "WHEN MATCHED THEN UPDATE SET owner = 'bob'",
        "MERGE INTO t USING (SELECT 4 AS id) s ON t.id = s.id "
        "WHEN NOT MATCHED THEN INSERT VALUES (4, 'bob', 'x', 1)",
    ],
)
def test_rows_that_would_be_hidden_are_refused(whole: Lake, sql: str) -> None:
    head = whole.catalog.get("t").head
    with pytest.raises(Denied, match="that your policy would hide") as caught:
        ask(whole, sql, "alice", "writer")
    assert "owner" not in str(caught.value)
    assert whole.catalog.get("t").head == head


@pytest.mark.parametrize(
    "sql",
    [
        "ALTER TABLE t DROP COLUMN pay",
        "ALTER TABLE t ALTER COLUMN pay SET NOT NULL",
        "ALTER TABLE t RENAME TO u",
        "DROP TABLE t",
        "CREATE OR REPLACE TABLE t AS SELECT 1 AS a",
    ],
)
def test_what_is_more_than_rows_is_refused(whole: Lake, sql: str) -> None:
    with pytest.raises(Denied, match="of which your policy shows a part"):
        ask(whole, sql, "alice", "writer")
    assert whole.sql("SELECT count(*) FROM t").value == 40


def test_hidden_and_masked_columns_are_neither_read_nor_set(whole: Lake) -> None:
    columns = (ColumnRule("code"), ColumnRule("pay", "pay // 100"))
    whole.set_policy(
        "t", [PolicyRule("carol", write=True, rows="owner = 'alice'", columns=columns)]
    )
    before = whole.sql("SELECT code, pay FROM t ORDER BY ALL").rows
    assert ask(whole, "UPDATE t SET id = id + 1000 WHERE pay = 1", "carol", "writer") == [(3,)]
    assert whole.sql("SELECT code, pay FROM t ORDER BY ALL").rows == before
    assert ask(whole, "UPDATE t SET id = pay WHERE id = 0", "carol", "writer") == [(1,)]

    for sql, error in (
        ("UPDATE t SET pay = 1", Denied),
        ("INSERT INTO t (id, owner, pay) VALUES (1, 'alice', 2)", Denied),
        ("INSERT INTO t BY NAME SELECT 'alice' AS owner, 2 AS pay", Denied),
        ("UPDATE t SET code = 'x'", UnknownColumn),
        ("INSERT INTO t (id, code) VALUES (1, 'x')", UnknownColumn),
        ("UPDATE t SET id = 1 WHERE code = 'x'", SennitError),
        ("DELETE FROM t WHERE CAST(code AS INT) > 1", SennitError),
        ("MERGE INTO t USING t AS s ON t.id = s.id WHEN MATCHED THEN UPDATE SET pay = 1", Denied),
        ("MERGE INTO t USING t AS s ON t.id = s.id WHEN MATCHED THEN UPDATE", Denied),
        ("MERGE INTO t USING t AS s ON t.id = -s.id WHEN NOT MATCHED THEN INSERT *", Denied),
        (
            "MERGE INTO t USING t AS s ON t.id = s.id WHEN MATCHED THEN UPDATE SET code = 1",
            SqlError,
        ),
        (
            "MERGE INTO t USING t AS s ON CAST(t.code AS INT) > 1 WHEN MATCHED THEN DELETE",
            SennitError,
        ),
        (
            "MERGE INTO t USING t AS s ON t.id = s.id WHEN MATCHED THEN UPDATE SET id = error(t.code)",
            SennitError,
        ),
    ):
        with pytest.raises(error) as caught:
            ask(whole, sql, "carol", "writer")
        assert "SECRET" not in repr(caught.value)
        assert not isinstance(caught.value, UnknownColumn) or "code" not in caught.value.known

    ask(whole, "INSERT INTO t VALUES (500, 'alice')", "carol", "writer")
    ask(whole, "INSERT INTO t SELECT id + 1, owner FROM t WHERE id = 500", "carol", "writer")
    assert whole.sql("SELECT * FROM t WHERE id IN (500, 501) ORDER BY id").rows == [
        (500, "alice", None, None),
        (501, "alice", None, None),
    ]
    whole.sql("UPDATE t SET code = '' WHERE code IS NULL")
    whole.sql("ALTER TABLE t ALTER COLUMN code SET NOT NULL")
    with pytest.raises(Denied, match="new rows need values") as caught:
        ask(whole, "INSERT INTO t VALUES (600, 'alice')", "carol", "writer")
    assert "code" not in str(caught.value)


MERGES = [
    "MERGE INTO t USING (SELECT range AS id FROM range(20)) s ON {} t.id = s.id "
    "WHEN MATCHED AND t.id % 2 = 0 THEN DELETE WHEN MATCHED THEN UPDATE SET id = s.id + 1000",
    "MERGE INTO t USING (FROM range(30, 60) r(k)) s ON {} t.id = s.k "
    "WHEN MATCHED THEN UPDATE SET id = -t.id "
    "WHEN NOT MATCHED THEN INSERT (owner, id) VALUES ('alice', s.k)",
    "MERGE INTO t USING (SELECT 6 AS k) s ON {} t.id = s.k WHEN MATCHED THEN UPDATE SET id = 7 "
    "WHEN NOT MATCHED BY SOURCE AND {} t.id > 20 THEN DELETE",
    "MERGE INTO t USING (SELECT 99 AS k, 'alice' AS o UNION SELECT 98, 'alice') s ON {} t.id = s.k "
    "WHEN NOT MATCHED THEN INSERT (id, owner) VALUES (k, o)",
    "MERGE INTO t USING (SELECT max(id) AS k FROM t WHERE owner = 'alice') s ON {} t.id = s.k "
    "WHEN MATCHED THEN UPDATE SET id = (SELECT sum(id) FROM t AS u WHERE u.owner = 'alice')",
]


@pytest.mark.parametrize("sql", MERGES)
@pytest.mark.parametrize("mask", ["pay // 100", None])
def test_a_merge_keeps_hidden_and_masked_values(whole: Lake, sql: str, mask: str | None) -> None:
    columns = (ColumnRule("code"), ColumnRule("pay", mask))
    rule = PolicyRule("carol", write=True, rows="owner = 'alice'", columns=columns)
    whole.set_policy("t", [rule])
    whole.sql("CREATE TABLE copy AS FROM t")

    # What the policy leaves out, the conditions of the other one leave out.
    of_all = sql.replace("{}", "t.owner = 'alice' AND").replace("INTO t ", "INTO copy AS t ")
    found = ask(whole, sql.replace("{}", ""), "carol", "writer")

    assert found == whole.sql(of_all.replace("FROM t", "FROM copy")).rows
    assert whole.sql(EVERYTHING).rows == whole.sql("SELECT * FROM copy ORDER BY ALL").rows


def test_a_merge_returns_what_the_user_sees(whole: Lake) -> None:
    columns = (ColumnRule("code"), ColumnRule("pay", "pay // 100"))
    whole.set_policy("t", [PolicyRule("carol", write=True, rows="id < 9", columns=columns)])
    sql = (
        "MERGE INTO t USING (SELECT 3 AS k UNION SELECT 20) s ON t.id = s.k "
        "WHEN MATCHED THEN UPDATE SET owner = 'c' RETURNING merge_action, *"
    )
    assert ask(whole, sql, "carol", "writer") == [("UPDATE", 3, "c", 0)]
    whole.sql("ALTER TABLE t ALTER code SET DEFAULT 'SECRET-D'")
    whole.sql("ALTER TABLE t ALTER code SET NOT NULL")
    sql = "MERGE INTO t USING (SELECT 4 AS k) s ON t.id = -1 WHEN NOT MATCHED THEN INSERT (id) VALUES (k)"
    assert ask(whole, sql, "carol", "writer") == [(1,)]
    assert whole.sql("SELECT code FROM t WHERE owner IS NULL").value == "SECRET-D"
    whole.sql("ALTER TABLE t ALTER code DROP DEFAULT")
    with pytest.raises(Denied, match="new rows need values"):
        ask(whole, sql, "carol", "writer")


@pytest.mark.parametrize(
    "rule",
    [
        PolicyRule("a", write=True, rows="pay + id > 5", columns=(ColumnRule("pay"),)),
        PolicyRule("a", write=True, columns=(ColumnRule("pay", "pay > id"),)),
        PolicyRule(
            "a", write=True, columns=(ColumnRule("pay", "CASE WHEN owner = 'x' THEN pay END"),)
        ),
    ],
)
def test_a_rule_by_which_a_writer_could_try_values_is_refused(
    whole: Lake, rule: PolicyRule
) -> None:
    with pytest.raises(SqlError, match="in a rule that may write"):
        whole.set_policy("t", [rule])


def test_progress_of_a_change_does_not_count_hidden_rows(whole: Lake) -> None:
    with whole.run("UPDATE t SET pay = 1", user="alice", role="writer") as execution:
        assert execution.result()["count"] == 14
        assert execution.progress.rows == 0


def test_who_changes_rows_may_not_replace_the_dataset(whole: Lake) -> None:
    alice = Requester("alice", is_admin=False, role="writer")
    with pytest.raises(Denied, match="changing all of 't'"):
        whole.policies.check_change("t", alice)
    for mode in ("append", "replace"):
        with pytest.raises(Denied, match="changing all of 't'"):
            whole.policies.check_upload("t", mode, alice)


def test_rows_of_a_reader_without_the_right_to_write_stay(whole: Lake) -> None:
    whole.set_policy("t", [PolicyRule("alice", rows="owner = current_user")])
    for sql in ("UPDATE t SET pay = 1", "DELETE FROM t", "INSERT INTO t VALUES (1,'alice','x',1)"):
        with pytest.raises(Denied, match="changing dataset 't'"):
            ask(whole, sql, "alice", "writer")


def test_lists_of_the_realtime_tree_are_for_admins_while_there_are_policies(whole: Lake) -> None:
    alice = Requester("alice", is_admin=False, role="reader")
    dataset = whole.catalog.get("t").id
    for path in (
        "/",
        "/datasets",
        f"/datasets/{dataset}",
        f"/snapshots/{dataset}",
        f"/tags/{dataset}",
        "/tags",
        "/uploads",
        "/queries",
        "/catalog/policies",
        "/catalog",
        "/policies",
    ):
        assert not whole.policies.may_watch(path, alice), path
    for path in ("/nodes", "/uploads/one", "/queries/one"):
        assert whole.policies.may_watch(path, alice), path
    whole.policies.remove(dataset)
    assert whole.policies.may_watch("/uploads", alice)
