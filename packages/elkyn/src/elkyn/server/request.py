"""Requests and responses as plain values, and the parsing of requests."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import unquote_plus, unquote_to_bytes

from elkyn.errors import BadPath
from elkyn.server.resume import ResumePoint, parse_id
from elkyn.tree.paths import Path, format_path, parse_path
from elkyn.tree.query import Query
from sennit_core.errors import NotFound, UsageError

if TYPE_CHECKING:
    from elkyn.store import ElkynStore

__all__ = [
    "METHODS",
    "Call",
    "MethodNotAllowed",
    "Request",
    "Response",
    "is_reserved",
    "parse_call",
    "parse_query",
    "parse_tree_path",
]

METHODS = ("GET", "HEAD", "PUT", "PATCH", "POST", "DELETE")
RESERVED = frozenset({"auth", "metrics", "healthz", "readyz", "index.html"})
"""First segments that name no data on a path without `.json`; nor do names starting with `.`."""

_CALL_HEADERS = frozenset(
    {
        "idempotency-key",
        "if-match",
        "if-none-match",
        "last-event-id",
        "x-elkyn-ack",
        "x-elkyn-min-position",
        "x-firebase-etag",
    }
)

_WRITE_SECONDS = {"tiny": 1.0, "small": 10.0, "medium": 30.0, "large": 60.0, "unlimited": None}
_DURATION = re.compile(r"([0-9]{1,6}(?:\.[0-9]{1,3})?)(ms|s|min)\Z")
_UNIT_SECONDS = {"ms": 0.001, "s": 1.0, "min": 60.0}
# Firebase's `timeout` is at most 15 minutes.
_READ_SECONDS_MAX = 900.0
# Dotted names with indexes only: the text is sent back as a script, so nothing that could be code.
_CALLBACK = re.compile(r"[A-Za-z_$][\w$]*(?:\.[A-Za-z_$][\w$]*|\[[0-9]{1,6}\])*\Z")
_CALLBACK_CHARS_MAX = 128
_KEY_CHARS_MAX = 255
_FIELDS_MAX = 64


class MethodNotAllowed(UsageError):
    """The method is not one of `METHODS`."""


@dataclass(slots=True)
class Request:
    """One HTTP request; header names in lower case, the path still percent-encoded."""

    method: str
    raw_path: str
    query: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""


@dataclass(slots=True)
class Response:
    """One HTTP response; `position` is the log position of the write, 0 for a read."""

    status: int
    body: bytes = b""
    headers: tuple[tuple[str, str], ...] = ()
    position: int = 0


class Call:
    """A parsed and checked request to a tree; the class holds the defaults, as most use them.

    Args:
        method: one of `METHODS`.
        keys: the path.
    """

    # Class attributes as defaults: most requests set none of them, and so cost no assignments.
    namespace: str | None = None
    query: Query | None = None
    pretty: bool = False
    silent: bool = False
    shallow: bool = False
    export: bool = False
    stream: bool = False
    watch: bool = False
    wants_etag: bool = False
    if_match: str | None = None
    if_none_match: str | None = None
    callback: str | None = None
    download: str | None = None
    read_seconds_max: float | None = None
    write_seconds_max: float | None = None
    last_seen: ResumePoint | None = None
    retry_key: str | None = None
    ack: str | None = None
    position_min: int | None = None
    _new_key: str | None = None

    def __init__(self, method: str, keys: Path) -> None:
        self.method = method
        self.keys = keys
        self.writes = method not in ("GET", "HEAD")

    @property
    def path(self) -> str:
        """The path as text."""
        return format_path(self.keys)

    def new_key(self, store: ElkynStore) -> str:
        """Return the key of the child that a POST creates; the same on each call."""
        # Kept, because the write is made before its answer names the key.
        if self._new_key is None:
            self._new_key = store.admin.new_push_id()
        return self._new_key


def parse_query(raw: bytes) -> dict[str, str]:
    """Return the parameters of a query string; of a repeated parameter the last one.

    Raises:
        UsageError: there are more than 64.
    """
    if not raw:
        return {}
    fields = raw.decode("latin-1").split("&")
    if len(fields) > _FIELDS_MAX:
        raise UsageError(f"a query string holds at most {_FIELDS_MAX} parameters")
    found: dict[str, str] = {}
    for part in fields:
        name, _equals, value = part.partition("=")
        # Most parameters need no decoding.
        if "%" in part or "+" in part:
            name, value = unquote_plus(name), unquote_plus(value)
        if name:
            found[name] = value
    return found


def is_reserved(raw_path: str) -> bool:
    """Whether a path without `.json` belongs to the server and not to the tree."""
    # `/auth.json` is data; `/auth` without `.json` is an endpoint.
    if raw_path.endswith(".json") and not raw_path.startswith("/."):
        return False
    first = raw_path[1:].partition("/")[0]
    if first.startswith("."):
        return raw_path not in ("/.json", "/.watch") and not raw_path.startswith("/.priority")
    return first in RESERVED


def parse_call(request: Request) -> Call:
    """Parse method, path, parameters and headers of a request.

    Raises:
        NotFound: the path belongs to the server and not to the tree.
        BadPath: a key breaks a limit.
        UsageError: a parameter or header is not valid for the request.
    """
    keys, watch = parse_tree_path(request.raw_path)
    method = request.method.upper()
    call = Call(_overridden_method(request) if method == "POST" else method, keys)
    if call.method not in METHODS:
        raise MethodNotAllowed(f"Method {call.method[:20]!r} is not allowed.")
    if not _CALL_HEADERS.isdisjoint(request.headers):
        _read_headers(call, request.headers)
        _check_headers(call)
    if request.query:
        _read_parameters(call, request.query)
        _check_parameters(call)
    if watch:
        if call.method != "GET":
            raise MethodNotAllowed("A .watch path allows GET only.")
        call.stream = call.watch = True
    elif call.method == "GET" and "text/event-stream" in request.headers.get("accept", ""):
        call.stream = True
    return call


def _overridden_method(request: Request) -> str:
    """Return the method that a POST overrides itself with, by header or parameter."""
    other = request.headers.get("x-http-method-override")
    return (other or request.query.get("x-http-method-override") or "POST").upper()


def _read_headers(call: Call, headers: Mapping[str, str]) -> None:
    get = headers.get
    call.wants_etag = get("x-firebase-etag", "").lower() == "true"
    call.if_match = _etag(get("if-match"))
    call.if_none_match = _etag(get("if-none-match"))
    call.last_seen = parse_id(get("last-event-id", ""))
    call.ack = get("x-elkyn-ack")
    wanted = get("x-elkyn-min-position")
    if wanted is not None:
        if not (wanted.isdecimal() and wanted.isascii() and len(wanted) <= 20):
            raise UsageError("X-Elkyn-Min-Position must be a number")
        call.position_min = int(wanted)
    call.retry_key = get("idempotency-key") or None
    if call.retry_key is not None and len(call.retry_key) > _KEY_CHARS_MAX:
        raise UsageError(f"an Idempotency-Key has at most {_KEY_CHARS_MAX} characters")


def _etag(value: str | None) -> str | None:
    # HTTP quotes entity tags and marks weak ones with `W/` (RFC 9110, section 8.8.3); Firebase's
    # are bare.
    return None if value is None else value.strip().removeprefix("W/").strip('"')


def _read_parameters(call: Call, query: Mapping[str, str]) -> None:
    get = query.get
    call.namespace = get("ns") or None
    shown = get("print")
    call.pretty, call.silent = shown == "pretty", shown == "silent"
    call.shallow = get("shallow") == "true"
    call.export = get("format") == "export"
    call.query = Query.of_rest(query)
    if call.shallow and call.query is not None:
        raise UsageError("Mixing 'shallow' and querying parameters is not supported")
    call.callback = _callback(get("callback"))
    call.download = get("download") or None
    if "timeout" in query:
        call.read_seconds_max = _seconds(query["timeout"])
    if "writeSizeLimit" in query:
        call.write_seconds_max = _write_seconds(query["writeSizeLimit"])


def _callback(name: str | None) -> str | None:
    if not name:
        return None
    if len(name) > _CALLBACK_CHARS_MAX or not _CALLBACK.match(name):
        raise UsageError("callback must be the name of a JavaScript function")
    return name


def _seconds(text: str) -> float:
    found = _DURATION.match(text)
    seconds = float(found[1]) * _UNIT_SECONDS[found[2]] if found else 0.0
    if not 0 < seconds <= _READ_SECONDS_MAX:
        raise UsageError("timeout must be a time such as 500ms, 3s or 15min (at most 15min)")
    return seconds


def _write_seconds(name: str) -> float | None:
    if name not in _WRITE_SECONDS:
        raise UsageError(f"writeSizeLimit must be one of: {', '.join(_WRITE_SECONDS)}")
    return _WRITE_SECONDS[name]


def parse_tree_path(raw_path: str) -> tuple[Path, bool]:
    """Return the keys of a path, and whether it ends in `/.watch`."""
    if is_reserved(raw_path):
        raise NotFound("page", raw_path)
    plain = raw_path.removesuffix(".json")
    watch = plain == raw_path and raw_path.endswith("/.watch")
    if watch:
        plain = raw_path.removesuffix(".watch")
    if "%" in plain:
        plain = "/".join(_unquote(raw_path, part) for part in plain.split("/") if part)
    return parse_path(plain), watch


def _unquote(raw_path: str, segment: str) -> str:
    try:
        key = unquote_to_bytes(segment).decode()
    except UnicodeDecodeError:
        raise BadPath(raw_path, f"{segment!r} is not UTF-8") from None
    # An encoded slash: as part of a key it could not be named by any other client.
    if "/" in key:
        raise BadPath(raw_path, f"key {key[:80]!r} contains '/'")
    return key


def _check_headers(call: Call) -> None:
    if call.if_match is not None and call.method in ("PATCH", "POST"):
        raise UsageError(f"if-match is not supported for {call.method} requests")


def _check_parameters(call: Call) -> None:
    if call.query is not None and call.writes:
        raise UsageError("Query parameters are only for reading.")
    if call.callback is not None and call.writes:
        raise UsageError("callback is only for reading.")
