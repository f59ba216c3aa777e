"""Flight SQL with a real client, `adbc-driver-flightsql`."""

from __future__ import annotations

import datetime
import decimal
import threading
from collections.abc import Callable, Iterator
from typing import Any

import adbc_driver_flightsql.dbapi as adbc
import adbc_driver_manager
import pyarrow as pa
import pyarrow.flight
import pytest

from lake import Lake
from lake.access.rules import ColumnRule, PolicyRule
from lake.flight import FlightSqlServer
from lake.flight.messages import Any_, CommandStatementQuery
from lake.flight.protobuf import encode
from lake.flight.statements import TYPE_PREFIX
from lake.statements.limits import QueryLimits, Requester

USERS = {
    "wtoken": Requester("ann", may_write=True, role="writer"),
    "rtoken": Requester("bob", role="reader"),
    "rtoken-2": Requester("bob", role="reader"),
    "atoken": Requester("admin", is_admin=True, may_write=True, role="admin"),
}
Connect = Callable[..., Any]


@pytest.fixture
def server(lake: Lake) -> Iterator[FlightSqlServer]:
    with FlightSqlServer(lake, USERS.get) as server:
        yield server


@pytest.fixture
def connect(server: FlightSqlServer) -> Iterator[Connect]:
    opened = []

    def connect(token: str = "wtoken", **options: str) -> Any:
        header = {"adbc.flight.sql.authorization_header": f"Bearer {token}"} if token else {}
        opened.append(adbc.connect(server.url, db_kwargs=header | options, autocommit=True))
        return opened[-1]

    yield connect
    for connection in opened:
        connection.close()


def test_a_query_returns_what_sql_returns(flights: Lake, connect: Connect) -> None:
    query = "select carrier, sum(distance) as total from flights group by carrier order by carrier"
    with connect("rtoken").cursor() as cursor:
        cursor.execute(query)
        assert cursor.fetch_arrow_table().equals(flights.sql(query).to_arrow())


def test_a_result_larger_than_the_ring(lake: Lake, connect: Connect) -> None:
    query = "select range as id, 'text ' || range as s, [range] as l from range(200000)"
    with connect("rtoken").cursor() as cursor:
        cursor.execute(query)
        assert cursor.fetch_arrow_table().equals(lake.sql(query).to_arrow())
        cursor.execute("select repeat('x', 12000000) as wide")  # one message over many payloads
        assert len(cursor.fetchone()[0]) == 12_000_000


def test_parameters_keep_their_types(numbers: Lake, connect: Connect) -> None:
    values = [datetime.date(2020, 2, 29), decimal.Decimal("1.50"), b"\x00\xff", None, "ä", 7, True]
    with connect("rtoken").cursor() as cursor:
        cursor.execute("select " + ", ".join("?" * len(values)), values)
        assert cursor.fetchone() == tuple(values)
        cursor.execute("select b from t where a = ? or a = ? order by a", [3, 12])
        assert cursor.fetchall() == [("x3",), ("x2",)]


def test_named_parameters(numbers: Lake, connect: Connect) -> None:
    with connect().cursor() as cursor:
        cursor.execute("select $high - $low", pa.record_batch({"low": [2], "high": [9]}))
        assert cursor.fetchone() == (7,)


def test_a_change_is_one_snapshot(numbers: Lake, connect: Connect) -> None:
    before = len(numbers.catalog.snapshots("t"))
    with connect().cursor() as cursor:
        cursor.execute("insert into t values (100, 'new')")
        cursor.execute("select count(*) from t")
        assert cursor.fetchone() == (31,)
    assert len(numbers.catalog.snapshots("t")) == before + 1
    assert numbers.catalog.manifest("t").snapshot.author == "ann"


def test_a_change_returns_rows(numbers: Lake, connect: Connect) -> None:
    with connect() as connection, connection.cursor() as cursor:
        cursor.execute("UPDATE t SET b = 'x' WHERE a < 2 RETURNING a, b")
        assert cursor.fetchall() == [(0, "x"), (1, "x")]
        cursor.execute("DELETE FROM t WHERE a = ? RETURNING b", parameters=(1,))
        assert cursor.fetchall() == [("x",)]
    assert len(numbers.catalog.snapshots("t")) == 5


def test_executemany_runs_a_change_for_each_row(numbers: Lake, connect: Connect) -> None:
    with connect().cursor() as cursor:
        cursor.executemany("insert into t values (?, ?)", [(101, "p"), (102, "q")])
        assert cursor.rowcount == 2
    assert numbers.sql("select b from t where a > 100 order by a").rows == [("p",), ("q",)]


