"""A server that follows a leader: replicates its namespaces, and forwards writes to it."""

from __future__ import annotations

import asyncio
import json
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path as FilePath
from typing import TYPE_CHECKING, Any, Protocol
from weakref import WeakKeyDictionary

import ormsgpack

from elkyn.auth.principal import Principal
from elkyn.auth.revocations import KEY_CLAIM, LEADER_CLAIM
from elkyn.errors import Diverged, NotSynced, PreconditionFailed, ReplicaLag
from elkyn.namespaces import StoreMap
from elkyn.replication.followers import wait_for_position, wait_until_readable
from elkyn.replication.leader_client import Answer, LeaderClient, error_of
from elkyn.replication.link import Link, announce_term
from elkyn.replication.store_adapters import start_following, start_leading
from elkyn.server.asgi import Receive, Scope, client_of
from elkyn.server.bodies.memory import BodyMemory, read_body
from elkyn.server.realtime.session import Commit
from elkyn.server.request import Request, Response, is_reserved
from elkyn.server.settings import Settings
from elkyn.storage.writer import Write
from sennit_core.errors import Denied, NotFound, SennitError, Unavailable, UsageError
from sennit_core.logs import get_logger
from sennit_core.private_files import FILE_MODE

if TYPE_CHECKING:
    from elkyn.auth.leader_trust import LeaderTrust
    from elkyn.store import ElkynStore

__all__ = ["LeaderProxy", "decode_principal", "encode_principal"]

_POLL_SECONDS = 1.0
_ANSWER_SECONDS = 5.0  # timeout of requests for namespaces and accounts
_ANNOUNCE_SECONDS = 2.0
# The client of the standard library blocks a thread for each request.
_THREADS = 32  # requests forwarded at the same time
# One request and usually one commit at the leader for all of them.
_GROUP_MAX = 500  # writes of one socket in one request to the leader
_WRITES = ("PUT", "PATCH", "POST", "DELETE")
_WRITTEN_PAGES = ("/.settings/rules.json", "/.settings/namespaces.json")
"""Pages outside the tree whose writes are forwarded to the leader."""

_SENT = frozenset(
    {
        b"accept",
        b"authorization",
        b"content-type",
        b"idempotency-key",
        b"if-match",
        b"x-elkyn-ack",
        b"x-firebase-etag",
        b"x-http-method-override",
        b"x-request-id",
    }
)
_RETURNED = ("content-type", "etag", "cache-control", "retry-after", "allow", "content-disposition")

_MEMBERS: dict[str, Any] = {
    "uid": str | None,
    "provider": str,
    "claims": dict,
    "expires_ms": int | None,
    "custom": list,
    "override": dict | None,
}

_log = get_logger(__name__)


class Server(Protocol):
    """The part of `ServerState` that forwarding uses."""

    settings: Settings
    body_memory: BodyMemory

    def open_store(self, name: str) -> ElkynStore:
        """Return the store of a namespace."""
        ...


