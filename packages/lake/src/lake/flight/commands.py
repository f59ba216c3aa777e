"""The commands and actions of Flight SQL. One more is one more entry in a table here.

GetFlightInfo, GetSchema     Command.info     the columns of a result, and a ticket
DoGet                        Command.read     the result
DoPut                        Command.write    reads a stream of Arrow data
DoAction                     ACTIONS
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lake.flight import messages as m
from lake.flight import metadata
from lake.flight.calls import Call
from lake.flight.protobuf import decode, encode
from lake.flight.statements import TYPE_PREFIX, Info, Statements, Stream
from lake.flight.streams import messages_of_table
from sennit_core.errors import BadInput, Unsupported

if TYPE_CHECKING:
    from lake.lake import Lake
    from lake.statements.limits import Requester

__all__ = ["ACTIONS", "COMMANDS", "Action", "Command", "Service", "command_of"]


@dataclass(frozen=True, slots=True)
class Service:
    """What commands work on."""

    lake: Lake
    statements: Statements


@dataclass(frozen=True, slots=True)
class Command:
    """A command of Flight SQL; what it does not support is None.

    Args:
        message: The class of its message.
        info: Returns how to get its result.
        read: Yields its result as encoded FlightData.
        write: Reads Arrow data; yields the results, which go into messages PutResult.
    """

    message: type
    info: Callable[[Service, Call, Any], Info] | None = None
    read: Callable[[Service, Call, Any], Iterator[bytes]] | None = None
    write: Callable[[Service, Call, Any, Stream], Iterator[bytes]] | None = None


@dataclass(frozen=True, slots=True)
class Action:
    """An action.

    Args:
        message: The class of its request.
        run: Yields its results.
        description: For ListActions.
        is_any: Whether the request is wrapped in google.protobuf.Any, as those of Flight SQL are.
    """

    message: type
    run: Callable[[Service, Call, Any], Iterator[bytes]]
    description: str
    is_any: bool = True


def _table(message: type, rows: Callable[[Lake, Requester, Any], Any]) -> Command:
    """Return a command whose result is a small table."""

    def info(service: Service, call: Call, command: Any) -> Info:
        return Info(rows(service.lake, call.requester, command).schema.serialize().to_pybytes())

    def read(service: Service, call: Call, command: Any) -> Iterator[bytes]:
        return messages_of_table(rows(service.lake, call.requester, command))

    return Command(message, info, read)


COMMANDS: Mapping[str, Command] = {
    "CommandGetSqlInfo": _table(m.CommandGetSqlInfo, metadata.sql_info),
    "CommandGetCatalogs": _table(m.Nothing, metadata.catalogs),
    "CommandGetDbSchemas": _table(m.CommandGetDbSchemas, metadata.schemas),
    "CommandGetTables": _table(m.CommandGetTables, metadata.tables),
    "CommandGetTableTypes": _table(m.Nothing, metadata.table_types),
    "CommandGetPrimaryKeys": _table(m.Nothing, metadata.empty("primary keys")),
    "CommandGetExportedKeys": _table(m.Nothing, metadata.empty("keys")),
    "CommandGetImportedKeys": _table(m.Nothing, metadata.empty("keys")),
    "CommandGetCrossReference": _table(m.Nothing, metadata.empty("keys")),
    "CommandGetXdbcTypeInfo": _table(m.Nothing, metadata.empty("types")),
    "CommandStatementQuery": Command(
        m.CommandStatementQuery, info=lambda s, call, c: s.statements.query(call, c)
    ),
    "TicketStatementQuery": Command(
        m.TicketStatementQuery, read=lambda s, call, c: s.statements.read(call, c)
    ),
    "CommandStatementUpdate": Command(
        m.CommandStatementQuery, write=lambda s, call, c, data: s.statements.update(call, c, data)
    ),
    "CommandPreparedStatementQuery": Command(
        m.CommandPreparedStatementQuery,
        info=lambda s, call, c: s.statements.prepared_query(call, c),
        write=lambda s, call, c, data: s.statements.bind(call, c, data),
    ),
    "CommandPreparedStatementUpdate": Command(
        m.CommandPreparedStatementQuery,
        write=lambda s, call, c, data: s.statements.prepared_update(call, c, data),
    ),
    "CommandStatementIngest": Command(
        m.CommandStatementIngest, write=lambda s, call, c, data: s.statements.ingest(call, c, data)
    ),
}


def _cancel_info(s: Service, call: Call, request: m.CancelFlightInfoRequest) -> Iterator[bytes]:
    yield encode(m.CancelFlightInfoResult(_cancel(s, call, request.info or m.FlightInfo())))


def _cancel_query(s: Service, call: Call, request: m.ActionCancelQueryRequest) -> Iterator[bytes]:
    result = m.ActionCancelQueryResult(_cancel(s, call, decode(m.FlightInfo, request.info or b"")))
    yield encode(m.Any_(TYPE_PREFIX + "ActionCancelQueryResult", encode(result)))


def _cancel(s: Service, call: Call, info: m.FlightInfo) -> int:
    """Cancel the results of all endpoints; return the status: 2 cancelling, 3 not cancellable."""
    tickets = [each.ticket.ticket or b"" for each in info.endpoint if each.ticket is not None]
    return 2 if any(s.statements.cancel(call, ticket) for ticket in tickets) else 3


ACTIONS: Mapping[str, Action] = {
    "CreatePreparedStatement": Action(
        m.ActionCreatePreparedStatementRequest,
        lambda s, call, request: s.statements.prepare(call, request),
        "Prepare a statement.",
    ),
    "ClosePreparedStatement": Action(
        m.ActionClosePreparedStatementRequest,
        lambda s, call, request: s.statements.close(call, request),
        "Close a prepared statement.",
    ),
    "CancelFlightInfo": Action(
        m.CancelFlightInfoRequest, _cancel_info, "Cancel a query that is running.", is_any=False
    ),
    "CancelQuery": Action(
        m.ActionCancelQueryRequest, _cancel_query, "Cancel a query that is running (deprecated)."
    ),
}


def command_of(packed: bytes | None) -> tuple[Command, Any, str]:
    """Return the command of a descriptor or ticket, with its message and name.

    Raises:
        BadInput: It is none of Flight SQL.
        Unsupported: There is no such command.
    """
    found = decode(m.Any_, packed or b"")
    name = (found.type_url or "").removeprefix(TYPE_PREFIX)
    if name == found.type_url or not name:
        raise BadInput("the command", reason="it is no message of Flight SQL")
    command = COMMANDS.get(name)
    if command is None:
        raise Unsupported(f"the command {name[:80]!r}")
    return command, decode(command.message, found.value or b""), name
