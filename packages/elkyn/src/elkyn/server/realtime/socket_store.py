"""Store operations of sockets: writes, reads and listens, checked against the rules."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from elkyn.auth.authorizer import Authorizer
from elkyn.errors import PreconditionFailed, TooManyNodes, UnknownNamespace
from elkyn.server.asgi import client_of
from elkyn.server.auth_backend import AuthBackend, ClientAuth
from elkyn.server.bodies.large_bodies import RawJson, put_large, update_large
from elkyn.server.hashes import hash_of
from elkyn.server.limits import Limits
from elkyn.server.realtime.feed import INLINE_ROWS, Opening
from elkyn.server.realtime.large_messages import Announced
from elkyn.server.realtime.messages import push_value
from elkyn.server.realtime.session import Attach, Commit, Fetch, Listen, OnDisconnect
from elkyn.server.resume import id_of, mark_of, parse_id, same_history, time_at, try_missed
from elkyn.storage.row_tree import ReadLimit
from elkyn.storage.transactions import ReadTransaction
from elkyn.storage.writer import Write, patch_write, put_write
from elkyn.store import ElkynStore
from elkyn.tree.events import Event
from elkyn.tree.paths import Path, format_path, sorted_map
from elkyn.tree.query import IndexMissing, Query, require_index, run_query
from elkyn.tree.values import present, resolve
from sennit_core.errors import Busy, Closed, Denied, SennitError, TooLarge, UsageError

if TYPE_CHECKING:
    from elkyn.rules.read_set import ReadSet

__all__ = ["SocketStore", "status_of"]


@dataclass(slots=True)
class SocketStore:
    """A namespace, as one connection uses it.

    Args:
        store: the store of the namespace.
        namespace: its name.
        auth_backend: records refusals.
        scope: the ASGI scope of the connection.
        nodes_max: how many values a large message may hold.
    """

    store: ElkynStore
    namespace: str
    auth_backend: AuthBackend
    scope: Mapping[str, Any]
    nodes_max: int = Limits().body_nodes

    def authorizer(self, client_auth: ClientAuth, path: Path, *, write: bool) -> Authorizer:
        """Return what authorizes the client at `path`."""
        return client_auth.authorizer(self.store, self.namespace, format_path(path), write)

    def record_refusal(self, client_auth: ClientAuth, step: Any) -> None:
        """Record that a request was refused."""
        path = step.listen.path if hasattr(step, "listen") else getattr(step, "path", ())
        write = isinstance(step, Commit | OnDisconnect)
        self.auth_backend.record_refusal(
            client_auth, client_of(self.scope), self.namespace, format_path(path), write=write
        )

    def to_write(self, step: Commit | OnDisconnect, authorizer: Authorizer) -> Write:
        """Return the write of a request.

        Raises:
            BadValue, BadPath, UsageError: the tree cannot hold it.
        """
        if type(step.data) is RawJson:
            write = _large_write(step.kind, step.path, step.data.text, self.nodes_max)
        else:
            make = put_write if step.kind == "put" else patch_write
            write = make(step.path, step.data)
        write.authorize = authorizer.write_check()
        # The SDKs' transactions: compare-and-set by the hash of the value, inside the write's
        # transaction.
        if isinstance(step, Commit) and step.expected_hash is not None:
            write.check = partial(_check_hash, step.path, step.expected_hash)
        return write

    def check_could_write(self, authorizer: Authorizer, step: Commit | Announced) -> None:
        """Refuse a write whose data are not parsed yet when no rule can allow it; may block.

        Raises:
            Denied: the rules refuse every value at the path.
        """
        if authorizer.unrestricted:
            return
        with self.store.admin.snapshot() as view:
            authorizer.check_could_write(view, step.path, below=step.kind == "patch")

    def check_on_disconnect(self, step: OnDisconnect, authorizer: Authorizer) -> None:
        """Check now a write that is for the client's disconnect; blocks."""
        write = self.to_write(step, authorizer)
        if write.authorize is None:
            return
        # Checked now, so that the client learns of a refusal, and again when it is executed.
        now_ms = int(time.time() * 1000)
        with self.store.admin.snapshot() as view:
            places = [
                (path, resolve(new.value, view.get, path, now_ms)) for path, new in write.places
            ]
            write.authorize(view, places, now_ms)

    def check_index(self, authorizer: Authorizer, listen: Listen) -> dict[str, Any]:
        """Return the warnings for a client that listens: of a missing index."""
        try:
            _require_index(authorizer, listen.path, listen.query)
        except IndexMissing:
            return {"w": ["no_index"]}
        return {}

    async def check_listen(self, authorizer: Authorizer, listen: Listen) -> ReadSet | None:
        """Return the read set of the permission to listen; None for an unrestricted client.

        Raises:
            Denied: the client may not read there.
        """
        if authorizer.unrestricted:
            return None
        try:
            return self._check_listen(authorizer, listen, INLINE_ROWS)
        except ReadLimit:
            return await asyncio.to_thread(self._check_listen, authorizer, listen, None)

    def _check_listen(
        self, authorizer: Authorizer, listen: Listen, rows_max: int | None
    ) -> ReadSet | None:
        with self.store.admin.snapshot(rows_max) as view:
            return authorizer.check_stream(view, listen.path, listen.query)

    def opening(self, authorizer: Authorizer, step: Attach, view: ReadTransaction) -> Opening:
        """Return the opening of a listen of a whole node; without a value that the client has."""
        listen = step.listen
        # In the same transaction as the value: no write can come in between.
        authorizer.check_read(view, listen.path)
        missed = self._missed(step, view)
        if missed is not None:
            return Opening(missed, view.position)
        value = view.get(listen.path)
        # The SDK sends the hash of its cached value when it reconnects: an equal value is not sent
        # again.
        if step.known_hash and hash_of(value) == step.known_hash:
            return Opening((), view.position)
        return Opening((push_value(listen, value),), view.position)

    def _missed(self, step: Attach, view: ReadTransaction) -> list[Event] | None:
        seen = parse_id(step.seen)
        if seen is None or not same_history(self.store, step.mark):
            return None
        # Counts entries to replay as rows, so that a long replay moves to a thread.
        view.tree.allow(view.position - seen.position)
        return try_missed(self.store, step.listen.path, seen, view.position)

    def resume_point(self, position: int) -> dict[str, str]:
        """Return the id and mark with which a client resumes after `position`."""
        row = self.store.oplog.row(position)
        name = id_of(self.store.admin.terms, position, time_at(row))
        return {"i": name, "m": mark_of(position, row)}

    async def fetch(self, authorizer: Authorizer, step: Fetch) -> Any:
        """Return the value that a client reads once.

        Raises:
            Denied: the client may not read there.
            IndexMissing: the rules declare no index for its query.
        """
        try:
            with self.store.admin.snapshot(INLINE_ROWS) as view:
                return _fetched(view, authorizer, step)
        except ReadLimit:
            return await asyncio.to_thread(self._fetch_whole, authorizer, step)

    def _fetch_whole(self, authorizer: Authorizer, step: Fetch) -> Any:
        with self.store.admin.snapshot() as view:
            return _fetched(view, authorizer, step)


