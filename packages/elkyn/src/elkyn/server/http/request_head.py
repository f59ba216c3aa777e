"""Checks of a request's head that HTTP/1.1 asks of every server (RFC 9112, sections 3.2 and 6.3).

If a proxy and a server read a repeated header differently, a client can exploit it: the proxy checks
the first Host or Authorization, the server uses the last. A head that could be read in two ways is
refused before any middleware sees it.
"""

from __future__ import annotations

from urllib.parse import urlsplit

from sennit_core.errors import UsageError

__all__ = ["SINGLE_HEADERS", "checked_headers"]

SINGLE_HEADERS = frozenset(
    {
        b"authorization",
        b"content-length",
        b"content-type",
        b"cookie",
        b"host",
        b"origin",
        b"sec-fetch-site",
        b"x-http-method-override",
    }
)
"""Headers that say who the client is, its origin, and what a request means: each may occur once."""

Headers = list[tuple[bytes, bytes]]


def checked_headers(target: bytes, version: str, headers: Headers) -> Headers:
    """Check that the head of a request has one meaning, and return its headers.

    Args:
        target: the request target, as in the request line.
        version: of HTTP, such as `1.1`.
        headers: names in lower case.

    Returns:
        The same headers; if the target is in absolute form, with its authority as Host, because it
        has precedence over the header (RFC 9112, section 3.2.2).

    Raises:
        UsageError: a header of `SINGLE_HEADERS` is repeated, Host is missing, or the target is
            neither a path nor an http address.
    """
    seen = set()
    for name, _value in headers:
        if name in SINGLE_HEADERS:
            if name in seen:
                raise UsageError(
                    f"the header {name.decode('ascii')} is repeated", hint="send it once"
                )
            seen.add(name)
    # RFC 9112, section 3.2: a server must answer 400 to a request of HTTP/1.1 without Host.
    if b"host" not in seen and version != "1.0":
        raise UsageError("the request has no Host header", hint="HTTP/1.1 needs one")
    # The origin form and the asterisk form; the rest must be in absolute form.
    if target.startswith(b"/") or target == b"*":
        return headers
    return _with_host(_authority(target), headers)


def _authority(target: bytes) -> bytes:
    try:
        parts = urlsplit(target.decode("ascii"))
    except ValueError:
        parts = urlsplit("")
    if parts.scheme.lower() not in ("http", "https") or not parts.netloc:
        raise UsageError(
            "the request target is neither a path nor an http address",
            hint="send a path, such as GET /healthz",
        )
    return parts.netloc.encode("ascii")


def _with_host(authority: bytes, headers: Headers) -> Headers:
    others = [(name, value) for name, value in headers if name != b"host"]
    return [(b"host", authority), *others]
