"""Endpoints for replicas and their operators, for admins only: `/.replica/…`."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import ormsgpack

from elkyn.auth.errors import BadToken
from elkyn.auth.principal import ADMIN, UNAUTHENTICATED
from elkyn.errors import NotLeader
from elkyn.replication.leader_proxy import decode_principal, encode_principal
from elkyn.server.admin.system import SystemCall
from elkyn.server.bodies.codec import dump
from elkyn.server.realtime.session import Commit
from elkyn.server.realtime.socket_store import SocketStore, status_of
from elkyn.server.request import MethodNotAllowed, Response
from elkyn.server.responses import error_text
from elkyn.storage.writer import Write
from elkyn.tree.paths import format_path, parse_path
from sennit_core.errors import NotFound, SennitError, UsageError

if TYPE_CHECKING:
    from elkyn.server.state import ServerState

__all__ = ["accounts", "identify", "promote", "status", "write"]

_JSON = ("content-type", "application/json; charset=utf-8")
_PACKED = ("content-type", "application/vnd.msgpack")


async def promote(call: SystemCall) -> Response:
    """Make this server the leader; answer the new terms."""
    _post(call)
    await call.admin("/.replica/promote", write=True)
    terms = await call.app.on_thread(_promote, call.app)
    # Followers of the old term reconnect, and their next hello is compared with the new history.
    call.app.replication.end_sessions()
    return Response(200, dump({"status": "ok", "terms": terms}), (_JSON,))


def _promote(app: ServerState) -> dict[str, int]:
    if app.leader_proxy is not None and app.leader_proxy.active:
        return app.leader_proxy.promote()
    stores = {name: app.open_store(name) for name in app.namespaces()}
    # A server without `--follow` that has heard of a later leader: it may lead again after a
    # promotion.
    fenced = {name: store for name, store in stores.items() if store.admin.terms.stale}
    if not fenced:
        raise UsageError("this server is the leader already")
    return {
        name: store.admin.change_terms(lambda known, at: known.promoted(at)).term
        for name, store in fenced.items()
    }


async def status(call: SystemCall) -> Response:
    """Answer which leader this server follows, and the position of each namespace."""
    await call.admin("/.replica/status", write=False)
    app = call.app
    shown: dict[str, Any] = {"leader": None, "following": False, "namespaces": {}}
    if app.leader_proxy is not None:
        shown = app.leader_proxy.status()
    for name in await app.on_thread(app.namespaces):
        store = await app.on_thread(app.open_store, name)
        known = shown["namespaces"].setdefault(name, {"position": store.position})
        known |= {"term": store.admin.terms.term, "readOnly": store.admin.terms.stale}
        known["followers"] = app.replication.acks_of(store).positions()
    return Response(200, dump(shown), (_JSON,))


async def accounts(call: SystemCall) -> Response:
    """Answer the keys with which a follower checks ID tokens; 304 when it has them already."""
    # For admins only: the answer names users and revoked tokens.
    await call.admin("/.replica/accounts", write=True)
    authenticator = getattr(call.app.auth_backend, "authenticator", None)
    if authenticator is None:
        raise NotFound("page", call.request.raw_path, hint="this server has no accounts of its own")
    if call.app.leader_proxy is not None and call.app.leader_proxy.active:
        raise NotLeader(0, message="this server follows another one, which has the accounts")
    known = call.request.query.get("tag", "")
    packed = await call.app.on_thread(authenticator.state_for_followers, known)
    return Response(304) if packed is None else Response(200, packed, (_PACKED,))


async def identify(call: SystemCall) -> Response:
    """Answer the principal of a credential that a follower received; 404 for an invalid one."""
    _post(call)
    await call.admin("/.replica/identify", write=True)
    headers = [(b"authorization", b"Bearer " + call.request.body)]
    auth_backend = call.app.auth_backend
    try:
        client_auth = await auth_backend.authenticate({**call.scope, "headers": headers}, {})
    except BadToken:
        raise NotFound("credential", "that was sent") from None
    principal = client_auth.principal
    if principal is None or principal == UNAUTHENTICATED:
        raise NotFound("credential", "that was sent")
    fields = {**encode_principal(principal), "admin": principal.admin}
    fields["admin_secrets"] = getattr(
        getattr(auth_backend, "authenticator", None), "admin_secrets_tag", ""
    )
    return Response(200, ormsgpack.packb(fields, default=list), (_PACKED,))


async def write(call: SystemCall) -> Response:
    """Commit the writes of a follower's sockets, each as the client that sent it to the follower."""
    _post(call)
    await call.admin("/.replica/write", write=True)
    # Each is queued with the committer before it first waits, so the socket's order is kept, and
    # all of them usually share a commit.
    writes = await asyncio.gather(*[_commit(call, row) for row in _rows(call.request.body)])
    found = [[made.position, _error_of(made)] for made in writes]
    return Response(200, ormsgpack.packb(found), (_PACKED,))


async def _commit(call: SystemCall, row: Any) -> Write:
    store, app = call.store(), call.app
    made = Write("put", (), [])
    try:
        kind, path, data, expected_hash, sender = row
        keys = parse_path(format_path(tuple(path)))
        authorizer = store.admin.authorizer(
            # The follower has authenticated the client; the rules of this server decide what it may
            # write.
            ADMIN if sender is None else decode_principal(sender),
            open_without_rules=getattr(app.auth_backend, "open_without_rules", False),
        )
        step = Commit(0, "put" if kind == "put" else "patch", keys, data, expected_hash)
        data_of = SocketStore(store, call.namespace, app.auth_backend, call.scope)
        made = data_of.to_write(step, authorizer)
        await app.committer.commit(store, made)
        if made.error is None:
            await app.replication.replicated(store, made.position, app.settings.ack)
    except SennitError as error:
        made.error = error
    return made


def _error_of(made: Write) -> list[str] | None:
    error = made.error
    if error is None:
        return None
    if isinstance(error, SennitError):
        return [status_of(error), error_text(error)]
    return ["internal_error", "Internal server error."]


def _rows(body: bytes) -> list[Any]:
    try:
        rows = ormsgpack.unpackb(body)
    except ValueError:
        rows = None
    if not isinstance(rows, list) or not all(map(_is_row, rows)):
        raise UsageError("a follower's writes must be an array of arrays of five items")
    return rows


def _is_row(row: Any) -> bool:
    if not isinstance(row, list) or len(row) != 5:
        return False
    kind, path, _data, expected_hash, sender = row
    keys = isinstance(path, list) and all(isinstance(key, str) for key in path)
    known = expected_hash is None or isinstance(expected_hash, str)
    return (
        kind in ("put", "patch") and keys and known and (sender is None or isinstance(sender, dict))
    )


def _post(call: SystemCall) -> None:
    if call.request.method.upper() != "POST":
        raise MethodNotAllowed("Only POST is allowed here.")
