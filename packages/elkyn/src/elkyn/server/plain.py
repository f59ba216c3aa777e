"""Requests that need nothing but the tree and its committer: answered without a task of their own.

All that came in one turn of the event loop are taken together, after the last of them was read: their
reads share a transaction, their writes most likely a commit. What turns out to take more (keys of an
issuer, a thread, an answer in parts) is left to the ASGI app.
"""

from __future__ import annotations

import time
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from elkyn._lmdb.tree import ReadLimit
from elkyn.server.access_log import AccessLog
from elkyn.server.answers import error_response
from elkyn.server.asgi import head_of
from elkyn.server.bodies import Held, memory_of
from elkyn.server.exchange import Exchange
from elkyn.server.feed import INLINE_ROWS
from elkyn.server.handle import answer_write, read, to_write
from elkyn.server.request import METHODS, Call, Request, Response
from elkyn.server.unsent import LARGE_BYTES
from elkyn.store import ElkynStore
from elkyn.txn import ReadTransaction
from elkyn.writer import Write
from sennit_core.errors import Denied, SennitError

if TYPE_CHECKING:
    from elkyn.server.app import ElkynApp

__all__ = ["PlainRequests"]

_WAITING_HEADERS = frozenset({"x-elkyn-ack", "x-elkyn-min-position"})


class _Asked(NamedTuple):
    """A plain request under way; `number` is its id in logs, `started` when it came."""

    exchange: Exchange
    request: Request
    number: str | None
    started: float


class PlainRequests:
    """Takes whole requests from connections.

    Args:
        app: whose limits, stores and counters count.
    """

    def __init__(self, app: ElkynApp) -> None:
        self._app = app
        self._waiting: list[Exchange] = []
        self._views: dict[ElkynStore, ReadTransaction] = {}
        self._reading = ExitStack()

    def yield_to_writer(self) -> None:
        """Leave the interpreter to a group of writes; see `Committer.yield_to_writer`."""
        self._app.committer.yield_to_writer()

    def add(self, exchange: Exchange) -> None:
        """Answer an exchange in the loop's next turn, or have its connection start the app."""
        if not self._waiting:
            exchange.connection.loop.call_soon(self._take_all)
        self._waiting.append(exchange)

    def _take_all(self) -> None:
        waiting, self._waiting = self._waiting, []
        with ExitStack() as self._reading:
            self._reading.callback(self._views.clear)
            for exchange in waiting:
                if not self._take(exchange):
                    exchange.connection.start_app(exchange)

    def _take(self, exchange: Exchange) -> bool:
        """Answer an exchange, now or after a commit; False when that takes more."""
        try:
            request = exchange.request()
        except SennitError:
            return False
        if not self._is_plain(request):
            return False
        asked = _Asked(exchange, request, AccessLog.begin(request), time.perf_counter())
        try:
            response = self._answer(asked)
        except SennitError as error:
            response = error_response(error)
        except Exception:  # noqa: BLE001 - what the app meets again it logs
            return False
        if response is not None:
            self._finish(asked, response)
        return True

    def _is_plain(self, request: Request) -> bool:
        path, headers = request.raw_path, request.headers
        if not path.endswith(".json") or path.startswith("/.") or request.method not in METHODS:
            return False
        if not _WAITING_HEADERS.isdisjoint(headers) or "event-stream" in headers.get("accept", ""):
            return False
        app = self._app
        if len(request.body) > app.settings.limits.body_bytes:
            return False
        if app.upstream is not None and app.upstream.takes(request, app.door.owns):
            return False
        return not app.settings.ack or request.method in ("GET", "HEAD")

    def _answer(self, asked: _Asked) -> Response | None:
        """Return the answer; None when it waits for a commit.

        Raises:
            BlockingIOError: it is not known yet who asks.
            ReadLimit: the read takes long, or sending its answer.
        """
        app, exchange, request = self._app, asked.exchange, asked.request
        client = exchange.connection.address
        app.admit(client)
        exchange.counted = True
        app.settings.origins.check(request.headers)
        caller = app.door.caller_at_once(exchange.headers, request.query, client)
        if app.user_rate.bounded:
            app.count_user(caller)
        exchange.caller = caller
        call, store = app.place(request)
        try:
            grant = caller.grant(store, call.namespace or "", call.path, call.writes)
            if call.writes:
                held = app.bodies.hold(client)
                held.add(memory_of(request.body))
                try:
                    write = to_write(call, request.body, store, grant)
                    self._commit(asked, call, store, write, held)
                except BaseException:
                    held.release()
                    raise
                return None
            response = read(call, self._view(store), grant)
        except Denied:
            app.note_refused(caller, client, call)
            raise
        if len(response.body) > LARGE_BYTES:
            raise ReadLimit
        app.metrics.reads += 1
        return response

    def _view(self, store: ElkynStore) -> ReadTransaction:
        """Return the state that all reads of this turn see."""
        view = self._views.get(store)
        if view is None:
            view = self._reading.enter_context(store.snapshot(INLINE_ROWS))
            self._views[store] = view
        return view

    def _commit(
        self, asked: _Asked, call: Call, store: ElkynStore, write: Write, held: Held
    ) -> None:
        metrics = self._app.metrics
        done = partial(self._committed, asked, call, write, held)
        self._app.committer.queue(store, write, done, asked.exchange.connection.loop)
        metrics.writes += 1
        metrics.open["http"] += 1

    def _committed(self, asked: _Asked, call: Call, write: Write, held: Held) -> None:
        held.release()
        self._app.metrics.open["http"] -= 1
        try:
            response = answer_write(call, write)
            response.position = write.position
        except Exception as error:  # noqa: BLE001 - answered, and logged when it is a surprise
            if isinstance(error, Denied):
                exchange = asked.exchange
                assert exchange.caller is not None
                self._app.note_refused(exchange.caller, exchange.connection.address, call)
            response = error_response(error)
        self._finish(asked, response)

    def _finish(self, asked: _Asked, response: Response) -> None:
        exchange, request = asked.exchange, asked.request
        if asked.number is not None:
            address = exchange.connection.address
            AccessLog.end(asked.number, request, address, response, asked.started)
        self._app.count_answer(request, response)
        body = b"" if request.method == "HEAD" else response.body
        exchange.connection.answer(exchange, head_of(response), body)
