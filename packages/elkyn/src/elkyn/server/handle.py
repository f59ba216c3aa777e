"""The pure core: what a request reads or writes, and what it is answered.

`handle` does it all against one store. The ASGI app takes the same steps apart (`read`, `to_write`,
`answer_write`), so that it can commit the writes of many requests together.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from elkyn.errors import PreconditionFailed
from elkyn.paths import parse_path, sorted_map
from elkyn.query import require_index, run_query
from elkyn.server.answers import error_response, respond
from elkyn.server.codec import load
from elkyn.server.grant import FULL, Grant
from elkyn.server.hashes import etag_of
from elkyn.server.request import Call, Request, Response, parse_call
from elkyn.server.retries import keep_receipt, settle
from elkyn.store import ElkynStore
from elkyn.txn import View
from elkyn.values import Stored, present
from elkyn.writer import Write, patch_write, put_write
from sennit_core.errors import SennitError, UsageError

__all__ = ["answer_write", "check_index", "handle", "read", "to_write", "value_at"]

_NOT_JSON = "Invalid data; couldn't parse JSON object, array, or value."
_NOT_OBJECT = (
    "Invalid data; couldn't parse JSON object. Are you sending a JSON object with valid key names?"
)
_WRITE_BYTES_PER_SECOND = 8 * 1024 * 1024
"""What a write of one second holds at least, for the estimate behind `writeSizeLimit`."""


def handle(request: Request, store: ElkynStore, grant: Grant = FULL) -> Response:
    """Answer one request from one store, committing what it writes; never raises for bad input."""
    try:
        call = parse_call(request)
        if not call.writes:
            with store.snapshot() as view:
                return read(call, view, grant)
        write = to_write(call, request.body, store, grant)
        store.apply([write])
        return answer_write(call, write)
    except SennitError as error:
        return error_response(error)


def read(call: Call, view: View, grant: Grant = FULL) -> Response:
    """Answer a GET or HEAD from a consistent state.

    Raises:
        Denied: the rules refuse it.
        IndexMissing: the rules declare no index for the query.
    """
    grant.check_read(view, call.keys, call.query)
    if call.shallow:
        keys = view.keys(call.keys)
        value = present(view.get(call.keys)) if keys is None else dict.fromkeys(keys, True)
        return respond(call, value)
    value = view.get(call.keys) if call.query is None else value_at(call, view, grant)
    etag = None
    if call.wants_etag or call.if_none_match is not None or call.if_match is not None:
        etag = etag_of(value)
        if etag == call.if_none_match:
            return Response(304, headers=(("etag", etag),))
    return respond(call, present(value, call.export), etag)


def value_at(call: Call, view: View, grant: Grant) -> Stored:
    """Return the stored form of what a GET asks for, by its query when it has one."""
    if call.query is None:
        return view.get(call.keys)
    check_index(call, grant)
    return sorted_map(run_query(call.query, view, call.keys)) or None


def check_index(call: Call, grant: Grant) -> None:
    """Raise `IndexMissing` when the rules declare no index for the query of `call`."""
    names = None if call.query is None else grant.index_on(call.keys)
    if call.query is not None and names is not None:
        require_index(call.query, call.keys, names)


def to_write(call: Call, body: bytes, store: ElkynStore, grant: Grant = FULL) -> Write:
    """Turn a PUT, PATCH, POST or DELETE into the write that does it.

    Raises:
        UsageError: the body is not JSON, or not what the method takes.
        BadValue, BadPath: the tree cannot hold it.
    """
    limit = call.write_seconds_max
    if limit is not None and len(body) > limit * _WRITE_BYTES_PER_SECOND:
        raise UsageError(f"The write would take longer than {limit:g} s, its writeSizeLimit.")
    if call.method == "DELETE":
        write = put_write(call.keys, None)
    elif call.method == "PATCH":
        write = patch_write(call.keys, _object(body))
    elif call.method == "POST":
        write = put_write(parse_path(f"{call.path}/{store.new_push_id()}"), _parse(body))
    else:
        write = put_write(call.keys, _parse(body))
    if call.if_match is not None:
        write.check = partial(_check_match, call, call.if_match)
    write.guard = grant.guard()
    if call.retry_key is not None:
        keep_receipt(write, call, body, grant.identity)
    return write


def _check_match(call: Call, wanted: str, view: View) -> None:
    value = view.get(call.keys)
    etag = etag_of(value)
    if etag != wanted:
        raise PreconditionFailed(call.path, present(value), etag)


def answer_write(call: Call, write: Write) -> Response:
    """Answer a write that was committed; raises what made it fail."""
    if write.error is not None:
        settle(write)
    value = write.shown()
    if call.method == "POST":
        return respond(call, {"name": write.base[-1]})
    etag = None
    if call.method != "PATCH" and (call.wants_etag or call.if_match is not None):
        etag = etag_of(write.values[0][1])
    return respond(call, value, etag)


def _parse(body: bytes) -> Any:
    try:
        return load(body)
    except ValueError:
        raise UsageError(_NOT_JSON) from None


def _object(body: bytes) -> dict[str, Any]:
    value = _parse(body)
    if not isinstance(value, dict):
        raise UsageError(_NOT_OBJECT)
    return value
