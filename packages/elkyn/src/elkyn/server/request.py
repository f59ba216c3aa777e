"""Requests and responses as plain values, and what a URL asks for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, unquote_to_bytes

from elkyn.errors import BadPath
from elkyn.paths import Path, format_path, parse_path
from sennit_core.errors import NotFound, UsageError

__all__ = ["METHODS", "Call", "MethodNotAllowed", "Request", "Response", "parse_call"]

_QUERIES = frozenset(
    [
        "orderBy",
        "startAt",
        "startAfter",
        "endAt",
        "endBefore",
        "equalTo",
        "limitToFirst",
        "limitToLast",
    ]
)
METHODS = ("GET", "HEAD", "PUT", "PATCH", "POST", "DELETE")


class MethodNotAllowed(UsageError):
    """The method is none of `METHODS`."""


@dataclass(frozen=True, slots=True)
class Request:
    """One HTTP request; header names in lower case, the path still percent-encoded."""

    method: str
    raw_path: str
    query: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""


@dataclass(frozen=True, slots=True)
class Response:
    """One HTTP response."""

    status: int
    body: bytes = b""
    headers: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Call:
    """What a request asks of a tree, checked."""

    method: str
    keys: Path
    namespace: str | None
    pretty: bool
    silent: bool
    shallow: bool
    stream: bool
    wants_etag: bool
    if_match: str | None
    if_none_match: str | None

    @property
    def path(self) -> str:
        """The path as text."""
        return format_path(self.keys)

    @property
    def writes(self) -> bool:
        """Whether the call changes the tree."""
        return self.method not in ("GET", "HEAD")


def parse_query(raw: bytes) -> dict[str, str]:
    """Return the parameters of a query string; the last of a name counts."""
    return dict(parse_qsl(raw.decode("latin-1"), keep_blank_values=True, max_num_fields=64))


def parse_call(request: Request) -> Call:
    """Read method, path, parameters and headers.

    Raises:
        NotFound: the path does not end in `.json`.
        BadPath: a key breaks a limit.
        UsageError: a parameter or header that makes no sense here, or is not supported.
    """
    headers, query = request.headers, request.query
    method = _method(request)
    call = Call(
        method=method,
        keys=_keys(request.raw_path),
        namespace=query.get("ns") or None,
        pretty=query.get("print") == "pretty",
        silent=query.get("print") == "silent",
        shallow=query.get("shallow") == "true",
        stream=method == "GET" and "text/event-stream" in headers.get("accept", ""),
        wants_etag=headers.get("x-firebase-etag", "").lower() == "true",
        if_match=_etag(headers, "if-match"),
        if_none_match=_etag(headers, "if-none-match"),
    )
    _check(call, query)
    return call


def _method(request: Request) -> str:
    method = request.method.upper()
    if method == "POST":
        other = request.headers.get("x-http-method-override")
        method = (other or request.query.get("x-http-method-override") or method).upper()
    return method


def _etag(headers: Mapping[str, str], name: str) -> str | None:
    value = headers.get(name)
    return None if value is None else value.strip().removeprefix("W/").strip('"')


def _keys(raw_path: str) -> Path:
    if not raw_path.endswith(".json"):
        raise NotFound("page", raw_path, message="the data of a path is at <path>.json")
    segments = raw_path.removesuffix(".json").split("/")
    keys: list[str] = []
    for segment in filter(None, segments):
        try:
            key = unquote_to_bytes(segment).decode()
        except UnicodeDecodeError:
            raise BadPath(raw_path, f"{segment!r} is not UTF-8") from None
        if "/" in key:
            raise BadPath(raw_path, f"key {key[:80]!r} holds '/'")
        keys.append(key)
    return parse_path("/".join(keys))


def _check(call: Call, query: Mapping[str, Any]) -> None:
    if call.method not in METHODS:
        raise MethodNotAllowed(f"Method {call.method[:20]!r} is not allowed.")
    asked = _QUERIES & query.keys()
    if asked and call.shallow:
        raise UsageError("Mixing 'shallow' and querying parameters is not supported")
    if asked and "orderBy" not in asked:
        raise UsageError("orderBy must be defined when other query parameters are defined")
    if asked:
        raise UsageError("Queries (orderBy) are not supported by this version")
    if "callback" in query:
        raise UsageError("JSONP (callback) is not supported; use CORS")
    if call.if_match is not None and call.method in ("PATCH", "POST"):
        raise UsageError(f"if-match is not supported for {call.method} requests")
