"""The fast path: answers requests that need only the tree and its committer without an asyncio task.

All requests received in one iteration of the event loop are answered together, after the last of
them was parsed: their reads share a read transaction, their writes usually share a commit. A request
that needs more (an issuer's signing keys, a worker thread, an answer sent in parts) goes to the app.

Through the app, a task and the ASGI messages of each request cost a large part of the CPU time of a
PUT. Admission, authentication, parsing, the write and its response
are the same functions as in `app`; only the waiting differs.

Why the order matters:

    one iteration of the loop:  parse c1, parse c2, … parse cn, then _answer_all
                                                                  |
      reads:  one snapshot per store, begun after the last request was parsed, so each read
              includes every write that was answered before the read was sent
      writes: queued with the committer one after the other, so they usually share a commit

Answering each request as soon as it is parsed was tried: it is faster for one connection and slower
when hundreds of connections have sent something at once, because parsing
all and then answering all keeps the processor's caches warm.
"""

from __future__ import annotations

import time
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from elkyn.server.access_log import AccessLog
from elkyn.server.asgi import head_of
from elkyn.server.bodies.memory import MemoryReservation, memory_of
from elkyn.server.handle import answer_write, read, to_write
from elkyn.server.http.request_cycle import RequestCycle
from elkyn.server.realtime.feed import INLINE_ROWS
from elkyn.server.request import METHODS, Call, Request, Response
from elkyn.server.responses import error_response
from elkyn.server.send_buffer import LARGE_BYTES
from elkyn.storage.row_tree import ReadLimit
from elkyn.storage.transactions import ReadTransaction
from elkyn.storage.writer import Write
from elkyn.store import ElkynStore
from sennit_core.errors import Denied, SennitError

if TYPE_CHECKING:
    from elkyn.server.state import ServerState

__all__ = ["FastPath"]

_WAITING_HEADERS = frozenset({"x-elkyn-ack", "x-elkyn-min-position"})  # may delay the answer


class _PendingRequest(NamedTuple):
    """A fast-path request in progress; `number` is its id in logs, `started` its arrival time."""

    request_cycle: RequestCycle
    request: Request
    number: str | None
    started: float


