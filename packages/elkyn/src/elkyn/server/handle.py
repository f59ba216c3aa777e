"""The pure core: execute a request against a store and build the response.

`handle` does all steps against one store. The ASGI app calls the steps separately (`read`,
`to_write`, `answer_write`), so that it can commit the writes of many requests together.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from elkyn.auth.authorizer import UNRESTRICTED, Authorizer
from elkyn.errors import PreconditionFailed
from elkyn.server.bodies.codec import dump, load
from elkyn.server.bodies.large_bodies import put_large, update_large
from elkyn.server.bodies.large_responses import dump_large
from elkyn.server.bodies.memory import INLINE_BYTES
from elkyn.server.hashes import etag_of
from elkyn.server.idempotency import keep_receipt, replay_receipt
from elkyn.server.limits import Limits
from elkyn.server.request import Call, Request, Response, parse_call
from elkyn.server.responses import error_response, respond, respond_json
from elkyn.storage.transactions import ReadTransaction
from elkyn.storage.writer import Write, patch_write, put_write
from elkyn.store import ElkynStore
from elkyn.tree.large_map import LargeMap
from elkyn.tree.paths import Path, parse_path, sorted_map
from elkyn.tree.query import require_index, run_query
from elkyn.tree.values import Stored, plain, present
from sennit_core.errors import SennitError, UsageError

__all__ = ["answer_write", "check_index", "handle", "read", "to_write", "value_at"]

_NOT_JSON = "Invalid data; couldn't parse JSON object, array, or value."
_NOT_OBJECT = (
    "Invalid data; couldn't parse JSON object. Are you sending a JSON object with valid key names?"
)
# Firebase's `writeSizeLimit` names a target time (1, 10, 30 or 60 s); this converts it to bytes.
_WRITE_BYTES_PER_SECOND = 8 * 1024 * 1024
"""A low estimate of write throughput, for the limit `writeSizeLimit`."""


def handle(request: Request, store: ElkynStore, authorizer: Authorizer = UNRESTRICTED) -> Response:
    """Answer one request from one store and commit its write; never raises for bad input."""
    try:
        call = parse_call(request)
        if not call.writes:
            with store.admin.snapshot() as view:
                return read(call, view, authorizer)
        write = to_write(call, request.body, store, authorizer)
        store.admin.apply([write])
        return answer_write(call, write)
    except SennitError as error:
        return error_response(error)


def read(call: Call, view: ReadTransaction, authorizer: Authorizer = UNRESTRICTED) -> Response:
    """Answer a GET or HEAD from a consistent state.

    Raises:
        Denied: the rules refuse it.
        IndexMissing: the rules declare no index for the query.
    """
    authorizer.check_read(view, call.keys, call.query)
    if call.shallow:
        keys = view.keys(call.keys)
        value = present(view.get(call.keys)) if keys is None else dict.fromkeys(keys, True)
        return respond(call, value)
    value = view.get(call.keys) if call.query is None else value_at(call, view, authorizer)
    etag = None
    if call.wants_etag or call.if_none_match is not None or call.if_match is not None:
        etag = etag_of(value)
        if etag == call.if_none_match:
            return Response(304, headers=(("etag", etag),))
    return respond(call, present(value, call.export), etag)


def value_at(call: Call, view: ReadTransaction, authorizer: Authorizer) -> Stored:
    """Return the stored form of the value that a GET reads, selected by its query if it has one."""
    if call.query is None:
        return view.get(call.keys)
    check_index(call, authorizer)
    return sorted_map(run_query(call.query, view, call.keys)) or None


def check_index(call: Call, authorizer: Authorizer) -> None:
    """Raise `IndexMissing` when the rules declare no index for the query of `call`."""
    names = None if call.query is None else authorizer.index_on(call.keys)
    if call.query is not None and names is not None:
        require_index(call.query, call.keys, names)


def to_write(
    call: Call,
    body: bytes,
    store: ElkynStore,
    authorizer: Authorizer = UNRESTRICTED,
    nodes_max: int = Limits().body_nodes,
) -> Write:
    """Return the write for a PUT, PATCH, POST or DELETE.

    Args:
        call: the parsed request.
        body: JSON; a large one is parsed in pieces.
        store: the store to write to.
        authorizer: decides what the client may write.
        nodes_max: how many values a large body may hold.

    Raises:
        TooManyNodes: the body holds more.
        UsageError: the body is not JSON, or not of the type that the method needs.
        BadValue, BadPath: the tree cannot hold it.
    """
    limit = call.write_seconds_max
    if limit is not None and len(body) > limit * _WRITE_BYTES_PER_SECOND:
        raise UsageError(f"The write would need more than {limit:g} s, its writeSizeLimit.")
    if call.method == "DELETE":
        write = put_write(call.keys, None)
    elif call.method == "PATCH":
        write = _update(call.keys, body, nodes_max)
    elif call.method == "POST":
        write = _put(parse_path(f"{call.path}/{call.new_key(store)}"), body, nodes_max)
    else:
        write = _put(call.keys, body, nodes_max)
    if call.if_match is not None:
        write.check = partial(_check_match, call, call.if_match)
    # The rules are evaluated inside the transaction: `data` in a rule is the state that the write
    # changes.
    write.authorize = authorizer.write_check()
    # Last, because it wraps the check that was set before: a repeated write finds its receipt
    # before the ETag is compared, which its first execution has changed.
    if call.retry_key is not None:
        keep_receipt(write, call, body, authorizer.principal)
    return write


def _put(path: Path, body: bytes, nodes_max: int) -> Write:
    if len(body) <= INLINE_BYTES:
        return put_write(path, _parse(body))
    try:
        return put_large(path, body, nodes_max)
    except ValueError as error:
        raise _not_json(error, _NOT_JSON) from None


def _update(base: Path, body: bytes, nodes_max: int) -> Write:
    if len(body) <= INLINE_BYTES:
        return patch_write(base, _object(body))
    try:
        write = update_large(base, body, nodes_max)
    except ValueError as error:
        raise _not_json(error, _NOT_JSON) from None
    if write is None:
        raise UsageError(_NOT_OBJECT)
    return write


def _not_json(error: ValueError, text: str) -> Exception:
    """Return the error to raise: the tree's own errors are `ValueError`s too, and more precise."""
    return error if isinstance(error, SennitError) else UsageError(text)