def test_ingest_in_each_mode(lake: Lake, connect: Connect) -> None:
    rows = pa.table({"id": [1, 2], "at": pa.array([0, 1], pa.timestamp("us", "UTC"))})
    with connect().cursor() as cursor:
        assert cursor.adbc_ingest("new", rows) == 2
        with pytest.raises(adbc_driver_manager.Error, match="exists"):
            cursor.adbc_ingest("new", rows)
        cursor.adbc_ingest("new", rows, mode="append")
        assert lake.sql("select count(*) from new").value == 4
        cursor.adbc_ingest("new", rows, mode="replace")
        cursor.adbc_ingest("other", rows, mode="create_append")
        with pytest.raises(adbc_driver_manager.Error, match='no dataset "missing"'):
            cursor.adbc_ingest("missing", rows, mode="append")
    assert lake.sql("select * from new").to_arrow().equals(rows)
    assert [info.name for info in lake.catalog.list()] == ["new", "other"]
    assert list(lake.staging.iterdir()) == []


def test_the_catalog(flights: Lake, connect: Connect) -> None:
    connection = connect("rtoken")
    found = connection.adbc_get_objects(depth="all").read_all().to_pylist()
    assert [row["catalog_name"] for row in found] == ["memory"]
    (schema,) = found[0]["catalog_db_schemas"]
    (table,) = schema["db_schema_tables"]
    assert (schema["db_schema_name"], table["table_name"], table["table_type"]) == (
        "main", "flights", "TABLE",
    )  # fmt: skip
    assert [column["column_name"] for column in table["table_columns"]] == [
        "carrier", "distance", "dep_delay", "day",
    ]  # fmt: skip
    schema = connection.adbc_get_table_schema("flights")
    assert schema.equals(flights.sql("from flights").to_arrow().schema)
    assert connection.adbc_get_table_types() == ["TABLE", "VIEW"]
    info = connection.adbc_get_info()
    assert info["vendor_name"] == "Sennit"


def test_a_reader_may_not_change_data(numbers: Lake, connect: Connect) -> None:
    with connect("rtoken").cursor() as cursor:
        for statement in ("insert into t values (1, 'a')", "drop table t", "/* */ delete from t"):
            with pytest.raises(adbc_driver_manager.Error, match="writer"):
                cursor.execute(statement)
        with pytest.raises(adbc_driver_manager.Error, match="writer"):
            cursor.adbc_ingest("mine", pa.table({"a": [1]}))
    assert numbers.sql("select count(*) from t").value == 30


@pytest.mark.parametrize("token", ["", "guess", "wtoken2"])
def test_an_unknown_token_is_refused(numbers: Lake, connect: Connect, token: str) -> None:
    with (
        connect(token).cursor() as cursor,
        pytest.raises(adbc_driver_manager.Error, match="not signed in"),
    ):
        cursor.execute("select 1")


def test_a_token_as_password(numbers: Lake, connect: Connect) -> None:
    with connect("", username="anyone", password="rtoken").cursor() as cursor:
        cursor.execute("select count(*) from t")
        assert cursor.fetchone() == (30,)
    with pytest.raises(adbc_driver_manager.Error, match="not signed in"):
        connect("", username="rtoken", password="nothing")


def test_errors_say_what_to_do(flights: Lake, connect: Connect) -> None:
    with connect().cursor() as cursor:
        with pytest.raises(adbc_driver_manager.ProgrammingError, match=r"did you mean.*flights"):
            cursor.execute("select * from flihgts")
        with pytest.raises(adbc_driver_manager.Error, match="distance"):
            cursor.execute("select distanc from flights")
        with pytest.raises(adbc_driver_manager.Error, match="rows of parameters"):
            cursor.execute("select ?", pa.record_batch({"0": [1, 2]}))


def test_a_client_cancels_a_query(lake: Lake, connect: Connect) -> None:
    with connect().cursor() as cursor:
        timer = threading.Timer(0.3, cursor.adbc_cancel)
        timer.start()
        with pytest.raises(adbc_driver_manager.Error, match=r"(?i)cancel"):
            _fetch(cursor, "select count(*) from range(100000000000) a, range(100000) b")
        timer.join()
    _wait_until_idle(lake)


def test_a_deadline_ends_a_query(lake: Lake, connect: Connect) -> None:
    lake.query_limits = QueryLimits(seconds=0.2)
    with (
        connect("rtoken").cursor() as cursor,
        pytest.raises(adbc_driver_manager.Error, match=r"did not finish within 0\.2 s"),
    ):
        _fetch(cursor, "select count(*) from range(100000000000) a, range(100000) b")
    _wait_until_idle(lake)


