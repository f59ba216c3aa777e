"""Statements of Flight SQL: queries, changes, prepared statements, and bulk ingestion."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

from lake.flight.calls import Call
from lake.flight.messages import (
    ActionClosePreparedStatementRequest,
    ActionCreatePreparedStatementRequest,
    ActionCreatePreparedStatementResult,
    Any_,
    CommandPreparedStatementQuery,
    CommandStatementIngest,
    CommandStatementQuery,
    DoPutPreparedStatementResult,
    DoPutUpdateResult,
    FlightData,
    TicketStatementQuery,
)
from lake.flight.metadata import CATALOG, SCHEMA
from lake.flight.prepared import Parameters, PreparedStatements
from lake.flight.protobuf import decode, encode
from lake.flight.streams import IpcWriter, encapsulated, flight_messages
from lake.flight.tickets import Tickets
from lake.statements.mentions import changes_data
from lake.statements.script_text import read_script
from lake.statements.scripts import pieces_of
from sennit_core.errors import (
    Cancelled,
    Denied,
    NotFound,
    TooLarge,
    Unsupported,
    UsageError,
)
from sennit_core.units import MIB

if TYPE_CHECKING:
    from lake.lake import Lake
    from lake.statements.running import RunningStatement

__all__ = ["Info", "Statements"]

TYPE_PREFIX = "type.googleapis.com/arrow.flight.protocol.sql."
_QUERY_BYTES_MAX = MIB
_PARAMETERS_BYTES_MAX = 4 * MIB
_PARAMETER_ROWS_MAX = 1000
"""Each row of parameters runs the statement once: `adbc_ingest` is the way for more."""
_SENDING_SECONDS = 5.0
"""Time beyond a query's own limit, so that its error, which says more, comes first."""
_APPEND, _REPLACE = 2, 3  # TableDefinitionOptions.if_exists
_FAIL_IF_MISSING = 2  # TableDefinitionOptions.if_not_exist

Stream = Iterator[FlightData]


class Info(NamedTuple):
    """How to get a result.

    Args:
        schema: Its columns as an IPC message; empty if they are not known before it runs.
        ticket: The argument of DoGet; None for the command itself.
        expires: When the ticket expires, in Unix seconds.
    """

    schema: bytes
    ticket: bytes | None = None
    expires: int | None = None