class LeaderProxy:
    """The leader of this server: replicates its namespaces, and forwards requests to it.

    Args:
        stores: the namespaces of this server; those of the leader are opened in it and followed.
        url: the leader's URL.
        token: an admin's credential of the leader.
        own_token: the admin's credential of this server; requests that carry it are forwarded with
            `token`.
        state_file: records a promotion.
        accounts: is given the keys for the leader's ID tokens.

    Attributes:
        active: whether this server follows the leader; False after a promotion.
    """

    def __init__(
        self,
        stores: StoreMap,
        url: str,
        token: str | None,
        *,
        own_token: str | None,
        state_file: FilePath,
        accounts: FollowerAccounts | None = None,
    ) -> None:
        self.url = url
        self._stores = stores
        self._token = token
        self._own_credential = None if own_token is None else f"Bearer {own_token}".encode()
        self._state_file = state_file
        self._accounts = accounts
        # Two clients: one adds this server's own credential, the other only passes on those of
        # callers.
        self._client, self._forwarding = LeaderClient(url, token), LeaderClient(url, None)
        self._polling = LeaderClient(url, token, timeout_seconds=_ANSWER_SECONDS)
        self._threads = ThreadPoolExecutor(_THREADS, "elkyn-forward")
        # One per followed namespace; changed under `_linking`, as `active` is.
        self._links: dict[str, Link] = {}
        self._linking = threading.Lock()
        self._closed = threading.Event()
        self._was_synced = False  # whether every namespace was readable once; see `unreadable`
        # By socket; an entry goes with its socket.
        self._write_queues: WeakKeyDictionary[object, _WriteQueue] = WeakKeyDictionary()
        # A promotion survives a restart with the same options: the server does not follow its old
        # leader again.
        self.active = self._promoted_from() != url
        # Before any request is served: from here on the stores accept only the leader's entries.
        for name in stores if self.active else ():
            start_following(stores[name])
        work = self._poll_namespaces if self.active else self._announce_promotion
        self._thread = threading.Thread(target=work, name="elkyn-upstream", daemon=True)
        self._thread.start()

    def _promoted_from(self) -> str | None:
        if not self._state_file.exists():
            return None
        found: str = json.loads(self._state_file.read_text())["from"]
        if found != self.url:
            self._state_file.unlink()
        else:
            _log.warning(
                "this server was promoted to leader: it does not follow %s any more", found
            )
        return found

    def _poll_namespaces(self) -> None:
        """Follow every namespace of the leader, including those that are created later."""
        client = self._polling
        while self.active and not self._closed.is_set():
            try:
                answer = client.send("GET", "/.settings/namespaces.json")
                if answer.status != 200:
                    raise error_of(answer, "/.settings/namespaces")
                for name in json.loads(answer.body)["namespaces"]:
                    self._follow(name)
                if self._accounts is not None:
                    self._learn_accounts(client, self._accounts)
            except Exception as error:  # noqa: BLE001 - logged, and tried again
                _log.info("cannot list the namespaces of the leader %s: %s", self.url, error)
            self._closed.wait(_POLL_SECONDS)

    def _learn_accounts(self, client: LeaderClient, accounts: FollowerAccounts) -> None:
        target = f"/.replica/accounts?tag={accounts.leader.tag}"
        answer = client.send("GET", target)
        if answer.status == 200:
            accounts.follow(answer.body)
        elif answer.status != 304:
            raise error_of(answer, "/.replica/accounts")

    def _follow(self, name: str) -> None:
        with self._linking:
            # `promote` may have come in between.
            if self.active and name not in self._links:
                self._links[name] = Link(self._stores[name], self.url, self._token)

    def is_for_leader(self, request: Request, owned: Callable[[str], bool]) -> bool:
        """Whether a request is for the leader: every write, and every request to sign in."""
        path = request.raw_path
        if not self.active or path.startswith("/.replica"):
            return False
        if owned(path):
            return True
        writes = request.method in _WRITES
        return writes and (not is_reserved(path) or path in _WRITTEN_PAGES)

    async def forward(
        self, server: Server, request: Request, scope: Scope, receive: Receive
    ) -> Response:
        """Have the leader answer, and wait until its write was replicated to this server.

        Raises:
            Unavailable: the leader does not answer.
        """
        with server.body_memory.reserve(client_of(scope)) as held:
            limit = server.settings.limits.body_bytes
            body = await read_body(scope, receive, limit, held)
            return await self._forward(server, request, scope, body)

    async def _forward(
        self, server: Server, request: Request, scope: Scope, body: bytes
    ) -> Response:
        headers = {
            name.decode(): (
                self._leader_credential(value) if name == b"authorization" else value
            ).decode("latin-1")
            for name, value in scope["headers"]
            if name in _SENT
        }
        namespace = request.query.get("ns") or server.settings.default_namespace
        query = scope.get("query_string", b"").decode("latin-1")
        # The leader's default namespace may be another one.
        if "ns" not in request.query:
            query = f"{query}&ns={namespace}" if query else f"ns={namespace}"
        target = f"{request.raw_path}?{query}"
        answer = await self._send(request.method, target, body, headers)
        # A client reads its own writes at the server that it sent them to.
        await self.wait_for_position(server, namespace, answer.position)
        kept = tuple((name, value) for name, value in answer.headers.items() if name in _RETURNED)
        return Response(answer.status, answer.body, kept, answer.position)

    def _leader_credential(self, authorization: bytes) -> bytes:
        if (
            self._own_credential is None
            or authorization != self._own_credential
            or self._token is None
        ):
            return authorization
        return f"Bearer {self._token}".encode()

    async def _send(self, method: str, target: str, body: bytes, headers: dict[str, str]) -> Answer:
        loop, send = asyncio.get_running_loop(), self._forwarding.send
        return await loop.run_in_executor(self._threads, send, method, target, body, headers)

    async def wait_for_position(self, server: Server, namespace: str, position: int) -> None:
        """Wait, for `ack_seconds` at most, until this follower has applied `position`."""
        if not position:
            return
        with suppress(ReplicaLag, NotFound, TimeoutError):  # the write is durable at the leader
            await asyncio.to_thread(self._follow, namespace)
            store = server.open_store(namespace)
            await wait_for_position(store, position, server.settings.ack_seconds)
            if store.admin.divergence.unsynced:
                async with asyncio.timeout(server.settings.ack_seconds):
                    await wait_until_readable(store)

    def commit(
        self,
        server: Server,
        socket: _WritingSocket,
        step: Commit,
        write: Write,
        principal: Principal,
    ) -> asyncio.Future[None]:
        """Have the leader commit a socket's write, in the socket's order; as `Committer.commit`."""
        queue = self._write_queues.get(socket)
        if queue is None:
            queue = self._write_queues[socket] = _WriteQueue(self, server, socket.namespace)
        return queue.add(step, write, principal)

    def authenticate(self, token: str) -> Principal | None:
        """Ask the leader for the principal of a token; None if it is invalid or there is no leader.

        Raises:
            Unavailable: the leader does not answer.
        """
        if not self.active:
            return None
        headers = {"Content-Type": "text/plain"}
        body = token.encode(errors="replace")
        answer = self._client.send("POST", "/.replica/identify", body, headers)
        if answer.status == 404:
            return None
        if answer.status != 200:
            raise Unavailable(f"the leader ({answer.text})")
        return _principal_at_leader(ormsgpack.unpackb(answer.body))

    async def write_all(self, namespace: str, rows: list[Any]) -> list[Any]:
        """Have the leader commit writes in order; returns position and error of each."""
        target = f"/.replica/write?ns={namespace}"
        loop = asyncio.get_running_loop()
        body = ormsgpack.packb(rows, option=ormsgpack.OPT_NON_STR_KEYS, default=list)
        # `once`: a write is not sent again when a connection breaks without an answer, because an
        # increment would then count twice.
        send = partial(self._client.send, "POST", target, body, once=True)
        answer = await loop.run_in_executor(self._threads, send)
        if answer.status != 200:
            raise error_of(answer, namespace)
        found: list[Any] = ormsgpack.unpackb(answer.body)
        return found

    @property
    def unreadable(self) -> str | None:
        """Why this server is not ready: the code of the error that reads raise, or None.

        A namespace that the leader creates after this server was ready does not make it unready: only
        reads of that namespace are refused until it was replicated.
        """
        if not self.active:
            return None
        names = list(self._links or self._stores)  # the leader may lack some
        known = [self._stores[name].admin.divergence for name in names]
        if any(one.diverged for one in known):
            return Diverged.code
        if not self._was_synced and (not known or any(one.unsynced for one in known)):
            return NotSynced.code
        self._was_synced = True
        return None

    def check_known(self, name: str) -> None:
        """Refuse an unknown namespace while the leader has not listed its namespaces yet.

        Raises:
            NotSynced: the leader may have the namespace.
        """
        if self.active and not self._links and name not in self._stores:
            raise NotSynced

    def adopt(self, store: ElkynStore) -> None:
        """Make a store that a request has opened accept writes of the leader only."""
        if self.active and not store.admin.following:
            start_following(store)

    def status(self) -> dict[str, Any]:
        """Return the replication status of each namespace, for admins."""
        shown = {}
        for name, link in sorted(self._links.items()):
            status = link.status
            shown[name] = {
                "position": status.position,
                "lag": status.lag,
                "connected": status.connected,
                "diverged": status.diverged,
                "synced": status.synced,
                "lastError": status.last_error,
                "term": status.term,
            }
        return {"leader": self.url, "following": self.active, "namespaces": shown}

    def promote(self) -> dict[str, int]:
        """Become the leader; returns the new term of each namespace. Blocks.

        Writes of the old leader that were not replicated to this server are lost.
        """
        if not self.active:
            raise UsageError("this server is the leader already")
        # The order: stop following, begin the new term, remember the promotion (synced), and only
        # then accept writes.
        self._unfollow()
        terms = {}
        for name in self._stores:
            store = self._stores[name]
            terms[name] = store.admin.change_terms(lambda known, at: known.promoted(at)).term
        self._remember()
        if self._accounts is not None:
            self._accounts.leader.leave()
        for name in self._stores:
            start_leading(self._stores[name])
        self._thread = threading.Thread(
            target=self._announce_promotion, name="elkyn-upstream", daemon=True
        )
        self._thread.start()
        return terms

    def _remember(self) -> None:
        self._state_file.touch(mode=FILE_MODE)
        with self._state_file.open("w") as stream:
            json.dump({"from": self.url}, stream)
            stream.flush()
            os.fsync(stream.fileno())

    def _announce_promotion(self) -> None:
        """Report the new terms to the old leader, once it is reachable, so that it stops leading."""
        left = set(self._stores)
        while left and not self._closed.is_set():
            for name in sorted(left):
                if announce_term(self.url, self._token, self._stores[name]):
                    left.discard(name)
            self._closed.wait(_ANNOUNCE_SECONDS)

    def _unfollow(self) -> None:
        with self._linking:
            self.active = False
            links, self._links = self._links, {}
        for link in links.values():
            # All at once, then wait for each.
            link.stop()
        for link in links.values():
            link.close()

    def close(self) -> None:
        """Stop following; closing twice is fine."""
        self._closed.set()
        self._unfollow()
        for client in (self._client, self._forwarding, self._polling):
            client.close()
        self._threads.shutdown(wait=False, cancel_futures=True)


