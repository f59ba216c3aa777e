"""One request of an HTTP/1.1 connection, and how its answer is sent back."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import unquote

import httptools

from elkyn.server.asgi import COUNTED, headers_of
from elkyn.server.request import Request, parse_query

if TYPE_CHECKING:
    from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

    from elkyn.server.auth_backend import ClientAuth

__all__ = ["Connection", "RequestCycle", "to_scope"]


class Connection(Protocol):
    """What a `RequestCycle` needs of its connection."""

    address: str
    loop: asyncio.AbstractEventLoop

    def answer(self, request_cycle: RequestCycle, head: bytes, body: bytes) -> None:
        """Send the answer to the current request, and begin the next request.

        `head` is complete except for the header `connection` and the empty line.
        """
        ...

    def start_app(self, request_cycle: RequestCycle) -> None:
        """Have the ASGI app answer the current request."""
        ...


class RequestCycle:
    """One request and its answer.

    Args:
        connection: the connection that received it.
        method: in capitals.
        target: path and query of the request line, still percent-encoded.
        headers: names in lower case.
        version: of HTTP.
        keep_alive: whether the connection stays open after the answer.

    Attributes:
        body: the part of the body that was received before `asgi_cycle` was set.
        whole: whether the request was received completely.
        asgi_cycle: uvicorn's cycle, when the ASGI app answers; None otherwise.
        counted: whether the app's limits have counted the request already.
        client_auth: the client, when it is authenticated already.

    Raises:
        ValueError: the target has no path.
    """

    __slots__ = (
        "asgi_cycle",
        "body",
        "client_auth",
        "connection",
        "counted",
        "headers",
        "keep_alive",
        "method",
        "path",
        "query",
        "version",
        "whole",
    )

    def __init__(
        self,
        connection: Connection,
        method: str,
        target: bytes,
        headers: list[tuple[bytes, bytes]],
        *,
        version: str,
        keep_alive: bool,
    ) -> None:
        self.connection = connection
        self.method = method
        self.path, self.query = _split(target)
        self.headers = headers
        self.version = version
        self.keep_alive = keep_alive
        # Grows only until `asgi_cycle` is set: from then on the cycle holds the body.
        self.body = b""
        self.whole = False
        # Set once, and never cleared: a request that the app answers does not come back to the fast
        # path.
        self.asgi_cycle: RequestResponseCycle | None = None
        self.counted = False
        self.client_auth: ClientAuth | None = None

    @property
    def answering(self) -> bool:
        """Whether a part of the answer was sent."""
        return self.asgi_cycle is not None and self.asgi_cycle.response_started

    @property
    def streaming(self) -> bool:
        """Whether an answer of unknown length was started but not ended: an event stream."""
        cycle = self.asgi_cycle
        if cycle is None or cycle.response_complete:
            return False
        # `endless` is the same of an answer to HTTP/1.0, which has no chunks; see `UnchunkedCycle`.
        return bool(cycle.chunked_encoding) or getattr(cycle, "endless", False)

    def request(self) -> Request:
        """Return the request with the headers that the app reads.

        Raises:
            UsageError: the query has too many parameters.
        """
        query = parse_query(self.query) if self.query else {}
        return Request(self.method, self.path, query, headers_of(self.headers), self.body)

    def close_after(self) -> None:
        """Close the connection after the answer."""
        self.keep_alive = False
        if self.asgi_cycle is not None:
            self.asgi_cycle.keep_alive = False

    def drop(self) -> None:
        """Signal to the ASGI app that the client has disconnected."""
        if self.asgi_cycle is not None and not self.asgi_cycle.response_complete:
            self.asgi_cycle.disconnected = True
            self.asgi_cycle.message_event.set()


def to_scope(request_cycle: RequestCycle, shared: dict[str, Any]) -> dict[str, Any]:
    """Return the ASGI scope of a request; `shared` holds the fields common to its connection."""
    # ASGI: `raw_path` is the path without the query, still percent-encoded.
    raw_path = request_cycle.path.encode("ascii")
    extensions = {COUNTED: request_cycle.client_auth} if request_cycle.counted else {}
    return {
        "type": "http",
        "http_version": request_cycle.version,
        "method": request_cycle.method,
        "path": unquote(request_cycle.path) if "%" in request_cycle.path else request_cycle.path,
        "raw_path": raw_path,
        "query_string": request_cycle.query,
        "headers": request_cycle.headers,
        "extensions": extensions,
        **shared,
    }


def _split(target: bytes) -> tuple[str, bytes]:
    """Split a request target into path and query."""
    # The origin form of RFC 9112, section 3.2.1, without httptools' parser: nearly all requests.
    if target.startswith(b"/") and b"#" not in target:
        path, _mark, query = target.partition(b"?")
        return path.decode("ascii"), query
    url = httptools.parse_url(target)
    if url.path is None:
        raise ValueError("the target has no path")
    return url.path.decode("ascii"), url.query or b""
