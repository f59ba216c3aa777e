"""The Flight SQL server: a gRPC server of its own port, over a lake.

It is made of `grpc` and not of `pyarrow.flight`, because that accepts requests of any length, from
any client, before a handler sees them, and decodes Arrow data before this package can check it (design
0100).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import logging
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Self

import grpc

from lake.flight.calls import Call, Caller, Calls
from lake.flight.commands import Service
from lake.flight.rpc import METHODS, Method
from lake.flight.statements import Statements
from lake.flight.status import status_of, text_of
from lake.statements.limits import Requester
from sennit_core.errors import Conflict, InternalError, SennitError, Unauthenticated
from sennit_core.logs import get_logger
from sennit_core.units import MIB

if TYPE_CHECKING:
    from lake.lake import Lake

__all__ = ["Authenticate", "FlightSqlServer"]

Authenticate = Callable[[str], "Requester | None"]
"""Returns the user of a token; None if the token is not known."""

MESSAGE_BYTES_MAX = 64 * MIB
_SERVICE = "/arrow.flight.protocol.FlightService/"
_THREADS = 64
_CLOSE_SECONDS = 10.0
_log = get_logger("lake.flight")
_OPTIONS = (
    ("grpc.max_receive_message_length", MESSAGE_BYTES_MAX),
    # One message holds at least one row, whose length has no limit here.
    ("grpc.max_send_message_length", -1),
    ("grpc.max_metadata_size", 16 << 10),
    ("grpc.max_concurrent_streams", _THREADS),
    # Otherwise a second server on the same port would share its connections.
    ("grpc.so_reuseport", 0),
)


class FlightSqlServer:
    """Serves a lake to clients of Arrow Flight SQL; a context manager that stops it on exit.

    Args:
        lake: Must outlive the server.
        authenticate: Returns the user of a token.
        host: Address to listen on.
        port: 0 for any free port; `port` is then the chosen one.
        tls: Key and certificate chain in PEM; None to serve without TLS.
        ingest_bytes_max: Largest bulk ingestion; None for no limit except the disk.
        audit: Gets a line for each refused call, and for each change.

    Raises:
        Conflict: The address cannot be bound.
    """

    def __init__(  # noqa: PLR0913 - settings, all by keyword
        self,
        lake: Lake,
        authenticate: Authenticate,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        tls: tuple[bytes, bytes] | None = None,
        ingest_bytes_max: int | None = None,
        audit: logging.Logger = _log,
    ) -> None:
        self._calls = Calls()
        handler = _Handler(
            Service(lake, Statements(lake, ingest_bytes_max)), self._calls, authenticate, audit
        )
        self._server = grpc.server(
            ThreadPoolExecutor(_THREADS, thread_name_prefix="flight"),
            handlers=(handler,),
            options=_OPTIONS,
            maximum_concurrent_rpcs=_THREADS,
        )
        name = f"[{host}]" if ":" in host else host
        self.port = self._bind(f"{name}:{port}", tls)
        self.url = f"{'grpc+tls' if tls else 'grpc'}://{name}:{self.port}"
        self._server.start()

    def close(self) -> None:
        """Cancel the calls in progress, and stop; may be called twice."""
        self._server.stop(None).wait()
        self._calls.close(_CLOSE_SECONDS)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _bind(self, address: str, tls: tuple[bytes, bytes] | None) -> int:
        try:
            if tls is None:
                return int(self._server.add_insecure_port(address))
            credentials = grpc.ssl_server_credentials([tls])
            return int(self._server.add_secure_port(address, credentials))
        except RuntimeError as error:
            self.close()
            raise Conflict(f"Flight SQL cannot listen on {address}") from error


class _Handler(grpc.GenericRpcHandler):  # type: ignore[misc]  # grpc has no types
    """Finds the method of a call, and authenticates its caller."""

    def __init__(
        self, service: Service, calls: Calls, authenticate: Authenticate, audit: logging.Logger
    ) -> None:
        self._service = service
        self._calls = calls
        self._authenticate = authenticate
        self._audit = audit

    def service(self, handler_call_details: Any) -> Any:
        """Return the handler of a call; gRPC has not read its request yet."""
        path = handler_call_details.method
        name = path.removeprefix(_SERVICE)
        method = METHODS.get(name)
        if method is None or name == path:
            return None
        headers = dict(handler_call_details.invocation_metadata)
        try:
            caller = self._identify(headers.get("authorization", ""))
        except SennitError as refusal:
            error = refusal
            self._audit.warning("refused flight %s: %s", name, refusal)
            return grpc.stream_stream_rpc_method_handler(
                lambda _requests, context: _abort(context, error)
            )

        def serve(requests: Iterator[bytes], context: Any) -> Iterator[bytes]:
            return self._serve(name, method, caller, requests, context)

        return grpc.stream_stream_rpc_method_handler(serve)

    def _serve(
        self, name: str, method: Method, caller: Caller, requests: Iterator[bytes], context: Any
    ) -> Iterator[bytes]:
        try:
            with self._calls.admit(caller, context) as call:
                if name == "DoPut":
                    self._audit.info("flight %s by %s", name, caller.requester.name)
                yield from method(self._service, call, _read(call, requests))
        except SennitError as error:
            yield from _abort(context, error)
        except grpc.RpcError:  # the client is gone
            return
        except Exception as error:  # noqa: BLE001 - logged and answered
            if not context.is_active():  # what ends a call may surface anywhere
                return
            _log.exception("unexpected error in flight %s", name, exc_info=error)
            internal = InternalError("the node met an unexpected error", hint="see system.log")
            yield from _abort(context, internal)

    def _identify(self, header: str) -> Caller:
        """Return the caller of a token, sent as such or as the password of any user.

        Raises:
            Unauthenticated: There is no token, or an unknown one.
        """
        scheme, _, credential = header.partition(" ")
        token = credential.strip()
        if scheme.lower() == "basic":
            token = _password(token)
        requester = self._authenticate(token) if token else None
        if requester is None:
            raise Unauthenticated(
                "Flight SQL",
                needed="a token of this node",
                hint="send it as Authorization: Bearer …, or as the password of any user",
            )
        return Caller(hashlib.sha256(token.encode()).digest(), token, requester)


def _read(call: Call, requests: Iterator[bytes]) -> Iterator[bytes]:
    """Yield the client's messages; after each there is time to answer, or to set another limit."""
    for request in requests:
        call.expect_message()
        yield request


def _password(encoded: str) -> str:
    """Return the password of HTTP's basic authentication, which clients send without padding too."""
    try:
        padded = encoded + "=" * (-len(encoded) % 4)
        text = base64.b64decode(padded, validate=True).decode()
    except (binascii.Error, ValueError):
        return ""
    return text.partition(":")[2]


def _abort(context: Any, error: SennitError) -> Iterator[bytes]:
    context.set_trailing_metadata((("sennit-code", error.code),))
    context.abort(status_of(error), text_of(error))
    yield b""  # never: `abort` raises
