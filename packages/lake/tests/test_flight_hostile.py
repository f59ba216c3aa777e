"""Flight SQL clients that send what no driver does: garbage, foreign tickets, too much, too slowly."""

from __future__ import annotations

import struct
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lake import Lake
from lake.flight import FlightSqlServer, calls, messages, prepared
from lake.flight.protobuf import decode, encode
from lake.flight.rpc import METHODS
from lake.flight.statements import TYPE_PREFIX
from lake.flight.streams import IpcWriter, flight_messages
from lake.statements.limits import Requester
from sennit_core.errors import BadInput, SennitError

USERS = {
    "wtoken": Requester("ann", may_write=True, role="writer"),
    "rtoken": Requester("bob", role="reader"),
    "rtoken-2": Requester("bob", role="reader"),
}
MESSAGES = [
    each
    for each in vars(messages).values()
    if isinstance(each, type) and each.__module__ == messages.__name__
]


class Client:
    """Calls methods with any bytes."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._channel = channel

    def call(
        self, name: str, *requests: bytes, token: str = "wtoken", **options: Any
    ) -> list[bytes]:
        method = self._channel.stream_stream(f"/arrow.flight.protocol.FlightService/{name}")
        metadata = (("authorization", f"Bearer {token}"),)
        return list(method(iter(requests), metadata=metadata, timeout=30, **options))

    def ticket(self, sql: str, token: str = "wtoken") -> bytes:
        info = self.call("GetFlightInfo", query(sql), token=token)[0]
        (endpoint,) = decode(messages.FlightInfo, info).endpoint
        assert endpoint.ticket is not None
        return encode(endpoint.ticket)

    def prepare(self, sql: str, token: str = "wtoken") -> bytes:
        request = messages.ActionCreatePreparedStatementRequest(sql)
        action = messages.Action("CreatePreparedStatement", packed("Action", request))
        result = decode(messages.Result, self.call("DoAction", encode(action), token=token)[0])
        found = decode(messages.Any_, result.body or b"")
        kind = messages.ActionCreatePreparedStatementResult
        return decode(kind, found.value or b"").prepared_statement_handle or b""


@pytest.fixture
def server(lake: Lake) -> Iterator[FlightSqlServer]:
    with FlightSqlServer(lake, USERS.get) as server:
        yield server


@pytest.fixture
def client(server: FlightSqlServer) -> Iterator[Client]:
    options = [("grpc.max_send_message_length", -1)]
    with grpc.insecure_channel(f"127.0.0.1:{server.port}", options) as channel:
        yield Client(channel)


def packed(name: str, message: Any) -> bytes:
    return encode(messages.Any_(TYPE_PREFIX + name, encode(message)))


def descriptor(name: str, message: Any) -> bytes:
    return encode(messages.FlightDescriptor(2, packed(name, message)))


def query(sql: str) -> bytes:
    return descriptor("CommandStatementQuery", messages.CommandStatementQuery(sql))


def put(name: str, message: Any, header: bytes | None = None, body: bytes | None = None) -> bytes:
    target = messages.FlightDescriptor(2, packed(name, message))
    return encode(messages.FlightData(target, header, body))


def data_of(table: pa.Table) -> list[bytes]:
    parts = (table.schema, *table.to_batches())
    return list(flight_messages(memoryview(part.serialize()) for part in parts))


def refusal(call: Callable[..., object], *given: Any, **options: Any) -> tuple[Any, str]:
    with pytest.raises(grpc.RpcError) as caught:
        call(*given, **options)
    return caught.value.code(), caught.value.details()


@pytest.mark.parametrize("method", sorted(METHODS))
def test_garbage_is_refused_and_the_server_goes_on(client: Client, method: str) -> None:
    if method in ("Handshake", "ListFlights"):  # neither reads its request
        return
    for garbage in (
        b"",
        b"\xff" * 40,
        b"\x0a\xff\xff\xff\xff\x0f",
        b"\x0b",
        b"\x0a\x03abc",
        b"\0\0",
    ):
        if method == "ListActions":
            assert client.call(method, garbage)
        else:
            code, text = refusal(client.call, method, garbage)
            assert code.name in ("INVALID_ARGUMENT", "NOT_FOUND", "UNIMPLEMENTED"), text
    code, _ = refusal(client.call, method)
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert client.call("DoGet", client.ticket("select 1"))


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(MESSAGES), st.binary(max_size=200))
def test_any_bytes_decode_or_are_bad_input(kind: type[Any], data: bytes) -> None:
    try:
        found = decode(kind, data)
    except BadInput:
        return
    assert decode(kind, encode(found)) == found


@settings(max_examples=200, deadline=None)
@given(st.builds(
    messages.CommandGetTables, catalog=st.none() | st.text(), table_types=st.lists(st.text()).map(tuple),
    include_schema=st.none() | st.booleans(),
))  # fmt: skip
def test_a_message_is_read_as_it_was_written(command: messages.CommandGetTables) -> None:
    assert decode(messages.CommandGetTables, encode(command)) == command


def test_numbers_are_read_packed_or_not() -> None:
    packed_numbers = b"\x0a\x03\x00\x01\x05"
    assert decode(messages.CommandGetSqlInfo, packed_numbers).info == (0, 1, 5)
    assert decode(messages.CommandGetSqlInfo, b"\x08\x00\x08\x05").info == (0, 5)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.binary(max_size=300), max_size=4), st.binary(max_size=50))
def test_any_arrow_data_is_framed_or_refused(headers: list[bytes], body: bytes) -> None:
    out = bytearray()
    writer = IpcWriter(out.extend)
    try:
        for header in headers:
            writer.put(messages.FlightData(None, header, body))
        writer.close()
    except SennitError:
        return
    raise AssertionError("random bytes are no schema")


def test_a_stream_is_cut_anywhere() -> None:
    table = pa.table({"a": list(range(1000)), "s": [f"{i}" * 5 for i in range(1000)]})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table, max_chunksize=300)
    whole = sink.getvalue().to_pybytes()
    for size in (3, 64, 5000, len(whole)):
        pieces = (memoryview(whole)[at : at + size] for at in range(0, len(whole), size))
        out = bytearray()
        writer = IpcWriter(out.extend)
        for each in flight_messages(pieces):
            writer.put(decode(messages.FlightData, each))
        writer.close()
        assert pa.ipc.open_stream(bytes(out)).read_all().equals(table)
        assert writer.rows == 1000


def test_a_ticket_cannot_be_changed_or_made(numbers: Lake, client: Client) -> None:
    ticket = bytearray(client.ticket("select count(*) from t"))
    for place in range(len(ticket) - 150, len(ticket), 13):
        changed = bytearray(ticket)
        changed[place] ^= 1
        assert refusal(client.call, "DoGet", bytes(changed))
    forged = packed("TicketStatementQuery", messages.TicketStatementQuery(b"x" * 80))
    code, text = refusal(client.call, "DoGet", encode(messages.Ticket(forged)))
    assert code is grpc.StatusCode.PERMISSION_DENIED
    assert "not issued" in text


def test_a_ticket_is_for_its_caller(numbers: Lake, client: Client) -> None:
    ticket = client.ticket("select count(*) from t", token="rtoken")
    # Another token of the same user, and an admin.
    for token in ("rtoken-2", "wtoken"):
        code, _ = refusal(client.call, "DoGet", ticket, token=token)
        assert code is grpc.StatusCode.PERMISSION_DENIED
    assert client.call("DoGet", ticket, token="rtoken")
    assert client.call("DoGet", ticket, token="rtoken")  # a query may be read again


def test_a_ticket_expires(numbers: Lake, client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    ticket = client.ticket("select count(*) from t")
    monkeypatch.setattr(time, "time", lambda now=time.time: now() + 301)
    code, text = refusal(client.call, "DoGet", ticket)
    assert code is grpc.StatusCode.NOT_FOUND
    assert "run the query again" in text


def test_a_change_runs_once_for_a_ticket(numbers: Lake, client: Client) -> None:
    ticket = client.ticket("insert into t values (1, 'once')")
    assert numbers.sql("select count(*) from t").value == 30  # nothing ran yet
    client.call("DoGet", ticket)
    code, text = refusal(client.call, "DoGet", ticket)
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert "has been run" in text
    assert numbers.sql("select count(*) from t").value == 31


def test_a_prepared_statement_is_for_its_caller(numbers: Lake, client: Client) -> None:
    handle = client.prepare("select a from t", token="rtoken")
    command = messages.CommandPreparedStatementQuery(handle)
    asked = descriptor("CommandPreparedStatementQuery", command)
    assert client.call("GetFlightInfo", asked, token="rtoken")
    code, _ = refusal(client.call, "GetFlightInfo", asked, token="rtoken-2")
    assert code is grpc.StatusCode.NOT_FOUND


def test_prepared_statements_are_bounded(
    lake: Lake, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prepared, "_CALLER_MAX", 3)
    handles = [client.prepare("select 1") for _ in range(3)]
    code, text = refusal(client.prepare, "select 1")
    assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "close those" in text
    assert client.prepare("select 1", token="rtoken")  # the limit is for each caller
    request = messages.ActionClosePreparedStatementRequest(handles[0])
    client.call("DoAction", encode(messages.Action("ClosePreparedStatement", packed("x", request))))
    assert client.prepare("select 1")
    monkeypatch.setattr(prepared, "_BYTES_MAX", 100)
    assert refusal(client.prepare, "select 2", token="rtoken")[0] is (
        grpc.StatusCode.RESOURCE_EXHAUSTED
    )


def test_a_statement_is_bounded(lake: Lake, client: Client) -> None:
    code, text = refusal(client.ticket, "select " + " " * (1 << 20) + "1")
    assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "1.0 MiB" in text
    code, _ = refusal(client.ticket, "")
    assert code is grpc.StatusCode.INVALID_ARGUMENT


def test_calls_of_a_caller_are_bounded(
    lake: Lake, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calls, "CALLER_MAX", 1)
    release = threading.Event()

    def never() -> Iterator[bytes]:
        release.wait(20)
        yield from ()

    method = client._channel.stream_stream("/arrow.flight.protocol.FlightService/DoGet")
    metadata = (("authorization", "Bearer wtoken"),)
    held = method(never(), metadata=metadata)
    codes = set()
    for _ in range(100):
        if held.done():  # it was the one refused, because a call of the loop came first
            held = method(never(), metadata=metadata)
        time.sleep(0.02)
        try:
            client.call("ListActions", b"")
        except grpc.RpcError as error:
            codes.add(error.code())
            break
    assert codes == {grpc.StatusCode.RESOURCE_EXHAUSTED}
    assert client.call("ListActions", b"", token="rtoken")
    release.set()
    held.cancel()


def test_a_client_that_sends_nothing_is_cut_off(
    lake: Lake, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calls, "_MESSAGE_SECONDS", 0.1)
    hold = threading.Event()

    def never() -> Iterator[bytes]:
        hold.wait(20)
        yield from ()

    method = client._channel.stream_stream("/arrow.flight.protocol.FlightService/DoPut")
    code, _ = refusal(list, method(never(), metadata=(("authorization", "Bearer wtoken"),)))
    hold.set()
    assert code is grpc.StatusCode.CANCELLED


@pytest.mark.parametrize("token", ["", "unknown", "wtoke"])
def test_no_method_works_without_a_token(client: Client, token: str) -> None:
    for method in METHODS:
        code, text = refusal(client.call, method, b"", token=token)
        assert code is grpc.StatusCode.UNAUTHENTICATED, method
        assert "hint" not in text
        assert "Bearer" in text


def test_a_large_request_without_a_token_is_not_read(client: Client) -> None:
    code, _ = refusal(client.call, "DoGet", b"x" * (256 << 20), token="unknown")
    assert code is grpc.StatusCode.UNAUTHENTICATED
    code, _ = refusal(client.call, "DoGet", b"x" * (65 << 20))
    assert code is grpc.StatusCode.RESOURCE_EXHAUSTED


def ingest(client: Client, *data: bytes, token: str = "wtoken", **members: Any) -> list[bytes]:
    whole: dict[str, Any] = {
        "table_definition_options": messages.TableDefinitionOptions(1, 1),
        "table": "new",
    } | members
    first = put("CommandStatementIngest", messages.CommandStatementIngest(**whole))
    return client.call("DoPut", first, *data, token=token)


def test_damaged_arrow_data_ends_in_an_error_of_an_executor(lake: Lake, client: Client) -> None:
    schema, batch = data_of(pa.table({"s": ["abc", "defg"] * 20}))
    message = decode(messages.FlightData, batch)
    assert message.data_body is not None
    body = bytearray(message.data_body)
    struct.pack_into("<i", body, 8, 1 << 30)  # an offset far beyond the text
    damaged = encode(messages.FlightData(None, message.data_header, bytes(body)))
    for data in ([schema, damaged], [batch], [schema, schema], [schema, batch[:-20]], []):
        code, _ = refusal(ingest, client, *data)
        assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert ingest(client, schema, batch)
    assert lake.sql("select count(*) from new").value == 40
    assert list(lake.staging.iterdir()) == []


def test_a_batch_that_would_abort_arrow_is_refused(lake: Lake, client: Client) -> None:
    # A map whose keys have nulls ends the process that builds such an array.
    entries = pa.map_(pa.string(), pa.int64())
    schema, batch = data_of(pa.table({"m": pa.array([[("a", 1)], [("b", 2)]], entries)}))
    message = decode(messages.FlightData, batch)
    header = bytearray(message.data_header or b"")
    node = struct.pack("<qq", 2, 0)
    place = header.rindex(node)
    for at in [i for i in range(place + 1) if header[i : i + 16] == node]:
        changed = bytearray(header)
        struct.pack_into("<q", changed, at + 8, 2)
        data = encode(messages.FlightData(None, bytes(changed), message.data_body))
        refusal(ingest, client, schema, data, table=f"m{at}")
    assert client.call("DoGet", client.ticket("select 1"))


def test_parameters_are_bounded(numbers: Lake, client: Client) -> None:
    handle = client.prepare("insert into t values (?, 'x')")
    command = messages.CommandPreparedStatementQuery(handle)
    for rows in (1001, 1_000_000):
        data = data_of(pa.table({"0": pa.array(range(rows), pa.int64())}))
        code, _ = refusal(
            client.call, "DoPut", put("CommandPreparedStatementUpdate", command), *data
        )
        assert code.name in ("INVALID_ARGUMENT", "RESOURCE_EXHAUSTED")
    assert numbers.sql("select count(*) from t").value == 30


@pytest.mark.parametrize(
    ("members", "code"),
    [
        ({"temporary": True}, "UNIMPLEMENTED"),
        ({"transaction_id": b"1"}, "UNIMPLEMENTED"),
        ({"table": ""}, "INVALID_ARGUMENT"),
        ({"table": " a\n"}, "INVALID_ARGUMENT"),
        ({"schema": "other"}, "NOT_FOUND"),
        ({"catalog": "other"}, "NOT_FOUND"),
    ],
)
def test_an_ingest_elsewhere_is_refused(
    lake: Lake, client: Client, members: dict[str, Any], code: str
) -> None:
    data = data_of(pa.table({"a": [1]}))
    assert refusal(ingest, client, *data, **members)[0].name == code


def test_a_client_that_is_cut_off_ingests_nothing(lake: Lake, client: Client) -> None:
    schema, batch = data_of(pa.table({"a": [1]}))
    first = put("CommandStatementIngest", messages.CommandStatementIngest(
        messages.TableDefinitionOptions(1, 1), "new"
    ))  # fmt: skip
    sent, release = threading.Event(), threading.Event()

    def requests() -> Iterator[bytes]:
        yield from (first, schema, batch)
        sent.set()
        release.wait(20)

    method = client._channel.stream_stream("/arrow.flight.protocol.FlightService/DoPut")
    call = method(requests(), metadata=(("authorization", "Bearer wtoken"),))
    sent.wait(20)
    time.sleep(0.1)
    call.cancel()
    release.set()
    for _ in range(100):
        if not list(lake.staging.iterdir()):
            break
        time.sleep(0.05)
    assert lake.catalog.find("new") is None
    assert list(lake.staging.iterdir()) == []


def test_paths_and_unknown_commands_have_an_error_that_helps(client: Client) -> None:
    path = encode(messages.FlightDescriptor(1, None, ("t",)))
    assert "send a command" in refusal(client.call, "GetFlightInfo", path)[1]
    unknown = descriptor("CommandStatementSubstraitPlan", messages.Nothing())
    code, text = refusal(client.call, "GetFlightInfo", unknown)
    assert (code.name, "CommandStatementSubstraitPlan" in text) == ("UNIMPLEMENTED", True)
    code, _ = refusal(client.call, "DoExchange", b"")
    assert code is grpc.StatusCode.UNIMPLEMENTED
    action = encode(messages.Action("BeginTransaction", b""))
    assert refusal(client.call, "DoAction", action)[0].name == "UNIMPLEMENTED"


def test_a_query_is_cancelled_by_its_flight_info(lake: Lake, client: Client) -> None:
    asked = query("select count(*) from range(100000000000) a, range(100000) b")
    info = decode(messages.FlightInfo, client.call("GetFlightInfo", asked)[0])
    (endpoint,) = info.endpoint
    assert endpoint.ticket is not None
    failures: list[grpc.RpcError] = []

    def read() -> None:
        try:
            client.call("DoGet", encode(endpoint.ticket))
        except grpc.RpcError as error:
            failures.append(error)

    reader = threading.Thread(target=read)
    reader.start()
    request = messages.CancelFlightInfoRequest(info)
    cancel = encode(messages.Action("CancelFlightInfo", encode(request)))
    statuses = []
    while reader.is_alive():
        result = decode(messages.Result, client.call("DoAction", cancel)[0])
        statuses.append(decode(messages.CancelFlightInfoResult, result.body or b"").status)
        reader.join(0.05)
    assert 2 in statuses  # cancelling; 3 before it runs
    assert failures[0].code() is grpc.StatusCode.CANCELLED
    # By nobody else.
    code, _ = refusal(client.call, "DoAction", cancel, token="rtoken")
    assert code is grpc.StatusCode.PERMISSION_DENIED
