"""Cross-origin requests of web pages (CORS, https://fetch.spec.whatwg.org/#http-cors-protocol).

Pages of the origins in `network.allowed_origins` may use the API, the files and the realtime tree.
The response always names the request's origin: `*` together with credentials would let every page
use the visitor's cookie, and browsers refuse it.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import TypeAlias
from urllib.parse import urlsplit

from sennit._asgi import App, Message, Receive, Scope, Send
from sennit_core.errors import Denied, SennitError, UsageError

__all__ = ["Cors", "checked_origin"]

_METHODS = b"GET, HEAD, POST, PUT, PATCH, DELETE"
# Response headers that pages may read, in addition to those the Fetch standard always exposes.
_EXPOSED = (
    b"Accept-Ranges, Content-Disposition, Content-Length, Content-Range, ETag, Location, "
    b"Retry-After, Sennit-Awaited-Version, Sennit-Cache, Sennit-Dataset, Sennit-Engine, "
    b"Sennit-Job, Sennit-Missing, Sennit-Queued, Tus-Checksum-Algorithm, Tus-Extension, "
    b"Tus-Max-Size, Tus-Resumable, Tus-Version, Upload-Concat, Upload-Expires, Upload-Length, "
    b"Upload-Metadata, Upload-Offset, X-Elkyn-Position, X-Request-Id"
)
_VARY = (b"vary", b"Origin")
_NAME = re.compile(r"[a-z0-9._-]+|[0-9a-f:.]+")

Refuse: TypeAlias = Callable[[Scope, Receive, Send, SennitError], Awaitable[None]]
_PREFLIGHT_SECONDS = b"600"


class Cors:
    """ASGI middleware: answers preflights, and lets allowed pages read all other responses.

    Args:
        app: Handles all other requests.
        origins: The allowed origins, as `checked_origin` returns them.
        check_host: Raises for a request to another host; the only check that preflights pass.
        refuse: Responds with an error.
    """

    def __init__(
        self,
        app: App,
        origins: Iterable[str],
        *,
        check_host: Callable[[Mapping[str, str]], None],
        refuse: Refuse,
    ) -> None:
        self._app = app
        self._origins = frozenset(origin.encode("ascii") for origin in origins)
        self._check_host = check_host
        self._refuse = refuse

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request (ASGI 3)."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        if scope["method"] == "OPTIONS" and b"access-control-request-method" in headers:
            await self._preflight(headers, scope, receive, send)
        elif self._origins:
            origin = headers.get(b"origin", b"")
            await self._app(scope, receive, _marking(send, self._shared(origin)))
        else:
            await self._app(scope, receive, send)

    async def _preflight(
        self, headers: Mapping[bytes, bytes], scope: Scope, receive: Receive, send: Send
    ) -> None:
        origin = headers.get(b"origin", b"")
        try:
            self._check_host({"host": headers.get(b"host", b"").decode("latin-1")})
            if origin not in self._origins:
                raise Denied(
                    action=f"{scope['path']} from origin {origin.decode('latin-1')!r}",
                    needed="an allowed origin",
                    hint="add the origin to network.allowed_origins if you trust it",
                )
        except Denied as refusal:
            await self._refuse(scope, receive, _marking(send, [_VARY]), refusal)
            return
        allowed = [
            *self._shared(origin),
            (b"access-control-allow-methods", _METHODS),
            (b"access-control-max-age", _PREFLIGHT_SECONDS),
        ]
        # All headers are allowed: the origin is trusted, and the actual request is checked.
        if wanted := headers.get(b"access-control-request-headers"):
            allowed.append((b"access-control-allow-headers", wanted))
        if headers.get(b"access-control-request-private-network") == b"true":
            allowed.append((b"access-control-allow-private-network", b"true"))
        await send({"type": "http.response.start", "status": 204, "headers": allowed})
        await send({"type": "http.response.body", "body": b""})

    def _shared(self, origin: bytes) -> list[tuple[bytes, bytes]]:
        """Return the headers that let a page of `origin` read a response, if it is allowed.

        `Vary` is always set, so that caches keep the responses of different origins apart.
        """
        if origin not in self._origins:
            return [_VARY]
        return [
            _VARY,
            (b"access-control-allow-origin", origin),
            (b"access-control-allow-credentials", b"true"),
            (b"access-control-expose-headers", _EXPOSED),
        ]


def checked_origin(text: str) -> str:
    """Return an origin as browsers send it: scheme and host in lower case, no trailing slash.

    Raises:
        UsageError: the text is not an origin of a web page.
    """
    wrong = UsageError(
        f"network.allowed_origins: {text!r} is not an origin",
        hint="write each one like https://app.example or http://localhost:3000",
    )
    try:
        parts = urlsplit(text.strip().removesuffix("/"))
        port = "" if parts.port is None else f":{parts.port}"
    except ValueError:
        raise wrong from None
    host = parts.hostname or ""
    is_plain = not (parts.path or parts.query or parts.fragment or parts.username)
    if parts.scheme not in ("http", "https") or not _NAME.fullmatch(host) or not is_plain:
        raise wrong
    if (parts.scheme, parts.port) in (("http", 80), ("https", 443)):
        port = ""  # browsers omit the default port
    return f"{parts.scheme}://{f'[{host}]' if ':' in host else host}{port}"


def _marking(send: Send, more: list[tuple[bytes, bytes]]) -> Send:
    """Return a `send` that adds headers to the response."""

    async def send_marked(message: Message) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message.get("headers", []), *more]}
        await send(message)

    return send_marked
