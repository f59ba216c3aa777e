"""Several statements in one request, each of which commits by itself."""

from __future__ import annotations

import threading

import pytest

from lake import Lake
from sennit_core.errors import Cancelled, Denied, SennitError, SqlError, Unsupported, UsageError

from .served_lake import Client, make_app


def test_the_result_is_that_of_the_last_statement(lake: Lake) -> None:
    result = lake.sql(
        """
        CREATE TABLE t (a INT); -- the first; one
        INSERT INTO t VALUES (1), (2);
        SELECT sum(a) FROM t;
        """
    )

    assert result.value == 3
    assert [each.snapshot.query for each in lake.catalog.snapshots("t")] == [
        "INSERT INTO t VALUES (1), (2)",
        "CREATE TABLE t (a INT)",
    ]


def test_an_error_names_the_statement_and_what_is_committed(lake: Lake) -> None:
    with pytest.raises(SqlError) as error:
        lake.sql("CREATE TABLE t (a INT);\nINSERT INTO t VALUES (1);\n  SELECT a FRM t; SELECT 1")

    assert str(error.value).startswith("statement 3 of 4 (line 3, column 3): ")
    assert (error.value.line, error.value.column) == (3, 16)
    assert "statements 1, 2 are committed" in str(error.value.hint)
    assert lake.sql("FROM t").rows == [(1,)]


def test_no_statement_runs_after_one_that_failed(lake: Lake) -> None:
    lake.sql("CREATE TABLE t (a INT)")
    running = lake.run("SELECT error('no'); INSERT INTO t VALUES (1)")
    with running:
        with pytest.raises(SennitError, match="statement 1 of 2"):
            running.result()
        with pytest.raises(SennitError, match="statement 1 of 2"):
            running.result()
    assert lake.sql("FROM t").rows == []


def test_a_reader_runs_nothing_of_a_request_that_changes_data(lake: Lake) -> None:
    with pytest.raises(Denied):
        lake.run("SELECT 1; CREATE TABLE t (a INT)", user="bob", role="reader", read_only=True)
    assert lake.catalog.list() == []


def test_named_parameters_go_to_the_statements_that_name_them(lake: Lake) -> None:
    sql = "CREATE TABLE t (a INT, b VARCHAR); INSERT INTO t VALUES ($a, $b); SELECT $a + a FROM t"

    assert lake.sql(sql, {"a": 20, "b": "x"}).value == 40
    with pytest.raises(UsageError, match="a list of parameters for several statements"):
        lake.sql("SELECT ?; SELECT ?", [1, 2])
    with pytest.raises(UsageError, match=r"no statement has a parameter \$c"):
        lake.sql("SELECT 1; SELECT 2", {"c": 1})


def test_a_cancelled_request_starts_no_other_statement(lake: Lake) -> None:
    lake.sql("CREATE TABLE t (a INT)")
    sql = "INSERT INTO t VALUES (1); SELECT sum(a.range * b.range) FROM range(10000000) a, range(10000000) b; INSERT INTO t VALUES (2)"
    errors: list[SennitError] = []

    def read() -> None:
        try:
            running.result()
        except Cancelled as error:
            errors.append(error)

    with lake.run(sql) as running:
        reading = threading.Thread(target=read)
        reading.start()
        for _ in range(1000):
            if lake.sql("FROM t").rows and running.pid:
                break
        running.cancel()
        reading.join(60)
    assert len(errors) == 1
    assert lake.sql("FROM t").rows == [(1,)]


def test_over_http(lake: Lake) -> None:
    client = Client(make_app(lake))
    sql = "CREATE TABLE t (a INT); INSERT INTO t VALUES (1); SELECT a FROM t"

    response = client.post("/api/query", json={"sql": sql})
    assert response.json()["rows"] == [[1]]

    response = client.post("/api/query", json={"sql": "SELECT a FROM t; SELECT x FROM t"})
    assert response.status_code == 400
    assert response.json()["error"].startswith("statement 2 of 2 (line 1, column 18): ")
    assert client.get("/api/queries").json() == []


@pytest.mark.parametrize("format_name", ["json", "csv", "arrow", "parquet"])
def test_the_format_is_of_the_last_result(lake: Lake, format_name: str) -> None:
    with lake.run(
        "SELECT 1; BEGIN; CREATE TABLE t AS SELECT 5 AS a; COMMIT", format=format_name
    ) as r:
        data = b"".join(bytes(piece) for piece in r.payloads())
    assert b"Count" in data


def test_prepare_is_refused_with_what_to_use_instead(lake: Lake) -> None:
    with pytest.raises(Unsupported, match="no session") as error:
        lake.sql("PREPARE q AS SELECT 1")
    assert "Flight SQL" in str(error.value.hint)
