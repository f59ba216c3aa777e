"""ASGI messages: requests from scopes, bodies, answers."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterable, Mapping, MutableMapping, Sequence
from functools import lru_cache
from http.client import responses
from typing import Any, Protocol, TypeAlias
from urllib.parse import quote, unquote

from elkyn.server.request import Request, Response, parse_query
from elkyn.server.send_buffer import LARGE_BYTES

__all__ = [
    "BODY_READER",
    "COUNTED",
    "DIRECT_SEND",
    "DirectSend",
    "Receive",
    "Scope",
    "Send",
    "client_of",
    "direct_send_of",
    "head_of",
    "headers_of",
    "send_body",
    "send_response",
    "to_request",
]

DIRECT_SEND = "elkyn.direct_send"
"""A scope extension: a `DirectSend`."""

BODY_READER = "elkyn.body_reader"
"""A scope extension: a `BodyReader` (`elkyn.server.http.body_thread`), of a long body without TLS."""

COUNTED = "elkyn.counted"
"""A scope extension: set when limits have counted the request; holds its `ClientAuth`, if known."""


class DirectSend(Protocol):
    """Writes to an HTTP/1.1 connection bypassing ASGI; on False use `send`, which may wait."""

    def whole(self, head: bytes, body: bytes) -> bool:
        """Send an answer; `head` lacks only the header `connection` and the empty line."""
        ...

    def chunk(self, data: bytes) -> bool:
        """Send a chunk, already encoded, of an answer whose head was sent."""
        ...


Scope: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send: TypeAlias = Callable[[MutableMapping[str, Any]], Awaitable[None]]

_NONE: dict[str, Any] = {}
_LINE_END = re.compile(r"[\0\r\n]")
HEADERS: Mapping[bytes, str] = {
    name.encode(): name
    for name in (
        "accept",
        "access-control-request-headers",
        "access-control-request-method",
        "authorization",
        "content-type",
        "host",
        "idempotency-key",
        "if-match",
        "if-none-match",
        "last-event-id",
        "origin",
        "user-agent",
        "x-elkyn-ack",
        "x-elkyn-min-position",
        "x-firebase-etag",
        "x-http-method-override",
        "x-request-id",
    )
}
"""The headers that the app reads, by their names in ASGI."""


def client_of(scope: Mapping[str, Any]) -> str:
    """Return the address that a request comes from."""
    client: tuple[str, int] | None = scope.get("client")
    return "" if client is None else client[0]


def direct_send_of(scope: Scope) -> DirectSend | None:
    """Return the connection's `DirectSend`; None when the server has none."""
    found: DirectSend | None = scope.get("extensions", _NONE).get(DIRECT_SEND)
    return found


def headers_of(raw: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
    """Return the headers that the app reads; of repeated headers the last one."""
    # Only the headers that are read are decoded.
    return {HEADERS[name]: value.decode("latin-1") for name, value in raw if name in HEADERS}


def to_request(scope: Scope) -> Request:
    """Return the request of a scope without its body, with the headers that the app reads."""
    headers = headers_of(scope["headers"])
    query = parse_query(scope.get("query_string", b""))
    return Request(scope.get("method", "GET"), _raw_path(scope), query, headers)


def _raw_path(scope: Scope) -> str:
    path: str = scope["path"]
    raw = scope.get("raw_path")
    root = scope.get("root_path", "")
    # Optional in ASGI. An encoded slash (%2F) is then lost, as `path` is decoded.
    if raw is None:
        return quote(path.removeprefix(root))
    if b"%" not in raw:  # `path` without the root path of the mounts above
        return path.removeprefix(root) if path.isascii() else quote(path.removeprefix(root))
    # `root_path` is decoded but `raw_path` is not, so the length of the root in `raw_path` is found
    # by decoding it whole and cutting off what follows the root.
    whole = raw.partition(b"?")[0].decode("latin-1")
    cut = unquote(whole).removesuffix(path.removeprefix(root))
    text: str = whole.removeprefix(quote(cut, safe="/:@!$&'()*+,;=~-._"))
    return text


async def send_response(response: Response, scope: Scope, send: Send) -> None:
    """Send an answer; without its body for a HEAD request."""
    body = b"" if scope["method"] == "HEAD" else response.body
    direct = direct_send_of(scope)
    small = len(body) <= LARGE_BYTES
    if direct is not None and small and direct.whole(head_of(response), body):
        return
    headers: Sequence[tuple[bytes, bytes]] = _encoded(response.headers)
    # RFC 9110, section 8.6: no Content-Length with 204; a 304 would have to repeat that of the 200.
    if response.status not in (204, 304):
        headers = [*headers, (b"content-length", b"%d" % len(response.body))]
    if response.position:
        headers = [*headers, (b"x-elkyn-position", b"%d" % response.position)]
    await send({"type": "http.response.start", "status": response.status, "headers": headers})
    await send_body(body, send)


async def send_body(body: bytes, send: Send, *, more: bool = False) -> None:
    """Send a body or a piece of one; a large one in parts of at most `LARGE_BYTES`."""
    start = 0
    # Each `send` waits until the transport has room, so a slow client holds one part in the
    # transport's buffer and not the whole body again.
    while len(body) - start > LARGE_BYTES:
        part = body[start : start + LARGE_BYTES]
        await send({"type": "http.response.body", "body": part, "more_body": True})
        start += LARGE_BYTES
    rest = body[start:] if start else body
    await send({"type": "http.response.body", "body": rest, "more_body": more})


def head_of(response: Response) -> bytes:
    """Return the head of an answer, without the header `connection` and the empty line."""
    head = _head_start(response.status, response.headers)
    if response.status not in (204, 304):
        head += b"content-length: %d\r\n" % len(response.body)
    if response.position:
        head += b"x-elkyn-position: %d\r\n" % response.position
    return head


@lru_cache(maxsize=256)
def _head_start(status: int, headers: tuple[tuple[str, str], ...]) -> bytes:
    lines = [f"HTTP/1.1 {status} {responses.get(status, '')}"]
    lines += [f"{name}: {value}" for name, value in headers]
    # Written to the connection as it is (`DirectSend.whole`), without uvicorn's checks of header
    # values.
    if any(_LINE_END.search(line) for line in lines):
        raise ValueError("a header contains a line break")
    return "".join(f"{line}\r\n" for line in lines).encode("latin-1")


@lru_cache(maxsize=256)
def _encoded(headers: tuple[tuple[str, str], ...]) -> tuple[tuple[bytes, bytes], ...]:
    return tuple((name.encode("latin-1"), value.encode("latin-1")) for name, value in headers)
