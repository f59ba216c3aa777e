"""Cross-origin requests: which web pages may use the server, and what browsers ask first (CORS)."""

from __future__ import annotations

from collections.abc import Awaitable, Iterable, Mapping, MutableMapping
from functools import lru_cache
from typing import Any
from urllib.parse import urlsplit

from elkyn.server.asgi import Send
from elkyn.server.request import METHODS, Response
from sennit_core.errors import Denied

__all__ = ["LOOPBACK", "Origins"]

LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})

_EXPOSED = "ETag, Retry-After, X-Elkyn-Position, X-Request-Id"
_AGE_SECONDS = "3600"


class Origins:
    """The web origins that may use a server.

    Args:
        allowed: origins such as `https://app.example`; `*` for every one. Tokens are never sent by
            browsers on their own, so `*` gives a page nothing that it has no token for.
        loopback_only: refuse pages of other hosts, and requests that name another host, altogether:
            for a server whose token everybody knows.
    """

    def __init__(self, allowed: Iterable[str] = (), *, loopback_only: bool = False) -> None:
        self._allowed = frozenset(origin.rstrip("/") for origin in allowed)
        self._loopback_only = loopback_only
        self._handles = bool(self._allowed) or loopback_only

    def check(self, headers: Mapping[str, str]) -> None:
        """Raise `Denied` for a page or host that is kept out."""
        if not self._loopback_only:
            return
        addresses = [f"//{headers.get('host', '')}"]
        if "origin" in headers:
            addresses.append(headers["origin"])
        for address in addresses:
            if not _is_loopback(address):
                raise Denied("reaching the emulator from another host or origin", "localhost")

    def headers(self, request: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
        """Return the headers that let the page which asks read the answer."""
        origin = request.get("origin")
        if origin is None or not self._handles or not self._allows(origin):
            return ()
        every = "*" in self._allowed
        allowed = ("access-control-allow-origin", "*" if every else origin)
        exposed = ("access-control-expose-headers", _EXPOSED)
        return (allowed, exposed) if every else (allowed, exposed, ("vary", "Origin"))

    def streaming(self, request: Mapping[str, str], send: Send) -> Send:
        """Return a `send` that gives the answer's first message these headers as well."""
        more = [(name.encode(), value.encode()) for name, value in self.headers(request)]

        def sending(message: MutableMapping[str, Any]) -> Awaitable[None]:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message["headers"], *more]}
            return send(message)

        return sending if more else send

    def preflight(self, request: Mapping[str, str]) -> Response:
        """Answer OPTIONS."""
        allow = ("allow", ", ".join((*METHODS, "OPTIONS")))
        shared = self.headers(request)
        if not shared or "access-control-request-method" not in request:
            return Response(204, headers=(allow, *shared))
        asked = request.get("access-control-request-headers")
        wanted = (("access-control-allow-headers", asked),) if asked else ()
        methods = ("access-control-allow-methods", ", ".join(METHODS))
        age = ("access-control-max-age", _AGE_SECONDS)
        return Response(204, headers=(allow, *shared, methods, age, *wanted))

    def _allows(self, origin: str) -> bool:
        if self._loopback_only and not _is_loopback(origin):
            return False
        return self._loopback_only or "*" in self._allowed or origin in self._allowed


@lru_cache(maxsize=256)
def _is_loopback(address: str) -> bool:
    try:
        return urlsplit(address).hostname in LOOPBACK
    except ValueError:
        return False
