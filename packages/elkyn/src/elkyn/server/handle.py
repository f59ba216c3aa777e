"""The pure core: what a request reads or writes, and what it is answered.

`handle` does it all against one store. The ASGI app takes the same steps apart (`read`, `to_write`,
`answer_write`), so that it can commit the writes of many requests together.
"""

from __future__ import annotations

import base64
import hashlib
import json
from functools import partial
from typing import Any

from elkyn._lmdb.rows import pack
from elkyn.errors import BadPath, BadValue, PreconditionFailed
from elkyn.server.request import METHODS, Call, MethodNotAllowed, Request, Response, parse_call
from elkyn.store import ElkynStore
from elkyn.txn import View
from elkyn.values import Stored, present
from elkyn.writer import Write, patch_write, put_write
from sennit_core.errors import (
    Busy,
    Closed,
    Denied,
    NotFound,
    SennitError,
    StorageFull,
    TooLarge,
    Unavailable,
    UsageError,
)
from sennit_core.logs import get_logger

__all__ = ["answer_write", "dump", "error_response", "etag_of", "handle", "read", "to_write"]

_JSON = ("content-type", "application/json; charset=utf-8")
_NOT_JSON = "Invalid data; couldn't parse JSON object, array, or value."
_NULL_ETAG = "null_etag"

_STATUS: tuple[tuple[type[SennitError], int], ...] = (
    (Denied, 401),
    (PreconditionFailed, 412),
    (NotFound, 404),
    (TooLarge, 413),
    (StorageFull, 507),
    (Busy, 429),
    (Closed, 503),
    (Unavailable, 503),
    (MethodNotAllowed, 405),
    (UsageError, 400),
)

_log = get_logger(__name__)


def handle(request: Request, store: ElkynStore) -> Response:
    """Answer one request from one store, committing what it writes; never raises for bad input."""
    try:
        call = parse_call(request)
        if not call.writes:
            with store.snapshot() as view:
                return read(call, view)
        write = to_write(call, request.body, store)
        store.apply([write])
        return answer_write(call, write)
    except SennitError as error:
        return error_response(error)


def read(call: Call, view: View) -> Response:
    """Answer a GET or HEAD from a consistent state."""
    if call.shallow:
        keys = view.keys(call.keys)
        value = view.get(call.keys) if keys is None else dict.fromkeys(keys, True)
        return _respond(call, value)
    value = view.get(call.keys)
    etag = None
    if call.wants_etag or call.if_none_match is not None or call.if_match is not None:
        etag = etag_of(value)
        if etag == call.if_none_match:
            return Response(304, headers=(("etag", etag),))
    return _respond(call, present(value), etag)


def to_write(call: Call, body: bytes, store: ElkynStore) -> Write:
    """Turn a PUT, PATCH, POST or DELETE into the write that does it.

    Raises:
        UsageError: the body is not JSON, or not what the method takes.
        BadValue, BadPath: the tree cannot hold it.
    """
    if call.method == "DELETE":
        write = put_write(call.keys, None)
    elif call.method == "PATCH":
        write = patch_write(call.keys, _object(body))
    elif call.method == "POST":
        write = put_write((*call.keys, store.new_push_id()), _parse(body))
    else:
        write = put_write(call.keys, _parse(body))
    if call.if_match is not None:
        write.check = partial(_check_match, call, call.if_match)
    return write


def _check_match(call: Call, wanted: str, view: View) -> None:
    value = view.get(call.keys)
    etag = etag_of(value)
    if etag != wanted:
        raise PreconditionFailed(call.path, present(value), etag)


def answer_write(call: Call, write: Write) -> Response:
    """Answer a write that was committed; raises what made it fail."""
    value = write.shown()
    if call.method == "POST":
        return _respond(call, {"name": write.base[-1]})
    etag = None
    if call.method != "PATCH" and (call.wants_etag or call.if_match is not None):
        etag = etag_of(write.values[0][1])
    return _respond(call, value, etag)


def etag_of(value: Stored) -> str:
    """Return the tag of a stored form: a hash of the value and nothing else."""
    if value is None:
        return _NULL_ETAG
    return base64.b64encode(hashlib.sha256(pack(value)).digest()[:20]).decode()


def error_response(error: SennitError) -> Response:
    """Answer an error in Firebase's words where clients know them."""
    status = next((code for kind, code in _STATUS if isinstance(error, kind)), 500)
    if isinstance(error, PreconditionFailed):
        return Response(412, dump(error.value), (_JSON, ("etag", error.etag)))
    if isinstance(error, Denied):
        text = error.message or "Permission denied"
    elif isinstance(error, BadPath):
        text = f"Invalid path: {error}"
    elif isinstance(error, BadValue):
        text = f"Invalid data; {error}"
    else:
        text = str(error)
    if status == 500:
        _log.error("a request failed", exc_info=error)
        text = "Internal server error."
    headers: tuple[tuple[str, str], ...] = (_JSON,)
    if status == 429:
        headers = (_JSON, ("retry-after", "1"))
    elif status == 405:
        headers = (_JSON, ("allow", ", ".join(METHODS)))
    return Response(status, dump({"error": text}), headers)


def dump(value: Any, *, pretty: bool = False) -> bytes:
    """Return JSON in UTF-8."""
    if pretty:
        return json.dumps(value, ensure_ascii=False, indent=2).encode()
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def _respond(call: Call, value: Any, etag: str | None = None) -> Response:
    headers: tuple[tuple[str, str], ...] = (_JSON, ("cache-control", "no-cache"))
    if etag is not None:
        headers = (*headers, ("etag", etag))
    if call.silent:
        return Response(204, headers=headers[1:])
    return Response(200, dump(value, pretty=call.pretty), headers)


def _refuse_constant(_name: str) -> Any:
    raise ValueError


def _parse(body: bytes) -> Any:
    try:
        return json.loads(body, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        raise UsageError(_NOT_JSON) from None


def _object(body: bytes) -> dict[str, Any]:
    value = _parse(body)
    if not isinstance(value, dict):
        raise UsageError(
            "Invalid data; couldn't parse JSON object. "
            "Are you sending a JSON object with valid key names?"
        )
    return value
