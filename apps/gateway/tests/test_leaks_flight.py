"""Flight SQL of a node shows no user what a policy hides, in metadata, statements, ingests or tickets."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import adbc_driver_flightsql.dbapi as adbc
import adbc_driver_manager
import pyarrow as pa
import pyarrow.flight as flight
import pytest
from guarded_node import COLUMN, HIDDEN, MARKERS, USERS, GuardedNode, guarded
from opened_node import OpenNodes

from lake.flight.messages import Any_, CommandStatementQuery
from lake.flight.protobuf import encode
from lake.flight.statements import TYPE_PREFIX
from sennit.flight import serve_flight

SIGNED_IN = [name for name, role in USERS.items() if role]


@pytest.fixture(scope="module")
def served(opened: OpenNodes) -> Iterator[tuple[GuardedNode, str]]:
    with guarded(opened) as guard, serve_flight(guard.node.node, 0) as url:
        assert url is not None
        yield guard, url


def assert_hidden(found: object, sent: str = "") -> None:
    """No marker is in an answer or an error, beyond what was sent."""
    text = str(found).casefold()
    assert not [word for word in MARKERS if word.casefold() in text and word not in sent], text


def outcome(action: Callable[[], Any], sent: str = "") -> str:
    """What a call returns, or its error, in which no marker is."""
    try:
        found = str(action())
    except (adbc_driver_manager.Error, pa.ArrowException, flight.FlightError, OSError) as error:
        found = str(error)
    assert_hidden(found, sent)
    return found


@pytest.mark.slow  # a real client, for each user
@pytest.mark.parametrize("user", SIGNED_IN)
def test_the_driver_shows_no_marker(served: tuple[GuardedNode, str], user: str) -> None:
    guard, url = served
    header = guard.clients[user].headers["authorization"]
    options = {"adbc.flight.sql.authorization_header": header}
    rows = pa.table({"id": [1]})
    with adbc.connect(url, db_kwargs=options, autocommit=True) as connection:
        for depth in ("catalogs", "db_schemas", "tables", "all"):
            objects = connection.adbc_get_objects(depth=depth).read_all().to_pylist()
            assert_hidden(objects)
        for name in ("people", HIDDEN, "spy", "vault_view", "zqvaul"):
            outcome(partial(connection.adbc_get_table_schema, name), name)
            for mode in ("append", "replace", "create"):
                with connection.cursor() as cursor:
                    outcome(partial(cursor.adbc_ingest, name, rows, mode=mode), name)
        for sql in (
            "SELECT * FROM people WHERE id > ?", f"SELECT {COLUMN} FROM people WHERE id > ?",
            "SELECT CAST(owner AS INT) FROM people WHERE id > ?", "SELECT ? FROM zqvaul",
            f"SELECT * FROM {HIDDEN} WHERE n > ?", "SELECT * FROM spy WHERE id > ?",
        ):  # fmt: skip
            with connection.cursor() as cursor:
                outcome(partial(cursor.adbc_prepare, sql), sql)
            with connection.cursor() as cursor:
                outcome(partial(cursor.execute, sql, [0]), sql)
                outcome(cursor.fetchall)
    guard.node.client.delete("/api/datasets/zqvaul")
    assert guard.node.client.get("/api/datasets/people").json()["rows"] == 4


@pytest.mark.parametrize("user", USERS)
def test_a_ticket_of_an_admin_is_of_no_use_to_others(
    served: tuple[GuardedNode, str], user: str
) -> None:
    guard, url = served
    command = Any_(
        type_url=TYPE_PREFIX + CommandStatementQuery.__name__,
        value=encode(CommandStatementQuery(query=f"SELECT * FROM {HIDDEN}")),
    )
    descriptor = flight.FlightDescriptor.for_command(encode(command))
    header = guard.clients[user].headers.get("authorization")
    theirs = flight.FlightCallOptions(
        headers=[(b"authorization", header.encode())] if header else []
    )
    admin = guard.node.client.headers["authorization"].encode()
    own = flight.FlightCallOptions(headers=[(b"authorization", admin)])
    with flight.connect(url) as client:
        ticket = client.get_flight_info(descriptor, own).endpoints[0].ticket

        outcome(lambda: client.get_flight_info(descriptor, theirs), HIDDEN)
        outcome(lambda: client.get_schema(descriptor, theirs), HIDDEN)
        with pytest.raises((pa.ArrowException, flight.FlightError, OSError)) as refused:
            client.do_get(ticket, theirs).read_all()
        assert_hidden(refused.value)
        outcome(lambda: list(client.list_flights(options=theirs)))
        outcome(lambda: list(client.list_actions(options=theirs)))
        assert "ZQSET1" in str(client.do_get(ticket, own).read_all().to_pylist())
