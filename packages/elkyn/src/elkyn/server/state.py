"""The state of a server that its parts share: stores, limits, the committer, clients and metrics.

Handlers of requests, streams and sockets get a `ServerState`; `ElkynApp` adds the ASGI interface. So
no handler imports the app that calls it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Protocol, TypeVar

from elkyn.auth.principal import Principal
from elkyn.errors import UnknownNamespace
from elkyn.namespaces import StoreMap, Stores, create_hint
from elkyn.replication.followers import Replication
from elkyn.replication.leader_proxy import LeaderProxy
from elkyn.server.auth_backend import AuthBackend, ClientAuth
from elkyn.server.bodies.memory import BodyMemory
from elkyn.server.committer import Committer
from elkyn.server.limits import Rate
from elkyn.server.metrics import Metrics
from elkyn.server.realtime.clients import Clients
from elkyn.server.realtime.session import Commit
from elkyn.server.request import Call, Request, Response, parse_call
from elkyn.server.send_buffer import SendBufferLimit
from elkyn.server.settings import Settings
from elkyn.storage.writer import Write
from elkyn.store import ElkynStore
from sennit_core.errors import Busy, Closed, SennitError, UsageError

__all__ = ["ServerState"]

T = TypeVar("T")


class WritingSocket(Protocol):
    """A socket whose writes `ServerState.commit_step` commits."""

    store: ElkynStore
    namespace: str


class ServerState:
    """Stores and what limits, counts and commits the requests on them.

    Args:
        stores: by namespace; the caller closes them, after the server.
        auth_backend: authenticates clients.
        settings: everything else.

    Attributes:
        leader_proxy: set when this server follows a leader.
        closed: whether `close` was called: requests are answered with 503.
    """

    def __init__(self, stores: StoreMap, auth_backend: AuthBackend, settings: Settings) -> None:
        self.auth_backend = auth_backend
        self.settings = settings
        self.metrics = Metrics()
        self.committer = Committer()
        self.body_memory = BodyMemory(settings.limits.body_memory_bytes)
        self.send_buffer = SendBufferLimit(
            settings.limits.unsent_bytes, settings.limits.client_unsent_bytes
        )
        self.clients = Clients(self.metrics, settings, auth_backend)
        self.replication = Replication(settings.ack_seconds)
        self.leader_proxy: LeaderProxy | None = None  # set when this server follows a leader
        self.closed = False
        self._stores = stores
        self._rate = Rate(settings.limits.requests_per_second)
        self.user_rate = Rate(settings.limits.user_requests_per_second)
        # Stores that were opened and adopted: the look-up of most requests. Namespaces are never
        # removed from a running server, so an entry is never outdated.
        self._served: dict[str, ElkynStore] = {}

    def parse(self, request: Request) -> tuple[Call, ElkynStore]:
        """Parse a request, and open the store that it is about."""
        call = parse_call(request)
        call.namespace = call.namespace or self.settings.default_namespace
        return call, self.open_store(call.namespace)

    def record_refusal(self, client_auth: ClientAuth, client: str, call: Call) -> None:
        """Record that the rules refused a call."""
        self.auth_backend.record_refusal(
            client_auth, client, call.namespace or "", call.path, write=call.writes
        )

    def count_answer(self, request: Request, response: Response) -> None:
        """Count an answer, and add the CORS headers that let the requesting page read it."""
        self.metrics.answered(request.method, response)
        if "origin" in request.headers and request.method != "OPTIONS":
            response.headers += self.settings.origins.headers(request.headers)

    def admit(self, client: str) -> None:
        """Count a request from an address against the limits.

        Raises:
            Busy: the request exceeds a limit.
            Closed: the server is stopping.
        """
        if self.closed:
            raise Closed("the server")
        if self.metrics.open["http"] > self.settings.limits.requests:
            raise Busy("too many requests at once; try again in a second")
        if self.settings.limits.requests_per_second is not None:
            self._rate.consume(client, asyncio.get_running_loop().time())

    def count_user(self, client_auth: ClientAuth) -> None:
        """Count a request of a user; raises `Busy` when it exceeds the user's rate limit."""
        if client_auth.principal is not None and client_auth.principal.uid:
            self.user_rate.consume(client_auth.principal.uid, asyncio.get_running_loop().time())

    def open_store(self, name: str) -> ElkynStore:
        """Return the store of a namespace.

        Raises:
            NotFound: no namespace has that name.
            NotSynced: this server follows a leader whose namespaces it has not listed yet.
        """
        known = self._served.get(name)
        if known is not None:
            return known
        if not self.settings.create_namespaces:
            if self.leader_proxy is not None:
                self.leader_proxy.check_known(name)
            if name not in self._stores:
                raise UnknownNamespace(name, hint=create_hint(name))
        store = self._stores[name]
        if self.leader_proxy is not None:
            self.leader_proxy.adopt(store)
        self._served[name] = store
        return store

    def namespaces(self) -> list[str]:
        """Return the names of all stores, sorted."""
        return sorted(self._stores)

    def create_namespace(self, name: str) -> bool:
        """Create a namespace on disk; returns False when it exists already. Blocks.

        Raises:
            UsageError: the name is not valid, or the embedding program fixes the set of stores.
        """
        if not isinstance(self._stores, Stores):
            raise UsageError("the namespaces of this server are fixed by the program that runs it")
        return self._stores.add(name)

    def commit_step(
        self, socket: WritingSocket, step: Commit, write: Write, principal: Principal
    ) -> asyncio.Future[None]:
        """Queue a socket's write, here or at the leader; returns as `Committer.commit` does."""
        if self.leader_proxy is not None and self.leader_proxy.active:
            return self.leader_proxy.commit(self, socket, step, write, principal)
        done = self.committer.commit(socket.store, write)
        if not self.settings.ack:
            return done
        return asyncio.ensure_future(self._replicated(socket.store, write, done))

    async def _replicated(
        self, store: ElkynStore, write: Write, done: asyncio.Future[None]
    ) -> None:
        await done
        if write.error is None:
            try:
                await self.replication.replicated(store, write.position, self.settings.ack)
            except SennitError as error:
                write.error = error

    async def on_thread(self, function: Callable[..., T], *args: Any) -> T:
        """Run a function that may block on a worker thread."""
        return await asyncio.to_thread(function, *args)

    def metrics_text(self) -> bytes:
        """Return the metrics in Prometheus text format."""
        return self.metrics.text(
            commits=self.committer.commits,
            commit_seconds=self.committer.seconds,
            waiting=self.committer.waiting,
            unsent_bytes=self.send_buffer.bytes,
            body_memory_bytes=self.body_memory.bytes,
            positions=[(name, store.position) for name, store in sorted(self._served.items())],
        )

    def disconnect(self) -> None:
        """End event streams, whose clients come back and are authorized anew; safe on any thread.

        For an embedder whose `authorize` has changed its mind: it is asked once for a stream.
        """
        self.clients.disconnect()

    def close(self) -> None:
        """End event streams, commit queued writes, and answer 503 from now on; safe on any thread.

        Call it when the server begins to stop, before it waits for open connections.
        """
        self.closed = True
        if self.leader_proxy is not None:
            self.leader_proxy.close()
        self.replication.close()
        self.clients.close()
        self.committer.close()
