"""Cross-origin requests (CORS): which web pages may use the server, and answers to preflights."""

from __future__ import annotations

from collections.abc import Awaitable, Iterable, Mapping, MutableMapping
from functools import lru_cache
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

from elkyn.errors import UnknownHost
from elkyn.server.asgi import Send
from elkyn.server.request import METHODS, Response

__all__ = ["LOOPBACK", "Origins"]

LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})

_EXPOSED = "ETag, Retry-After, X-Elkyn-Position, X-Request-Id"
# How long a browser may remember the answer to a preflight.
_AGE_SECONDS = "3600"


class Origins:
    """The web origins that may use a server.

    Args:
        allowed: origins such as `https://app.example`; `*` for every origin. Browsers never send
            tokens on their own, so `*` allows a page only what it has a token for.
        loopback_only: for a server whose token is publicly known. The Host of a request must be
            loopback, an IP address or one of `hosts`: a page from any other site cannot send these,
            because only host names can be rebound to another address (DNS rebinding). The origin
            of a page must be loopback, one of `hosts`, or the host of the request.
        hosts: names that are allowed in addition to loopback.
    """

    def __init__(
        self,
        allowed: Iterable[str] = (),
        *,
        loopback_only: bool = False,
        hosts: Iterable[str] = (),
    ) -> None:
        self._allowed = frozenset(origin.rstrip("/") for origin in allowed)
        self._loopback_only = loopback_only
        self._hosts = LOOPBACK | {host.lower() for host in hosts}
        self._handles = bool(self._allowed) or loopback_only

    def check(self, headers: Mapping[str, str]) -> None:
        """Raise `UnknownHost` when the Host or the Origin of a request is not allowed."""
        if not self._loopback_only:
            return
        host = headers.get("host", "")
        name = _host_of(f"//{host}")
        # DNS rebinding needs a name: a page of another site can make its own host name resolve to
        # this server, but its requests then carry that name.
        if name not in self._hosts and not _is_address(name):
            raise UnknownHost("Host", host, name)
        if "origin" in headers and not self._allows(headers["origin"], headers):
            raise UnknownHost("Origin", headers["origin"], _host_of(headers["origin"]))

    def headers(self, request: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
        """Return the CORS headers that allow the requesting page to read the answer."""
        origin = request.get("origin")
        if origin is None or not self._handles or not self._allows(origin, request):
            return ()
        every = "*" in self._allowed
        allowed = ("access-control-allow-origin", "*" if every else origin)
        exposed = ("access-control-expose-headers", _EXPOSED)
        # The answer differs by origin, so a cache must not serve one origin's to another (Fetch
        # standard).
        return (allowed, exposed) if every else (allowed, exposed, ("vary", "Origin"))

    def streaming(self, request: Mapping[str, str], send: Send) -> Send:
        """Return a `send` that adds these headers to the first message of the answer."""
        more = [(name.encode(), value.encode()) for name, value in self.headers(request)]

        def sending(message: MutableMapping[str, Any]) -> Awaitable[None]:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message["headers"], *more]}
            return send(message)

        return sending if more else send

    def preflight(self, request: Mapping[str, str]) -> Response:
        """Answer an OPTIONS request."""
        allow = ("allow", ", ".join((*METHODS, "OPTIONS")))
        shared = self.headers(request)
        # No preflight, or one of an origin that is not allowed: without CORS headers the browser
        # refuses by itself.
        if not shared or "access-control-request-method" not in request:
            return Response(204, headers=(allow, *shared))
        asked = request.get("access-control-request-headers")
        wanted = (("access-control-allow-headers", asked),) if asked else ()
        methods = ("access-control-allow-methods", ", ".join(METHODS))
        age = ("access-control-max-age", _AGE_SECONDS)
        return Response(204, headers=(allow, *shared, methods, age, *wanted))

    def _allows(self, origin: str, request: Mapping[str, str]) -> bool:
        if not self._loopback_only:
            return "*" in self._allowed or origin in self._allowed
        name = _host_of(origin)
        own = _host_of(f"//{request.get('host', '')}")
        return name is not None and (name in self._hosts or name == own)


@lru_cache(maxsize=256)
def _host_of(url: str) -> str | None:
    """Return the host that a URL names, in lower case; None when it names none."""
    try:
        return urlsplit(url).hostname
    except ValueError:
        return None


@lru_cache(maxsize=256)
def _is_address(host: str | None) -> bool:
    try:
        return host is not None and bool(ip_address(host))
    except ValueError:
        return False