class FastPath:
    """Answers completely received requests of all connections.

    Args:
        app: has the limits, stores and counters.
    """

    def __init__(self, app: ServerState) -> None:
        self._app = app
        # Requests of this iteration. `_answer_all` is scheduled iff the list is not empty.
        self._waiting: list[RequestCycle] = []
        # Open read transactions by store. Empty outside of `_answer_all`: an LMDB reader that
        # stayed open would keep old pages from being reused.
        self._views: dict[ElkynStore, ReadTransaction] = {}
        # Closes `_views` at the end of `_answer_all`, which replaces it by a stack of its own.
        self._reading = ExitStack()

    def yield_to_writer(self) -> None:
        """Leave the interpreter to a group of writes; see `Committer.yield_to_writer`."""
        self._app.committer.yield_to_writer()

    def add(self, request_cycle: RequestCycle) -> None:
        """Answer a request in the event loop's next iteration, or have the app answer it."""
        if not self._waiting:
            request_cycle.connection.loop.call_soon(self._answer_all)
        self._waiting.append(request_cycle)

    def _answer_all(self) -> None:
        # Replaced before any answer: an answer may start the next pipelined request of its
        # connection, and that one belongs to the next iteration with a newer snapshot.
        waiting, self._waiting = self._waiting, []
        with ExitStack() as self._reading:
            self._reading.callback(self._views.clear)
            for request_cycle in waiting:
                if not self._try_answer(request_cycle):
                    request_cycle.connection.start_app(request_cycle)

    def _try_answer(self, request_cycle: RequestCycle) -> bool:
        """Answer a request, now or after a commit; False when the app must answer it."""
        try:
            request = request_cycle.request()
        except SennitError:
            return False
        if not self._is_eligible(request):
            return False
        pending = _PendingRequest(
            request_cycle, request, AccessLog.begin(request), time.perf_counter()
        )
        try:
            response = self._answer(pending)
        except SennitError as error:
            response = error_response(error)
        # Nothing was queued or sent when `_answer` raises, so the request can be answered again.
        except Exception:  # noqa: BLE001 - the app answers it again, and logs the error
            return False
        if response is not None:
            self._finish(pending, response)
        return True

    def _is_eligible(self, request: Request) -> bool:
        path, headers = request.raw_path, request.headers
        # What has a route of its own, may wait, or is to be forwarded. A request that is not
        # eligible costs more time and nothing else: the app answers every request.
        if not path.endswith(".json") or path.startswith("/.") or request.method not in METHODS:
            return False
        if not _WAITING_HEADERS.isdisjoint(headers) or "event-stream" in headers.get("accept", ""):
            return False
        app = self._app
        if len(request.body) > app.settings.limits.body_bytes:
            return False
        if app.leader_proxy is not None and app.leader_proxy.is_for_leader(
            request, app.auth_backend.owns
        ):
            return False
        return not app.settings.ack or request.method in ("GET", "HEAD")

    def _answer(self, pending: _PendingRequest) -> Response | None:
        """Return the answer; None when it is sent after a commit.

        Raises:
            BlockingIOError: authentication must wait.
            ReadLimit: the read needs a thread, or its answer is too large to send at once.
        """
        app, request_cycle, request = self._app, pending.request_cycle, pending.request
        client = request_cycle.connection.address
        app.admit(client)
        # Set as soon as the limits have counted the request, so that the app, if it has to answer
        # after all, does not count it twice; the same holds for `client_auth` below.
        request_cycle.counted = True
        app.settings.origins.check(request.headers)
        client_auth = app.auth_backend.authenticate_nowait(
            request_cycle.headers, request.query, client
        )
        if app.user_rate.bounded:
            app.count_user(client_auth)
        request_cycle.client_auth = client_auth
        call, store = app.parse(request)
        try:
            authorizer = client_auth.authorizer(store, call.namespace or "", call.path, call.writes)
            if call.writes:
                # Released by `_committed` after the commit, or here if the write was never queued.
                held = app.body_memory.reserve(client)
                held.add(memory_of(request.body))
                try:
                    write = to_write(call, request.body, store, authorizer)
                    self._commit(pending, call, store, write, held)
                except BaseException:
                    held.release()
                    raise
                return None
            response = read(call, self._view(store), authorizer)
        except Denied:
            app.record_refusal(client_auth, client, call)
            raise
        # The read is repeated by the app: rare, and a large answer must wait for the client.
        if len(response.body) > LARGE_BYTES:
            raise ReadLimit
        app.metrics.reads += 1
        return response

    def _view(self, store: ElkynStore) -> ReadTransaction:
        """Return the read transaction that all requests of this iteration share."""
        view = self._views.get(store)
        if view is None:
            view = self._reading.enter_context(store.admin.snapshot(INLINE_ROWS))
            self._views[store] = view
        return view

    def _commit(
        self,
        pending: _PendingRequest,
        call: Call,
        store: ElkynStore,
        write: Write,
        held: MemoryReservation,
    ) -> None:
        metrics = self._app.metrics
        done = partial(self._committed, pending, call, write, held)
        self._app.committer.queue(store, write, done, pending.request_cycle.connection.loop)
        metrics.writes += 1
        metrics.open["http"] += 1

    def _committed(
        self, pending: _PendingRequest, call: Call, write: Write, held: MemoryReservation
    ) -> None:
        # Called in the loop after the commit. The connection may be closed by now; `answer` checks
        # it.
        held.release()
        self._app.metrics.open["http"] -= 1
        try:
            response = answer_write(call, write)
            response.position = write.position
        except Exception as error:  # noqa: BLE001 - answered, and logged when unexpected
            if isinstance(error, Denied):
                request_cycle = pending.request_cycle
                assert request_cycle.client_auth is not None
                self._app.record_refusal(
                    request_cycle.client_auth, request_cycle.connection.address, call
                )
            response = error_response(error)
        self._finish(pending, response)

    def _finish(self, pending: _PendingRequest, response: Response) -> None:
        request_cycle, request = pending.request_cycle, pending.request
        if pending.number is not None:
            address = request_cycle.connection.address
            AccessLog.end(pending.number, request, address, response, pending.started)
        self._app.count_answer(request, response)
        body = b"" if request.method == "HEAD" else response.body
        request_cycle.connection.answer(request_cycle, head_of(response), body)
