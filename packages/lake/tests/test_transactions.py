"""Statements between BEGIN and COMMIT: all of their changes, or none."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from lake import Lake
from lake.access.rules import PolicyRule
from lake.statements.transactions import TransactionExecution
from lake.views.views import Views
from sennit_core.clock import SystemClock
from sennit_core.errors import Conflict, Denied, NotFound, SennitError, Unsupported


@pytest.fixture
def accounts(lake: Lake) -> Lake:
    """Two accounts with 100 in one, and an empty ledger."""
    lake.sql("CREATE TABLE account AS SELECT * FROM (VALUES ('a', 100), ('b', 0)) v(name, amount)")
    lake.sql("CREATE TABLE ledger (amount INT)")
    return lake


TRANSFER = """
BEGIN;
UPDATE account SET amount = amount - 30 WHERE name = 'a';
UPDATE account SET amount = amount + 30 WHERE name = 'b';
INSERT INTO ledger SELECT sum(amount) - 100 + 30 FROM account;
COMMIT;
"""


def state(lake: Lake) -> tuple[dict[str, int], list[int]]:
    rows = dict(lake.sql("FROM account").rows)
    return rows, [amount for (amount,) in lake.sql("FROM ledger").rows]


def leftovers(lake: Lake) -> list[str]:
    return [name for name in lake.objects if not lake.catalog.references(name)]


def test_statements_see_their_own_changes_and_commit_one_snapshot_a_dataset(accounts: Lake) -> None:
    result = accounts.sql(TRANSFER)

    assert (result.value, result.columns) == (3, ["Count"])
    assert state(accounts) == ({"a": 70, "b": 30}, [30])
    versions = [each.snapshot for each in accounts.catalog.snapshots("account")]
    assert [each.version for each in versions] == [2, 1]
    assert versions[0].parent == versions[1].id
    assert versions[0].query == "; ".join(TRANSFER.split(";\n")[1:3])
    (ledger, first) = (each.snapshot for each in accounts.catalog.snapshots("ledger"))
    assert set(ledger.inputs) <= {versions[1].id, first.id}
    assert leftovers(accounts) == []
    assert accounts.verify().findings == ()


def test_a_transaction_creates_and_alters_datasets(accounts: Lake) -> None:
    accounts.sql(
        """
        BEGIN;
        CREATE TABLE one AS SELECT 1 AS a;
        ALTER TABLE one ADD COLUMN b INT;
        INSERT INTO one VALUES (2, 3);
        CREATE OR REPLACE TABLE ledger AS SELECT sum(a) AS total, max(b) AS b FROM one;
        CREATE TABLE two AS FROM ledger;
        MERGE INTO two USING one ON two.b = one.b WHEN MATCHED THEN UPDATE SET total = 99;
        COMMIT
        """
    )

    assert accounts.sql("FROM one").rows == [(1, None), (2, 3)]
    assert accounts.sql("FROM ledger").rows == [(3, 3)]
    assert accounts.sql("FROM two").rows == [(99, 3)]
    assert accounts.catalog.get("one").rows == 2
    assert leftovers(accounts) == []


@pytest.mark.parametrize(
    "end", ["ROLLBACK", "SELECT error('no'); COMMIT", "INSERT INTO missing VALUES (1); COMMIT"]
)
def test_a_transaction_that_does_not_commit_changes_nothing(accounts: Lake, end: str) -> None:
    before = {name: accounts.catalog.get(name).head for name in ("account", "ledger")}
    sql = f"BEGIN; UPDATE account SET amount = 1; CREATE TABLE new_one AS SELECT 1 AS a; {end}"

    if end == "ROLLBACK":
        assert accounts.sql(sql).value == 0
    else:
        with pytest.raises(SennitError, match="statement 4 of 5") as error:
            accounts.sql(sql)
        assert "the transaction has changed nothing" in str(error.value.hint)

    assert {name: accounts.catalog.get(name).head for name in before} == before
    assert accounts.catalog.find("new_one") is None
    assert leftovers(accounts) == []


def test_statements_around_a_transaction_commit_by_themselves(accounts: Lake) -> None:
    with pytest.raises(NotFound) as error:
        accounts.sql(
            "INSERT INTO ledger VALUES (1); BEGIN; DELETE FROM ledger; FROM missing; COMMIT"
        )
    assert "statement 1 is committed; the transaction has changed nothing" in str(error.value.hint)
    assert state(accounts)[1] == [1]


@pytest.mark.parametrize(
    "statement",
    [
        "DROP TABLE ledger",
        "ALTER TABLE ledger RENAME TO l",
    ],
)
def test_what_a_transaction_cannot_do_is_refused(accounts: Lake, statement: str) -> None:

    with pytest.raises(Unsupported, match="in a transaction"):
        accounts.sql(f"BEGIN; INSERT INTO ledger VALUES (1); {statement}; COMMIT")

    assert state(accounts)[1] == []


@pytest.fixture
def meanwhile(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], object]], list[int]]:
    """Runs a function when the statements of a transaction have run, before it is committed."""

    def arrange(action: Callable[[], object]) -> list[int]:
        attempts: list[int] = []
        run = TransactionExecution._run

        def wrapped(self: TransactionExecution, staged: object) -> object:
            report = run(self, staged)  # type: ignore[arg-type]
            attempts.append(1)
            worker = threading.Thread(target=action)
            worker.start()
            worker.join(60)
            return report

        monkeypatch.setattr(TransactionExecution, "_run", wrapped)
        return attempts

    return arrange


def test_appends_of_others_do_not_conflict_with_appends(
    accounts: Lake, meanwhile: Callable[[Callable[[], object]], list[int]]
) -> None:
    accounts.sql("ALTER TABLE ledger ADD COLUMN note VARCHAR")
    attempts = meanwhile(lambda: accounts.sql("INSERT INTO ledger VALUES (7, 'other')"))

    accounts.sql(
        "BEGIN; INSERT INTO ledger VALUES (1, 'a'); INSERT INTO ledger VALUES (2, 'b'); COMMIT"
    )

    assert len(attempts) == 1
    assert accounts.sql("FROM ledger").rows == [(7, "other"), (1, "a"), (2, "b")]
    assert accounts.verify().findings == ()


def test_other_changes_of_others_let_it_run_again_on_the_new_state(
    accounts: Lake, meanwhile: Callable[[Callable[[], object]], list[int]]
) -> None:
    done: list[int] = []

    def once() -> None:
        if not done:
            done.append(1)
            accounts.sql("UPDATE account SET amount = amount + 1000 WHERE name = 'a'")

    attempts = meanwhile(once)
    accounts.sql(TRANSFER.replace("sum(amount) - 100 + 30", "sum(amount)"))

    assert len(attempts) == 2
    assert state(accounts) == ({"a": 1070, "b": 30}, [1100])
    assert leftovers(accounts) == []


def test_rows_that_are_purged_meanwhile_do_not_come_back(
    accounts: Lake, meanwhile: Callable[[Callable[[], object]], list[int]]
) -> None:
    done: list[int] = []

    def once() -> None:
        if not done:
            done.append(1)
            accounts.purge("account", "name = 'a'", wait_seconds=0)

    attempts = meanwhile(once)
    accounts.sql("BEGIN; UPDATE account SET amount = amount + 1; COMMIT")

    assert len(attempts) == 2
    assert accounts.sql("FROM account").rows == [("b", 1)]
    assert accounts.sql("FROM account AT (VERSION => 1)").rows == [("b", 0)]
    assert accounts.verify().findings == ()


def test_a_transaction_that_always_conflicts_fails_and_changes_nothing(
    accounts: Lake, meanwhile: Callable[[Callable[[], object]], list[int]]
) -> None:
    attempts = meanwhile(lambda: accounts.sql("UPDATE account SET amount = amount + 1"))

    with pytest.raises(Conflict, match="statement 5 of 5") as error:
        accounts.sql(TRANSFER)

    assert "changed nothing" in str(error.value.hint)
    assert len(attempts) == 4
    assert state(accounts) == ({"a": 104, "b": 4}, [])
    assert leftovers(accounts) == []


@pytest.mark.parametrize(
    "change",
    [
        "DROP TABLE ledger",
        "CREATE TABLE one AS SELECT 5 AS a",
    ],
)
def test_a_dataset_that_others_drop_or_create_is_a_conflict(
    accounts: Lake, meanwhile: Callable[[Callable[[], object]], list[int]], change: str
) -> None:
    meanwhile(lambda: accounts.sql(change))
    head = accounts.catalog.get("account").head

    with pytest.raises(SennitError) as error:
        accounts.sql(
            "BEGIN; UPDATE account SET amount = 0; INSERT INTO ledger VALUES (1); "
            "CREATE TABLE one AS SELECT 1 AS a; COMMIT"
        )

    assert "changed nothing" in str(error.value.hint)
    assert accounts.catalog.get("account").head == head
    assert leftovers(accounts) == []


def test_a_transaction_reads_one_state_of_its_datasets(
    accounts: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin = type(accounts.statements).begin
    seen: list[str] = []

    def interfering(self: object, request: object, running: object) -> object:
        sql = request.sql  # type: ignore[attr-defined]
        if sql.startswith("INSERT INTO ledger SELECT") and not seen:
            seen.append(sql)
            accounts.sql("UPDATE account SET amount = 5")
        return begin(self, request, running)  # type: ignore[arg-type]

    monkeypatch.setattr(type(accounts.statements), "begin", interfering)
    accounts.sql("BEGIN; SELECT 1; INSERT INTO ledger SELECT sum(amount) FROM account; COMMIT")

    assert state(accounts) == ({"a": 5, "b": 5}, [100])


def test_views_are_created_replaced_and_dropped_with_the_rest(accounts: Lake) -> None:
    accounts.sql("CREATE VIEW old AS SELECT 1 AS a")
    accounts.sql("CREATE VIEW gone AS SELECT 1 AS a")
    block = """
    BEGIN;
    CREATE TABLE bonus AS SELECT 5 AS amount;
    CREATE VIEW total AS SELECT (SELECT sum(amount) FROM account) + amount AS n FROM bonus;
    CREATE OR REPLACE VIEW old AS SELECT n + 1 AS a FROM total;
    DROP VIEW gone;
    INSERT INTO ledger SELECT a FROM old;
    """
    accounts.sql(block + "ROLLBACK;")
    assert accounts.sql("SHOW TABLES").rows == [(n,) for n in ("account", "gone", "ledger", "old")]
    assert accounts.sql("FROM old").value == 1

    accounts.sql(block + "COMMIT;")

    assert accounts.sql("FROM old").value == accounts.sql("FROM ledger").value == 106
    names = [view.name for view in accounts.catalog.views.all()]
    assert (
        names
        == ["old", "total"]
        == [view.name for view in Views(accounts.tree, SystemClock()).all()]
    )


def test_a_transaction_of_views_fails_as_a_whole(accounts: Lake) -> None:
    for last, error in (
        ("CREATE VIEW v2 AS FROM v2", SennitError),
        ("CREATE VIEW ledger AS SELECT 1", Conflict),
        ("INSERT INTO ledger VALUES ('x')", SennitError),
        ("DROP VIEW nothing", NotFound),
    ):
        with pytest.raises(error):
            accounts.sql(f"BEGIN; CREATE VIEW v1 AS FROM ledger; {last}; COMMIT")
    assert accounts.catalog.views.all() == []


def test_a_view_that_others_have_changed_is_not_replaced_unseen(
    accounts: Lake, meanwhile: Callable[[Callable[[], object]], list[int]]
) -> None:
    accounts.sql("CREATE VIEW v AS SELECT 1 AS a")
    attempts = meanwhile(lambda: accounts.sql("CREATE OR REPLACE VIEW v AS SELECT 2 AS b"))

    with pytest.raises(Conflict, match="was changed in the meantime"):
        accounts.sql(
            "BEGIN; CREATE OR REPLACE VIEW v AS SELECT 3 AS a; DELETE FROM account; COMMIT"
        )

    assert len(attempts) == 4
    assert accounts.sql("FROM v").columns == ["b"]
    assert accounts.sql("SELECT count(*) FROM account").value == 2


@pytest.mark.parametrize(
    "change",
    ["ALTER TABLE ledger ALTER amount SET DEFAULT 7", "ALTER TABLE ledger SET SORTED BY (amount)"],
)
def test_a_change_of_columns_is_not_lost_to_an_append(
    accounts: Lake, meanwhile: Callable[[Callable[[], object]], list[int]], change: str
) -> None:
    inserts = iter(["INSERT INTO ledger VALUES (1)"])
    attempts = meanwhile(lambda: [accounts.sql(sql) for sql in inserts])

    accounts.sql(f"BEGIN; {change}; COMMIT")

    head = accounts.catalog.manifest("ledger").snapshot
    assert len(attempts) == 2
    assert head.defaults or head.sort_order
    assert accounts.sql("FROM ledger").value == 1


def test_policies_apply_in_a_transaction(accounts: Lake) -> None:
    accounts.set_policy("account", [PolicyRule("eve", rows="name = 'b'")])
    accounts.set_policy("ledger", [PolicyRule("eve", write=True)])

    def run(sql: str) -> None:
        with accounts.run(sql, user="eve", role="writer") as running:
            running.result()

    run("BEGIN; INSERT INTO ledger SELECT sum(amount) FROM account; COMMIT")
    assert state(accounts)[1] == [0]
    with pytest.raises(Denied):
        run("BEGIN; INSERT INTO ledger VALUES (1); DELETE FROM account; COMMIT")
    with pytest.raises(Denied):
        accounts.run("BEGIN; DELETE FROM ledger; COMMIT", user="b", role="reader", read_only=True)
    assert state(accounts)[1] == [0]


def test_concurrent_transfers_lose_nothing(accounts: Lake) -> None:
    errors: list[SennitError] = []

    def transfer() -> None:
        for _ in range(4):
            try:
                accounts.sql(TRANSFER.replace("30", "1"))
            except Conflict as error:
                errors.append(error)

    threads = [threading.Thread(target=transfer) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    done = 12 - len(errors)
    assert state(accounts) == ({"a": 100 - done, "b": done}, [1] * done)
    assert done >= 4
    assert leftovers(accounts) == []
