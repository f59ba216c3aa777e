"""What replicas and their operators ask of a server, all of it for admins: `/.replica/…`."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import ormsgpack

from elkyn.auth.errors import BadToken
from elkyn.errors import NotLeader
from elkyn.identity import ADMIN, NOBODY
from elkyn.paths import format_path, parse_path
from elkyn.server.answers import error_text
from elkyn.server.codec import dump
from elkyn.server.following import members_of, read_identity
from elkyn.server.grant import Grant
from elkyn.server.request import MethodNotAllowed, Response
from elkyn.server.session import Commit
from elkyn.server.socket_store import SocketStore, status_of
from elkyn.server.system import SystemCall
from elkyn.writer import Write
from sennit_core.errors import NotFound, SennitError, UsageError

if TYPE_CHECKING:
    from elkyn.server.app import ElkynApp

__all__ = ["accounts", "identify", "promote", "status", "write"]

_JSON = ("content-type", "application/json; charset=utf-8")
_PACKED = ("content-type", "application/vnd.msgpack")


async def promote(call: SystemCall) -> Response:
    """Make this server the leader; answers the new terms."""
    _post(call)
    await call.admin("/.replica/promote", write=True)
    terms = await call.app.on_thread(_promote, call.app)
    call.app.replication.end_sessions()
    return Response(200, dump({"status": "ok", "terms": terms}), (_JSON,))


def _promote(app: ElkynApp) -> dict[str, int]:
    if app.upstream is not None and app.upstream.active:
        return app.upstream.promote()
    stores = {name: app.open_store(name) for name in app.namespaces()}
    fenced = {name: store for name, store in stores.items() if store.terms.stale}
    if not fenced:
        raise UsageError("this server leads already")
    return {
        name: store.change_terms(lambda known, at: known.promoted(at)).term
        for name, store in fenced.items()
    }


async def status(call: SystemCall) -> Response:
    """Answer whom this server follows, and how far each namespace is."""
    await call.admin("/.replica/status", write=False)
    app = call.app
    shown: dict[str, Any] = {"leader": None, "following": False, "namespaces": {}}
    if app.upstream is not None:
        shown = app.upstream.status()
    for name in await app.on_thread(app.namespaces):
        store = await app.on_thread(app.open_store, name)
        known = shown["namespaces"].setdefault(name, {"position": store.position})
        known |= {"term": store.terms.term, "readOnly": store.terms.stale}
        known["followers"] = app.replication.acks_of(store).positions()
    return Response(200, dump(shown), (_JSON,))


async def accounts(call: SystemCall) -> Response:
    """Answer what a follower needs to judge ID tokens; 304 when it knows."""
    await call.admin("/.replica/accounts", write=True)
    authenticator = getattr(call.app.door, "authenticator", None)
    if authenticator is None:
        raise NotFound("page", call.request.raw_path, hint="the accounts are the embedder's")
    if call.app.upstream is not None and call.app.upstream.active:
        raise NotLeader(0, message="this server follows another one, which has the accounts")
    known = call.request.query.get("tag", "")
    told = await call.app.on_thread(authenticator.state_for_followers, known)
    return Response(304) if told is None else Response(200, told, (_PACKED,))


async def identify(call: SystemCall) -> Response:
    """Answer whose a credential is that a follower was shown; 404 when nobody's."""
    _post(call)
    await call.admin("/.replica/identify", write=True)
    headers = [(b"authorization", b"Bearer " + call.request.body)]
    door = call.app.door
    try:
        caller = await door.caller({**call.scope, "headers": headers}, {})
    except BadToken:
        raise NotFound("credential", "that was shown") from None
    identity = caller.identity
    if identity is None or identity == NOBODY:
        raise NotFound("credential", "that was shown")
    told = {**members_of(identity), "admin": identity.admin}
    told["masters"] = getattr(getattr(door, "authenticator", None), "masters_tag", "")
    return Response(200, ormsgpack.packb(told, default=list), (_PACKED,))


async def write(call: SystemCall) -> Response:
    """Make the writes of a follower's sockets, each as who asked the follower for it."""
    _post(call)
    await call.admin("/.replica/write", write=True)
    writes = await asyncio.gather(*[_commit(call, row) for row in _rows(call.request.body)])
    found = [[made.position, _shown(made)] for made in writes]
    return Response(200, ormsgpack.packb(found), (_PACKED,))


async def _commit(call: SystemCall, row: Any) -> Write:
    store, app = call.store(), call.app
    made = Write("put", (), [])
    try:
        kind, path, data, expected_hash, who = row
        keys = parse_path(format_path(tuple(path)))
        grant = Grant(
            ADMIN if who is None else read_identity(who),
            store,
            getattr(app.door, "open_without_rules", False),
        )
        step = Commit(0, "put" if kind == "put" else "patch", keys, data, expected_hash)
        data_of = SocketStore(store, call.namespace, app.door, call.scope)
        made = data_of.to_write(step, grant)
        await app.committer.commit(store, made)
        if made.error is None:
            await app.replication.replicated(store, made.position, app.settings.ack)
    except SennitError as error:
        made.error = error
    return made


def _shown(made: Write) -> list[str] | None:
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
        raise UsageError("a follower's writes are an array of arrays of five")
    return rows


def _is_row(row: Any) -> bool:
    if not isinstance(row, list) or len(row) != 5:
        return False
    kind, path, _data, expected_hash, who = row
    keys = isinstance(path, list) and all(isinstance(key, str) for key in path)
    known = expected_hash is None or isinstance(expected_hash, str)
    return kind in ("put", "patch") and keys and known and (who is None or isinstance(who, dict))


def _post(call: SystemCall) -> None:
    if call.request.method.upper() != "POST":
        raise MethodNotAllowed("This is only for POST.")
