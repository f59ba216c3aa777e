"""The messages of Arrow Flight and Flight SQL that this server reads or writes.

Names and numbers are those of `Flight.proto` and `FlightSql.proto` (Arrow 26); members that the
server does not use are left out, and skipped when a client sends them.
"""

from __future__ import annotations

from dataclasses import dataclass

from lake.flight.protobuf import BOOL, BYTES, INT, TEXT, member, message


@dataclass(frozen=True)
class Any_:  # noqa: N801 - `Any` of google.protobuf
    """A message with the name of its type."""

    type_url: str | None = member(1, TEXT)
    value: bytes | None = member(2, BYTES)


@dataclass(frozen=True)
class Action:
    """Flight.proto."""

    type: str | None = member(1, TEXT)
    body: bytes | None = member(2, BYTES)


@dataclass(frozen=True)
class ActionType:
    """Flight.proto."""

    type: str | None = member(1, TEXT)
    description: str | None = member(2, TEXT)


@dataclass(frozen=True)
class Result:
    """Flight.proto."""

    body: bytes | None = member(1, BYTES)


@dataclass(frozen=True)
class HandshakeMessage:
    """Flight.proto: HandshakeRequest and HandshakeResponse."""

    protocol_version: int | None = member(1, INT)
    payload: bytes | None = member(2, BYTES)


@dataclass(frozen=True)
class BasicAuth:
    """Flight.proto: user and password in the payload of a handshake."""

    username: str | None = member(2, TEXT)
    password: str | None = member(3, TEXT)


@dataclass(frozen=True)
class FlightDescriptor:
    """Flight.proto; a command has the type 2."""

    type: int | None = member(1, INT)
    cmd: bytes | None = member(2, BYTES)
    path: tuple[str, ...] = member(3, TEXT, repeated=True)


@dataclass(frozen=True)
class Ticket:
    """Flight.proto."""

    ticket: bytes | None = member(1, BYTES)


@dataclass(frozen=True)
class Timestamp:
    """google.protobuf.Timestamp."""

    seconds: int | None = member(1, INT)


@dataclass(frozen=True)
class FlightEndpoint:
    """Flight.proto; without a location: this server."""

    ticket: Ticket | None = member(1, message(Ticket))
    expiration_time: Timestamp | None = member(3, message(Timestamp))


@dataclass(frozen=True)
class FlightInfo:
    """Flight.proto."""

    schema: bytes | None = member(1, BYTES)
    flight_descriptor: FlightDescriptor | None = member(2, message(FlightDescriptor))
    endpoint: tuple[FlightEndpoint, ...] = member(3, message(FlightEndpoint), repeated=True)
    total_records: int | None = member(4, INT)
    total_bytes: int | None = member(5, INT)


@dataclass(frozen=True)
class SchemaResult:
    """Flight.proto."""

    schema: bytes | None = member(1, BYTES)


@dataclass(frozen=True)
class FlightData:
    """Flight.proto: one message of an Arrow IPC stream."""

    flight_descriptor: FlightDescriptor | None = member(1, message(FlightDescriptor))
    data_header: bytes | None = member(2, BYTES)
    data_body: bytes | None = member(1000, BYTES)


@dataclass(frozen=True)
class PutResult:
    """Flight.proto."""

    app_metadata: bytes | None = member(1, BYTES)


@dataclass(frozen=True)
class CancelFlightInfoRequest:
    """Flight.proto."""

    info: FlightInfo | None = member(1, message(FlightInfo))


@dataclass(frozen=True)
class CancelFlightInfoResult:
    """Flight.proto: 1 cancelled, 2 cancelling, 3 not cancellable."""

    status: int | None = member(1, INT)


@dataclass(frozen=True)
class ActionCancelQueryRequest:
    """FlightSql.proto; the info is an encoded FlightInfo."""

    info: bytes | None = member(1, BYTES)