def _check_match(call: Call, wanted: str, view: ReadTransaction) -> None:
    value = view.get(call.keys)
    etag = etag_of(value)
    if etag != wanted:
        raise PreconditionFailed(call.path, present(value), etag)


def answer_write(call: Call, write: Write) -> Response:
    """Answer a write after its commit; raises the write's error if it failed."""
    if write.error is not None:
        replay_receipt(write)
    if write.error is not None:
        raise write.error
    if call.method == "POST":
        return respond(call, {"name": write.base[-1]})
    etag = None
    if call.method != "PATCH" and (call.wants_etag or call.if_match is not None):
        etag = etag_of(plain(write.values[0][1]))
    if any(type(value) is LargeMap for _path, value in write.values):
        return _answer_large(call, write, etag)
    return respond(call, write.result(), etag)


def _answer_large(call: Call, write: Write, etag: str | None) -> Response:
    if call.silent:
        return respond(call, None, etag)
    if call.pretty:
        write.values = [(path, plain(value)) for path, value in write.values]
        return respond(call, write.result(), etag)
    if write.kind == "put":
        return respond_json(call, dump_large(write.values[0][1]), etag)
    members = [
        dump("/".join(path[len(write.base) :])) + b":" + dump_large(value)
        for path, value in write.values
    ]
    return respond_json(call, b"{" + b",".join(members) + b"}", etag)


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