class Statements:
    """Runs the statements of Flight SQL clients on a lake.

    Args:
        lake: The lake.
        ingest_bytes_max: Largest bulk ingestion; None for no limit except the disk.
    """

    def __init__(self, lake: Lake, ingest_bytes_max: int | None) -> None:
        self._lake = lake
        self._ingest_bytes_max = ingest_bytes_max
        self._tickets = Tickets()
        self._prepared = PreparedStatements()
        self._lock = threading.Lock()
        # Results being read, by the nonce of their ticket.
        self._running: dict[bytes, RunningStatement] = {}

    def query(self, call: Call, command: CommandStatementQuery) -> Info:
        """Return the columns of a query, which runs when its ticket is used."""
        text = self._checked(call, command.query, command.transaction_id)
        return self._info(call, text, self._describe(call, text), None)

    def prepare(self, call: Call, request: ActionCreatePreparedStatementRequest) -> Iterator[bytes]:
        """Check a statement and keep it."""
        text = self._checked(call, request.query, request.transaction_id)
        # Clients treat a statement without columns as a change.
        schema = self._describe(call, text)
        handle = self._prepared.add(call.caller.key, text, schema)
        result = ActionCreatePreparedStatementResult(handle, schema, b"")
        yield encode(Any_(TYPE_PREFIX + "ActionCreatePreparedStatementResult", encode(result)))

    def close(self, call: Call, request: ActionClosePreparedStatementRequest) -> Iterator[bytes]:
        """Forget a prepared statement."""
        self._prepared.close(call.caller.key, request.prepared_statement_handle)
        yield from ()

    def prepared_query(self, call: Call, command: CommandPreparedStatementQuery) -> Info:
        """Return the columns of a prepared query with the parameters that are bound now."""
        found = self._prepared.get(call.caller.key, command.prepared_statement_handle)
        if found.parameters is None:
            return self._info(call, found.query, found.schema, None)
        if found.parameters.rows != 1:
            raise Unsupported(
                f"a query with {found.parameters.rows} rows of parameters",
                hint="bind one row, or join the query with a table of the values",
            )
        # The type of a column may be that of a parameter, so the columns are known when it runs.
        return self._info(call, found.query, b"", found.parameters.stream)

    def bind(
        self, call: Call, command: CommandPreparedStatementQuery, stream: Stream
    ) -> Iterator[bytes]:
        """Set the parameters of a prepared statement."""
        parameters = _parameters(stream)
        if parameters is not None:
            handle = command.prepared_statement_handle
            self._prepared.bind(call.caller.key, handle, parameters)
        yield encode(DoPutPreparedStatementResult(command.prepared_statement_handle))

    def read(self, call: Call, command: TicketStatementQuery) -> Iterator[bytes]:
        """Run the statement of a ticket; yield its result as FlightData."""
        ticket = self._tickets.open(call.caller.key, command.statement_handle or b"")
        assert ticket.query is not None
        if _changes(ticket.query):
            self._tickets.spend(ticket)
        parameters = None if ticket.params is None else (ticket.params, 0)
        with self._run(call, ticket.query, parameters, ticket.nonce) as execution:
            payloads = execution.payloads()
            yield from flight_messages(payloads)
            for _ in payloads:  # an error may follow the end of the stream
                pass

    def update(self, call: Call, command: CommandStatementQuery, stream: Stream) -> Iterator[bytes]:
        """Run a statement for its effect."""
        text = self._checked(call, command.query, command.transaction_id)
        yield encode(DoPutUpdateResult(self._change(call, text, None)))

    def prepared_update(
        self, call: Call, command: CommandPreparedStatementQuery, stream: Stream
    ) -> Iterator[bytes]:
        """Run a prepared statement for its effect, once for each row of its parameters."""
        found = self._prepared.get(call.caller.key, command.prepared_statement_handle)
        parameters = _parameters(stream) or found.parameters
        if parameters is None:
            count = self._change(call, found.query, None)
        else:
            rows = range(parameters.rows)
            counts = [self._change(call, found.query, (parameters.stream, row)) for row in rows]
            count = -1 if -1 in counts else sum(counts)
        yield encode(DoPutUpdateResult(count))

    def ingest(
        self, call: Call, command: CommandStatementIngest, stream: Stream
    ) -> Iterator[bytes]:
        """Create, replace or append to a dataset from the stream's rows."""
        if not call.requester.may_write:
            raise Denied("ingesting a dataset", needed="writer")
        name, mode = self._ingest_target(call, command)
        self._lake.policies.check_upload(name, mode, call.requester)
        self._lake.quotas.check_room(call.requester.name, f"rows of {name!r}")
        with self._lake.storage.new_file(name) as file:
            writer = IpcWriter(file.write)
            for data in stream:
                writer.put(data)
                if self._ingest_bytes_max is not None and file.size > self._ingest_bytes_max:
                    raise TooLarge("the ingestion", self._ingest_bytes_max, file.size)
            writer.close()
            # A client that was cut off ends its stream like one that has sent everything.
            if not call.is_active:
                raise Cancelled("the ingestion")
            call.allow(None)
            self._lake.ingest_file(
                file.path, f"{name}.arrow", mode, {"name": name},
                owner=call.requester.name, cancelled=lambda: not call.is_active,
            )  # fmt: skip
        yield encode(DoPutUpdateResult(writer.rows))

    def cancel(self, call: Call, ticket: bytes) -> bool:
        """Cancel the result of a ticket; return whether it was being read."""
        packed = decode(Any_, ticket)
        handle = decode(TicketStatementQuery, packed.value or b"").statement_handle
        nonce = self._tickets.open(call.caller.key, handle or b"", expired=True).nonce
        with self._lock:
            execution = self._running.get(nonce or b"")
        if execution is None or execution.done:
            return False
        execution.cancel()
        return True

    def _checked(self, call: Call, query: str | None, transaction: bytes | None) -> str:
        """Return the text of a statement that the caller may run."""
        if transaction:
            raise Unsupported(
                "transactions over several calls",
                hint="send BEGIN; …; COMMIT as the text of one statement",
            )
        if not query:
            raise UsageError("the statement has no text")
        if len(query) > _QUERY_BYTES_MAX:
            raise TooLarge("the statement", _QUERY_BYTES_MAX, len(query))
        if _changes(query) and not call.requester.may_write:
            raise Denied("changing a dataset", needed="writer")
        return query

    def _info(self, call: Call, text: str, schema: bytes, params: bytes | None) -> Info:
        signed, expires = self._tickets.issue(call.caller.key, text, params)
        ticket = encode(TicketStatementQuery(signed))
        return Info(schema, encode(Any_(TYPE_PREFIX + "TicketStatementQuery", ticket)), expires)

    def _describe(self, call: Call, text: str) -> bytes:
        """Return the columns of a result without running the statement."""
        # Those of several statements may depend on what the first ones change.
        if changes_data(text) or read_script(text) is not None:
            return b""
        with self._run(call, text, None, None, describe=True) as execution:
            return encapsulated(execution.payloads())

    def _change(self, call: Call, text: str, parameters: tuple[bytes, int] | None) -> int:
        """Run a statement; return the number of changed rows, -1 for a query."""
        if not call.is_active:
            raise Cancelled("the statement")
        with self._run(call, text, parameters, None) as execution:
            for _ in execution.payloads():
                pass
            return int(execution.result().get("count", -1))

    @contextmanager
    def _run(
        self,
        call: Call,
        text: str,
        parameters: tuple[bytes, int] | None,
        nonce: bytes | None,
        *,
        describe: bool = False,
    ) -> Iterator[RunningStatement]:
        """Start a statement, which ends with the call, or when its limit of time is over."""
        requester, limits = call.requester, self._lake.query_limits
        seconds = limits.deadline_seconds(call.seconds, requester)
        call.allow(None if seconds is None else seconds + _SENDING_SECONDS)
        with self._lake.run(
            text,
            arrow_params=parameters,
            max_rows=limits.rows(None, "arrow"),
            deadline_seconds=seconds,
            user=requester.name,
            role=requester.role,
            read_only=not requester.may_write,
            describe=describe,
        ) as execution:
            # False if the call has ended already: the callback would not be called.
            if not call.context.add_callback(execution.cancel):
                execution.cancel()
            with self._registered(nonce, execution):
                yield execution

    @contextmanager
    def _registered(self, nonce: bytes | None, execution: RunningStatement) -> Iterator[None]:
        if nonce is None:  # no client can name it
            yield
            return
        with self._lock:
            self._running[nonce] = execution
        try:
            yield
        finally:
            with self._lock:
                if self._running.get(nonce) is execution:
                    del self._running[nonce]

    def _ingest_target(self, call: Call, command: CommandStatementIngest) -> tuple[str, str]:
        """Return the dataset's name, and the mode of the ingest."""
        if command.temporary:
            raise Unsupported("temporary tables", hint="ingest into a dataset, and delete it later")
        if command.transaction_id:
            raise Unsupported("transactions", hint="each ingestion is one")
        if command.catalog not in (None, "", CATALOG) or command.schema not in (None, "", SCHEMA):
            raise NotFound("schema", f"{command.catalog or CATALOG}.{command.schema or SCHEMA}")
        if not command.table:
            raise UsageError("the ingestion names no table")
        options = command.table_definition_options
        if_missing = options.if_not_exist if options else None
        if_exists = options.if_exists if options else None
        if if_missing == _FAIL_IF_MISSING:
            self._lake.policies.visible(command.table, call.requester)  # raises NotFound
        mode = {_APPEND: "append", _REPLACE: "replace"}.get(if_exists or 0, "create")
        return command.table, mode


def _changes(text: str) -> bool:
    """Return whether one of the statements of a text changes data."""
    script = read_script(text)
    if script is None:
        return changes_data(text)
    return any(changes_data(piece.text) for step in script for piece in pieces_of(step))


def _parameters(stream: Stream) -> Parameters | None:
    """Return the rows of parameters that a client sends; None if it sends none."""
    pieces = bytearray()
    writer = IpcWriter(pieces.extend)
    for data in stream:
        writer.put(data)
        if len(pieces) > _PARAMETERS_BYTES_MAX:
            raise TooLarge("the parameters", _PARAMETERS_BYTES_MAX, hint="use bulk ingestion")
    if not writer.rows:
        return None
    if writer.rows > _PARAMETER_ROWS_MAX:
        raise UsageError(
            f"{writer.rows} rows of parameters; {_PARAMETER_ROWS_MAX} are allowed",
            hint="use bulk ingestion (adbc_ingest), or INSERT with several rows of VALUES",
        )
    writer.close()
    return Parameters(bytes(pieces), writer.rows)