@dataclass(frozen=True)
class ActionCancelQueryResult:
    """FlightSql.proto; as CancelFlightInfoResult."""

    result: int | None = member(1, INT)


@dataclass(frozen=True)
class ActionCreatePreparedStatementRequest:
    """FlightSql.proto."""

    query: str | None = member(1, TEXT)
    transaction_id: bytes | None = member(2, BYTES)


@dataclass(frozen=True)
class ActionCreatePreparedStatementResult:
    """FlightSql.proto."""

    prepared_statement_handle: bytes | None = member(1, BYTES)
    dataset_schema: bytes | None = member(2, BYTES)
    parameter_schema: bytes | None = member(3, BYTES)


@dataclass(frozen=True)
class ActionClosePreparedStatementRequest:
    """FlightSql.proto."""

    prepared_statement_handle: bytes | None = member(1, BYTES)


@dataclass(frozen=True)
class CommandStatementQuery:
    """FlightSql.proto; CommandStatementUpdate has the same members."""

    query: str | None = member(1, TEXT)
    transaction_id: bytes | None = member(2, BYTES)


@dataclass(frozen=True)
class TicketStatementQuery:
    """FlightSql.proto."""

    statement_handle: bytes | None = member(1, BYTES)


@dataclass(frozen=True)
class CommandPreparedStatementQuery:
    """FlightSql.proto; CommandPreparedStatementUpdate has the same members."""

    prepared_statement_handle: bytes | None = member(1, BYTES)


@dataclass(frozen=True)
class TableDefinitionOptions:
    """FlightSql.proto: create 1 or fail 2 if the table is missing; fail 1, append 2 or replace 3."""

    if_not_exist: int | None = member(1, INT)
    if_exists: int | None = member(2, INT)


@dataclass(frozen=True)
class CommandStatementIngest:
    """FlightSql.proto."""

    table_definition_options: TableDefinitionOptions | None = member(
        1, message(TableDefinitionOptions)
    )
    table: str | None = member(2, TEXT)
    schema: str | None = member(3, TEXT)
    catalog: str | None = member(4, TEXT)
    temporary: bool | None = member(5, BOOL)
    transaction_id: bytes | None = member(6, BYTES)


@dataclass(frozen=True)
class DoPutUpdateResult:
    """FlightSql.proto; -1 if the number of rows is unknown."""

    record_count: int | None = member(1, INT)


@dataclass(frozen=True)
class DoPutPreparedStatementResult:
    """FlightSql.proto."""

    prepared_statement_handle: bytes | None = member(1, BYTES)


@dataclass(frozen=True)
class Nothing:
    """A command without members that matter here."""


@dataclass(frozen=True)
class CommandGetSqlInfo:
    """FlightSql.proto."""

    info: tuple[int, ...] = member(1, INT, repeated=True)


@dataclass(frozen=True)
class CommandGetDbSchemas:
    """FlightSql.proto."""

    catalog: str | None = member(1, TEXT)
    db_schema_filter_pattern: str | None = member(2, TEXT)


@dataclass(frozen=True)
class CommandGetTables:
    """FlightSql.proto."""

    catalog: str | None = member(1, TEXT)
    db_schema_filter_pattern: str | None = member(2, TEXT)
    table_name_filter_pattern: str | None = member(3, TEXT)
    table_types: tuple[str, ...] = member(4, TEXT, repeated=True)
    include_schema: bool | None = member(5, BOOL)


@dataclass(frozen=True)
class StatementTicket:
    """A statement to run, in a ticket: of this server, not of Flight SQL.

    Args:
        query: Its text.
        params: An Arrow IPC stream with one row of parameters.
        caller: The digest of the credential that may use the ticket.
        nonce: Names the ticket.
        expires: Unix seconds.
    """

    query: str | None = member(1, TEXT)
    params: bytes | None = member(2, BYTES)
    caller: bytes | None = member(3, BYTES)
    nonce: bytes | None = member(4, BYTES)
    expires: int | None = member(5, INT)
