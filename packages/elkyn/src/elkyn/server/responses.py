"""Values and errors as responses, with Firebase's texts where its clients expect them."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from elkyn.auth.errors import BadToken
from elkyn.errors import (
    BadPath,
    BadRules,
    BadValue,
    NotReplicated,
    PreconditionFailed,
    ReplicaLag,
    TooManyNodes,
    UnknownHost,
    UnknownNamespace,
)
from elkyn.server.bodies.codec import dump
from elkyn.server.request import METHODS, Call, MethodNotAllowed, Response
from sennit_core.errors import (
    Busy,
    Closed,
    Conflict,
    DeadlineExceeded,
    Denied,
    InternalError,
    NotFound,
    SennitError,
    StorageFull,
    TooLarge,
    Unavailable,
    UsageError,
)
from sennit_core.logs import get_logger

__all__ = ["error_response", "error_text", "respond", "respond_json"]

_JSON = ("content-type", "application/json; charset=utf-8")
_SCRIPT = ("content-type", "application/javascript; charset=utf-8")
_FRESH = (_JSON, ("cache-control", "no-cache"))
_NOSNIFF = ("x-content-type-options", "nosniff")

# The first entry whose class matches counts, so a subclass comes before its base class.
_STATUS: tuple[tuple[type[SennitError], int], ...] = (
    (UnknownHost, 403),
    (Denied, 401),
    (PreconditionFailed, 412),
    (NotFound, 404),
    (TooLarge, 413),
    (TooManyNodes, 413),
    (StorageFull, 507),
    (Busy, 429),
    (Closed, 503),
    (Unavailable, 503),
    (MethodNotAllowed, 405),
    (NotReplicated, 504),
    (ReplicaLag, 504),
    (DeadlineExceeded, 400),
    (UsageError, 400),
    (Conflict, 409),
)

_log = get_logger(__name__)


def respond(call: Call, value: Any, etag: str | None = None) -> Response:
    """Answer a call with a value in its presented (JSON) form."""
    return respond_json(call, b"" if call.silent else dump(value, pretty=call.pretty), etag)


def respond_json(call: Call, body: bytes, etag: str | None = None) -> Response:
    """Answer a call with JSON."""
    headers: tuple[tuple[str, str], ...] = _FRESH
    if etag is not None:
        headers = (*headers, ("etag", etag))
    if call.silent:
        return Response(204, headers=headers[1:])
    if call.download is not None:
        name = f"attachment; filename*=UTF-8''{quote(call.download[:200], safe='')}"
        # `nosniff`: a browser must not show a stored text as a page of this origin.
        headers = (*headers, ("content-disposition", name), _NOSNIFF)
    if call.callback is not None:
        script = call.callback.encode() + b"(" + body + b");"
        return Response(200, script, (_SCRIPT, _NOSNIFF, *headers[1:]))
    return Response(200, body, headers)


def error_text(error: SennitError) -> str:
    """Return the error message that Firebase's clients expect."""
    if isinstance(error, BadToken | UnknownHost):
        return str(error)
    if isinstance(error, UnknownNamespace) and error.hint:
        return f"{error}; {error.hint}"
    # Firebase's own text.
    if isinstance(error, Denied):
        return error.message or "Permission denied"
    if isinstance(error, BadPath):
        return f"Invalid path: {error}"
    if isinstance(error, BadValue):
        return f"Invalid data; {error}"
    return str(error)


def error_response(error: Exception) -> Response:
    """Answer an error; an unexpected one is logged, and its details are hidden from the client."""
    if not isinstance(error, SennitError):
        error = _unexpected(error)
    status = next((code for kind, code in _STATUS if isinstance(error, kind)), 500)
    if isinstance(error, PreconditionFailed):
        return Response(412, dump(error.value), (_JSON, ("etag", error.etag)))
    text = error_text(error)
    # Details are in the log only.
    if status == 500:
        _log.error("a request failed", exc_info=error)
        text = "Internal server error."
    headers: tuple[tuple[str, str], ...] = (_JSON,)
    if status in (429, 503):
        headers = (_JSON, ("retry-after", "1"))
    elif status == 405:
        headers = (_JSON, ("allow", ", ".join(METHODS)))
    body: dict[str, Any] = {"error": text}
    if isinstance(error, BadRules):
        body["problems"] = [problem._asdict() for problem in error.problems]
    position = error.position if isinstance(error, NotReplicated) else 0
    return Response(status, dump(body), headers, position)


def _unexpected(error: Exception) -> SennitError:
    found = InternalError(f"{type(error).__name__}: {error}")
    found.__cause__ = error
    return found