class FollowerAccounts(Protocol):
    """The part of `Authenticator` that a follower uses."""

    leader: LeaderTrust

    def follow(self, packed: bytes) -> None:
        """Accept ID tokens of a leader."""
        ...


class _WritingSocket(Protocol):
    namespace: str


class _WriteQueue:
    """Forwards the writes of one socket to the leader in order, in groups of those that wait."""

    def __init__(self, leader_proxy: LeaderProxy, server: Server, namespace: str) -> None:
        self._leader_proxy = leader_proxy
        self._server = server
        self._namespace = namespace
        # Writes that are not sent yet. While a group is at the leader, the next ones collect here.
        self._waiting: list[tuple[list[Any], Write, asyncio.Future[None]]] = []
        # Sends groups while there are any; one at a time, which keeps the socket's order.
        self._task: asyncio.Task[None] | None = None

    def add(self, step: Commit, write: Write, principal: Principal) -> asyncio.Future[None]:
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        sender = None if principal.admin else encode_principal(principal)
        row = [step.kind, list(step.path), step.data, step.expected_hash, sender]
        self._waiting.append((row, write, done))
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run())
        return done

    async def _run(self) -> None:
        while self._waiting:
            group, self._waiting = self._waiting[:_GROUP_MAX], self._waiting[_GROUP_MAX:]
            try:
                rows = [row for row, _write, _done in group]
                found = await self._leader_proxy.write_all(self._namespace, rows)
                last = max((position for position, _error in found), default=0)
                await self._leader_proxy.wait_for_position(self._server, self._namespace, last)
            except SennitError as error:
                found = [[0, error] for _entry in group]
            for (row, write, done), (position, wrong) in zip(group, found, strict=True):
                write.position, write.done = position, True
                if wrong is not None:
                    write.error = wrong if isinstance(wrong, Exception) else _error(row, wrong)
                if not done.done():
                    done.set_result(None)