def test_closing_the_server_ends_its_queries(lake: Lake) -> None:
    with FlightSqlServer(lake, USERS.get) as server:
        options = pyarrow.flight.FlightCallOptions(headers=[(b"authorization", b"Bearer rtoken")])
        with pyarrow.flight.connect(server.url) as client:
            reader = client.do_get(_ticket(client, "from range(1000000000)", options), options)
            assert reader.read_chunk().data.num_rows
            server.close()
            with pytest.raises(pyarrow.ArrowException):
                reader.read_all()
    _wait_until_idle(lake)


def _ticket(
    client: pyarrow.flight.FlightClient, sql: str, options: pyarrow.flight.FlightCallOptions
) -> pyarrow.flight.Ticket:
    command = Any_(TYPE_PREFIX + "CommandStatementQuery", encode(CommandStatementQuery(sql)))
    descriptor = pyarrow.flight.FlightDescriptor.for_command(encode(command))
    (endpoint,) = client.get_flight_info(descriptor, options).endpoints
    return endpoint.ticket


def _fetch(cursor: Any, query: str) -> None:
    cursor.execute(query)
    cursor.fetchall()


def _wait_until_idle(lake: Lake) -> None:
    done = threading.Event()
    for _ in range(200):
        if not lake.pool.stats().busy:
            return
        done.wait(0.05)
    raise AssertionError("an executor still runs a query that nobody waits for")


def test_a_policy_applies_to_every_way_in(flights: Lake, connect: Connect) -> None:
    flights.append("secret", pa.table({"a": [1]}))
    flights.set_policy("secret", [PolicyRule("role:writer", read=True, write=True)])
    hidden = (ColumnRule("dep_delay"), ColumnRule("day"))
    rule = PolicyRule("bob", rows="carrier = 'UA'", columns=hidden)
    flights.set_policy("flights", [rule])
    connection = connect("rtoken")
    with connection.cursor() as cursor:
        cursor.execute("select * from flights order by distance")
        assert cursor.fetchall() == [("UA", 200), ("UA", 1400)]
        with pytest.raises(adbc_driver_manager.Error, match="dep_delay"):
            cursor.execute("select dep_delay from flights")
        for text in ("select * from secret", "insert into secret values (1)"):
            with pytest.raises(adbc_driver_manager.Error):
                cursor.execute(text)
    (schema,) = connection.adbc_get_objects().read_all().to_pylist()[0]["catalog_db_schemas"]
    (table,) = schema["db_schema_tables"]
    assert [column["column_name"] for column in table["table_columns"]] == ["carrier", "distance"]
    with connect("wtoken").cursor() as cursor:
        cursor.execute("select count(*) from secret")
        assert cursor.fetchone() == (1,)
        for mode in ("append", "replace"):
            with pytest.raises(adbc_driver_manager.Error):
                cursor.adbc_ingest("flights", pa.table({"carrier": ["XX"]}), mode=mode)
    assert flights.sql("select count(*) from flights").value == 4


def test_views_are_in_the_metadata_and_in_queries(flights: Lake, connect: Connect) -> None:
    flights.sql("CREATE VIEW far AS SELECT * FROM flights WHERE distance > 1000")
    connection = connect("rtoken")
    found = connection.adbc_get_objects(depth="tables", table_types_filter=["VIEW"]).read_all()

    assert "far" in str(found.to_pylist())
    assert "flights" not in str(found.to_pylist())
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM far")
        assert cursor.fetchone() == (3,)


def test_several_statements_and_a_transaction_in_one_text(lake: Lake, connect: Connect) -> None:
    with connect().cursor() as cursor:
        cursor.executescript("CREATE TABLE t (a INT); INSERT INTO t VALUES (1), (2)")
        cursor.execute("BEGIN; UPDATE t SET a = a + 1; DELETE FROM t WHERE a = 3; COMMIT")
        cursor.execute("INSERT INTO t VALUES (9); SELECT a FROM t ORDER BY a")
        assert cursor.fetchall() == [(2,), (9,)]
        with pytest.raises(adbc.Error, match="statement 2 of 2"):
            cursor.executescript("SELECT 1; SELECT x FROM t")
    assert lake.catalog.snapshots("t")[0].snapshot.version == 4
    with connect("rtoken").cursor() as cursor, pytest.raises(adbc.Error, match="writer"):
        cursor.execute("SELECT 1; DELETE FROM t")


def test_rows_of_several_mebibytes_between_short_ones(lake: Lake, connect: Connect) -> None:
    query = (
        "select range as id, case when range % 9000 = 8999 then repeat('y', 3000000) else 'n' end "
        "as text, case when range % 3 > 0 then range end as gap from range(30000)"
    )
    with connect("rtoken").cursor() as cursor:
        cursor.execute(query)
        found = cursor.fetch_arrow_table()
    assert found["id"].to_pylist() == list(range(30000))
    assert {len(text) for text in found["text"].to_pylist()} == {1, 3_000_000}
    assert found["gap"].null_count == 10000
