"""Statements that run: their list, their end by somebody else, and their line in the audit log."""

from __future__ import annotations

import logging
import threading
import time
from typing import Any

import pytest

from lake import Lake
from lake.statements.limits import Requester
from lake.statements.running import AUDIT_LOGGER
from sennit_core.errors import Cancelled, Denied, NotFound, SennitError

ENDLESS = "SELECT count(*) FROM range(10000000000) a, range(1000) b"
ANN, BEN = Requester("ann", role="reader"), Requester("ben", role="writer")
ADMIN = Requester("root", is_admin=True, role="admin")


@pytest.fixture
def audit(caplog: pytest.LogCaptureFixture) -> list[dict[str, Any]]:
    """The members of the lines of the audit log."""

    class Lines(list[dict[str, Any]]):
        def __getitem__(self, index: Any) -> Any:
            return [vars(r)["fields"] for r in caplog.records if r.name == AUDIT_LOGGER][index]

        def __len__(self) -> int:
            return len([r for r in caplog.records if r.name == AUDIT_LOGGER])

    caplog.set_level(logging.INFO, AUDIT_LOGGER)
    return Lines()


def wait_until(condition: Any) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.01)


def test_users_see_their_own_statements_and_admins_all(flights: Lake) -> None:
    with flights.run(ENDLESS, user="ann", role="reader") as statement:
        wait_until(lambda: statement.pid)
        (info,) = flights.running.list(ANN)

        assert (info.id, info.user, info.state) == (statement.id, "ann", "running")
        assert info.statement == ENDLESS
        assert flights.running.list(BEN) == []
        assert [each.id for each in flights.running.list(ADMIN)] == [statement.id]
    assert flights.running.list(ADMIN) == []


def test_a_stopped_statement_says_who_stopped_it(flights: Lake) -> None:
    with flights.run(ENDLESS, user="ann", role="reader") as statement:
        wait_until(lambda: statement.pid)
        with pytest.raises(NotFound):
            flights.running.stop(statement.id, BEN)
        flights.running.stop(statement.id, ADMIN)
        with pytest.raises(Cancelled) as caught:
            statement.result(20)
    assert statement.id in str(caught.value)
    assert caught.value.hint == "it was stopped by root"
    assert flights.sql("SELECT 1").value == 1
    with pytest.raises(NotFound):
        flights.running.stop(statement.id, ADMIN)


def test_a_queued_statement_can_be_stopped(flights: Lake) -> None:
    size = flights.pool.size
    statements = [flights.run(ENDLESS, user="ann") for _ in range(size + 1)]
    try:
        wait_until(lambda: sum(bool(each.pid) for each in statements) == size)
        (queued,) = [each for each in flights.running.list(ADMIN) if each.state == "queued"]
        flights.running.stop(queued.id, ADMIN)
        with pytest.raises(Cancelled):
            next(each for each in statements if each.id == queued.id).result(20)
    finally:
        for each in statements:
            each.close()


def test_a_change_that_is_stopped_changes_nothing(numbers: Lake) -> None:
    head = numbers.catalog.get("t").head
    with numbers.run("INSERT INTO t SELECT i, 'x' FROM range(100_000_000) r(i)") as inserting:
        threading.Timer(0.3, numbers.running.stop, (inserting.id, ADMIN)).start()
        with pytest.raises(Cancelled):
            inserting.result()

    assert numbers.catalog.get("t").head == head


@pytest.mark.slow  # a statement is published after a second
def test_long_statements_are_in_the_tree_without_their_text(flights: Lake) -> None:
    with flights.run(ENDLESS, user="ann") as statement:
        wait_until(lambda: flights.tree.get(f"/queries/{statement.id}"))
        row = flights.tree.get(f"/queries/{statement.id}")
        assert (row["user"], row["state"]) == ("ann", "running")
        assert "statement" not in row
    assert flights.tree.get("/queries") is None


def test_each_statement_has_a_line_in_the_audit_log(flights: Lake, audit: Any) -> None:
    with flights.run("SELECT carrier FROM flights WHERE distance > ?", params=[300], user="ann",
                     role="reader") as statement:  # fmt: skip
        assert b"".join(bytes(piece) for piece in statement.payloads())
    line = audit[-1]

    assert line["query"] == statement.id
    assert (line["user"], line["role"], line["outcome"]) == ("ann", "reader", "ok")
    assert line["statement"] == "SELECT carrier FROM flights WHERE distance > ?"
    assert line["datasets"] == ["flights"]
    assert line["snapshots"] == [flights.catalog.get("flights").head]
    assert (line["rows"], line["engine"]) == (3, "duckdb")
    assert line["bytes"] > 0
    assert line["seconds"] > 0
    assert "300" not in str(line["statement"])


@pytest.mark.parametrize(
    ("sql", "options", "outcome"),
    [
        ("SELEC 1", {}, "sql"),
        ("SELECT nosuch FROM flights", {}, "unknown-column"),
        ("FROM nosuch", {}, "not-found"),
        ("SELECT getenv('HOME')", {}, "denied"),
        ("DELETE FROM flights", {"read_only": True}, "denied"),
        ("SELECT 1", {"engine": "nosuch"}, "unsupported"),
        ("SELECT 1", {"params": [1 << 90]}, "usage"),
    ],
)
def test_refused_and_failed_statements_are_logged(
    flights: Lake, audit: Any, sql: str, options: dict[str, Any], outcome: str
) -> None:
    count = len(audit)
    with pytest.raises(SennitError), flights.run(sql, user="eve", **options) as statement:
        statement.result()

    assert len(audit) == count + 1
    assert (audit[-1]["user"], audit[-1]["outcome"]) == ("eve", outcome)
    assert flights.running.list(ADMIN) == []


def test_changes_and_abandoned_results_are_logged(numbers: Lake, audit: Any) -> None:
    numbers.sql("DELETE FROM t WHERE a < 5")
    assert (audit[-1]["outcome"], audit[-1]["rows"]) == ("ok", 5)
    with numbers.run("FROM t"):
        pass
    assert audit[-1]["outcome"] == "cancelled"


def test_long_texts_are_cut(flights: Lake, audit: Any) -> None:
    flights.sql(f"SELECT 1 -- {'x' * 100_000}")
    assert len(audit[-1]["statement"]) == 4096


def test_a_reader_may_not_change_data(flights: Lake) -> None:
    with pytest.raises(Denied):
        flights.run("DELETE FROM flights", user="ann", role="reader", read_only=True)