def _error(row: list[Any], shown: list[str]) -> SennitError:
    status, text = shown
    path = "/" + "/".join(row[1])
    if status == "datastale":
        return PreconditionFailed(path)
    if status == "permission_denied":
        return Denied(f"writing {path}", "a rule that allows it")
    return Unavailable(text) if status == "unavailable" else UsageError(text)


def encode_principal(principal: Principal) -> dict[str, Any]:
    """Return a principal as the fields that `decode_principal` reads."""
    return {
        "uid": principal.uid,
        "provider": principal.provider,
        "claims": dict(principal.claims),
        "expires_ms": principal.expires_ms,
        "custom": list(principal.custom),
        "override": None if principal.override is None else dict(principal.override),
    }


def _principal_at_leader(fields: dict[str, Any]) -> Principal:
    found = replace(decode_principal(fields), admin=fields.get("admin") is True)
    claims = dict(found.claims)
    key = claims.pop(KEY_CLAIM, None)
    if key is None and found.admin and found.uid is None:
        key = fields.get("admin_secrets")
    return replace(found, claims=claims if key is None else {**claims, LEADER_CLAIM: str(key)})


def decode_principal(fields: dict[str, Any]) -> Principal:
    """Return the principal that has these fields.

    Raises:
        UsageError: a field is missing or has another type.
    """
    for name, kind in _MEMBERS.items():
        if not isinstance(fields.get(name), kind):
            raise UsageError(f"the principal's field {name} is missing or has the wrong type")
    return Principal(
        uid=fields["uid"],
        provider=fields["provider"],
        claims=fields["claims"],
        custom=tuple(map(str, fields["custom"])),
        expires_ms=fields.get("expires_ms"),
        override=fields["override"],
    )
