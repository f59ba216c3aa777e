"""The methods of the gRPC service `arrow.flight.protocol.FlightService`.

Each reads the messages of a client, as bytes, and yields those of the server. All are declared to
gRPC as streams in both directions, which on the wire is the same as one message in either: so a
request is read only after its caller was admitted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from itertools import chain
from typing import Any

from lake.flight import messages as m
from lake.flight.calls import Call
from lake.flight.commands import ACTIONS, Service, command_of
from lake.flight.protobuf import decode, encode
from lake.flight.statements import Info
from sennit_core.errors import BadInput, NotFound, Unsupported

__all__ = ["METHODS", "Method"]

Requests = Iterator[bytes]
Method = Callable[[Service, Call, Requests], Iterator[bytes]]

_COMMAND = 2  # FlightDescriptor.type


def handshake(_service: Service, call: Call, _requests: Requests) -> Iterator[bytes]:
    """Return the token of a client that sent it as a password."""
    call.context.send_initial_metadata((("authorization", f"Bearer {call.caller.token}"),))
    yield b""


def get_flight_info(service: Service, call: Call, requests: Requests) -> Iterator[bytes]:
    """Return the columns of a command's result, and the ticket for it."""
    descriptor = decode(m.FlightDescriptor, _one(requests))
    info, packed = _info(service, call, descriptor)
    expires = None if info.expires is None else m.Timestamp(info.expires)
    endpoint = m.FlightEndpoint(m.Ticket(info.ticket or packed), expires)
    yield encode(m.FlightInfo(info.schema, descriptor, (endpoint,), -1, -1))


def get_schema(service: Service, call: Call, requests: Requests) -> Iterator[bytes]:
    """Return the columns of a command's result."""
    info, _ = _info(service, call, decode(m.FlightDescriptor, _one(requests)))
    yield encode(m.SchemaResult(info.schema))


def do_get(service: Service, call: Call, requests: Requests) -> Iterator[bytes]:
    """Return the result of a ticket."""
    command, message, name = command_of(decode(m.Ticket, _one(requests)).ticket)
    if command.read is None:
        raise Unsupported(f"{name} as a ticket", hint="use the ticket that GetFlightInfo returns")
    yield from command.read(service, call, message)


def do_put(service: Service, call: Call, requests: Requests) -> Iterator[bytes]:
    """Read a stream of Arrow data."""
    first = decode(m.FlightData, _one(requests))
    command, message, name = command_of(_command(first.flight_descriptor))
    if command.write is None:
        raise Unsupported(f"{name} with data")
    rest = (decode(m.FlightData, each) for each in _timed(call, requests))
    for result in command.write(service, call, message, chain((first,), rest)):
        yield encode(m.PutResult(result))


def do_action(service: Service, call: Call, requests: Requests) -> Iterator[bytes]:
    """Run an action."""
    request = decode(m.Action, _one(requests))
    action = ACTIONS.get(request.type or "")
    if action is None:
        raise Unsupported(f"the action {(request.type or '')[:80]!r}")
    body = request.body or b""
    if action.is_any:
        body = decode(m.Any_, body).value or b""
    for result in action.run(service, call, decode(action.message, body)):
        yield encode(m.Result(result))


def list_actions(_service: Service, _call: Call, requests: Requests) -> Iterator[bytes]:
    """List the actions."""
    _one(requests)
    for name, action in ACTIONS.items():
        yield encode(m.ActionType(name, action.description))


def list_flights(_service: Service, _call: Call, _requests: Requests) -> Iterator[bytes]:
    """List nothing: clients of Flight SQL list tables by a command."""
    yield from ()


METHODS: Mapping[str, Method] = {
    "Handshake": handshake,
    "GetFlightInfo": get_flight_info,
    "GetSchema": get_schema,
    "DoGet": do_get,
    "DoPut": do_put,
    "DoAction": do_action,
    "ListActions": list_actions,
    "ListFlights": list_flights,
}


def _one(requests: Requests) -> bytes:
    """Return the next message of a client."""
    first = next(requests, None)
    if first is None:
        raise BadInput("the request", reason="it has no message")
    return first


def _timed(call: Call, requests: Requests) -> Iterator[bytes]:
    """Yield the messages of a client, which has limited time for each."""
    while True:
        call.expect_message()
        found = next(requests, None)
        if found is None:
            return
        yield found


def _command(descriptor: m.FlightDescriptor | None) -> bytes | None:
    if descriptor is None or descriptor.type != _COMMAND:
        raise NotFound("flight", hint="this is a Flight SQL server: send a command, not a path")
    return descriptor.cmd


def _info(service: Service, call: Call, descriptor: m.FlightDescriptor) -> tuple[Info, Any]:
    packed = _command(descriptor)
    command, message, name = command_of(packed)
    if command.info is None:
        raise Unsupported(f"{name} in GetFlightInfo")
    return command.info(service, call, message), packed