def _large_write(kind: str, path: Path, text: bytes, nodes_max: int) -> Write:
    try:
        write = (put_large if kind == "put" else update_large)(path, text, nodes_max)
    except ValueError as error:
        if isinstance(error, SennitError):
            raise
        raise UsageError("the data are not valid JSON") from None
    if write is None:
        raise UsageError(f"a merge at {format_path(path)} needs an object")
    return write


def _fetched(view: ReadTransaction, authorizer: Authorizer, step: Fetch) -> Any:
    authorizer.check_read(view, step.path, step.query)
    if step.query is None:
        return present(view.get(step.path), True)
    _require_index(authorizer, step.path, step.query)
    return present(sorted_map(run_query(step.query, view, step.path)) or None, True)


def _require_index(authorizer: Authorizer, path: Path, query: Query | None) -> None:
    names = None if query is None else authorizer.index_on(path)
    if query is not None and names is not None:
        require_index(query, path, names)


def _check_hash(path: Path, expected: str, view: ReadTransaction) -> None:
    found = hash_of(view.get(path))
    if found != expected:
        raise PreconditionFailed(format_path(path), None, found)


def status_of(error: SennitError) -> str:
    """Return the status of the wire protocol for an error."""
    statuses: tuple[tuple[type[SennitError], str], ...] = (
        (PreconditionFailed, "datastale"),
        (UnknownNamespace, "unknown_namespace"),
        (Denied, getattr(error, "wire_status", "permission_denied")),
        (TooLarge, "too_big"),
        (TooManyNodes, "too_big"),
        (Busy, "unavailable"),
        (Closed, "unavailable"),
        (UsageError, "failure"),
    )
    return next((status for kind, status in statuses if isinstance(error, kind)), "failure")
