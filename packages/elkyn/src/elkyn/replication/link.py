"""A background thread that keeps a store following a leader, and reconnects as needed."""

from __future__ import annotations

import json
import logging
import random
import socket
import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path as FilePath
from typing import Any
from urllib.parse import quote

from elkyn.errors import NotLeader, UnknownNamespace
from elkyn.replication.follower import Receiver
from elkyn.replication.messages import MESSAGE_BYTES_MAX, VERSION, decode, encode
from elkyn.replication.replicated_store import ReplicatedStore
from elkyn.replication.store_adapters import FollowerStore
from elkyn.tree.paths import Path, format_path
from sennit_core.errors import NotFound, Unavailable, Unsupported
from sennit_core.extras import install_hint
from sennit_core.logs import get_logger

__all__ = ["Link", "ReplicaStatus", "announce_term", "read_token"]

_OPEN_SECONDS = 5.0
# The leader sends a heartbeat each second when it has nothing else to send.
_SILENCE_SECONDS = 10.0
# Doubled after each failure up to the maximum; the first pause after a working connection is short.
_RETRY_SECONDS = 0.1
_RETRY_SECONDS_MAX = 3.0

_log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class ReplicaStatus:
    """The status of a replica.

    Args:
        position: the position of its newest entry.
        leader_position: the leader's last known position.
        connected: whether it is connected now.
        last_error: the reason of the last disconnection; None if there was none.
        term: the term of its leader.
        replacing: whether a snapshot that has not arrived yet will replace its state.
        diverged: whether its state is not, or may not be, a past state of the leader.
        synced: whether it has ever held a full state of the leader; reads raise `NotSynced` before.
    """

    position: int
    leader_position: int
    connected: bool
    last_error: str | None
    term: int
    replacing: bool = False
    diverged: bool = False
    synced: bool = True

    @property
    def lag(self) -> int:
        """The number of entries that it lacks."""
        if self.replacing:
            return max(1, self.leader_position)
        return max(0, self.leader_position - self.position)


class Link:
    """Follows a leader in the background until it is closed.

    Args:
        store: the following store; nothing else may write to it.
        url: the URL of the leader's server.
        token: an admin credential of the leader.
        paths: the subtrees to replicate; empty: the whole tree.
    """

    def __init__(
        self, store: ReplicatedStore, url: str, token: str | None, paths: Sequence[Path] = ()
    ) -> None:
        self._store = store
        self._token = token
        self._log = FollowerStore(store, paths)
        shown = json.dumps([format_path(path) for path in paths], separators=(",", ":"))
        self._address = replica_address(url, store.namespace) + f"&paths={quote(shown, safe='')}"
        self._stop = threading.Event()
        # Notified after each commit and each change of readability; `wait_for` looks at both.
        self._moved = threading.Condition()
        self._socket: Any = None
        self._connected = False
        self._last_error: str | None = None
        # Of the current or the last connection: the status goes on naming the leader's last known
        # position.
        self._receiver: Receiver | None = None
        self._connect = load_connect()
        self._end = store.admin.observe(self._note)
        self._end_divergence = store.admin.divergence.observe(lambda: self._note(0, []))
        name = f"elkyn-follow-{store.namespace}"
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def _note(self, _position: int, _paths: list[Path]) -> None:
        with self._moved:
            self._moved.notify_all()

    @property
    def status(self) -> ReplicaStatus:
        """The current status."""
        receiver = self._receiver
        position = self._store.position
        return ReplicaStatus(
            position,
            max(position, 0 if receiver is None else receiver.leader_last),
            self._connected,
            self._last_error,
            self._store.admin.terms.term,
            receiver is not None and receiver.replacing,
            self._store.admin.divergence.diverged,
            not self._store.admin.divergence.unsynced,
        )

    def wait_for(self, position: int, timeout_seconds: float | None) -> bool:
        """Wait until the store is readable and has reached `position`; False after the timeout.

        Position 0 waits only for the leader's first full state.
        """
        with self._moved:
            return self._moved.wait_for(
                lambda: self._has(position) or self._stop.is_set(), timeout_seconds
            )

    def _has(self, position: int) -> bool:
        receiver = self._receiver
        replacing = receiver is not None and receiver.replacing
        readable = not (replacing or self._store.admin.divergence.known)
        return readable and self._store.position >= position

    def _run(self) -> None:
        delay = _RETRY_SECONDS
        while not self._stop.is_set():
            try:
                self._follow()
            except Exception as error:  # noqa: BLE001 - reported in the status, and retried
                if self._stop.is_set():
                    break
                lost_leader = isinstance(error, NotLeader) and self._last_error is None
                self._failed(_describe_error(error))
                level = logging.WARNING if lost_leader else logging.INFO  # needs an operator
                _log.log(level, "following %s: %s", self._address, self._last_error)
            if self._receiver is not None and self._receiver.welcomed:
                delay = _RETRY_SECONDS
            # At random, so that the followers of a leader that restarts do not all come at once.
            self._stop.wait(delay * random.uniform(0.5, 1.0))
            delay = min(2 * delay, _RETRY_SECONDS_MAX)
        self._log.close()

    def _failed(self, text: str) -> None:
        self._connected = False
        self._last_error = text

    def _follow(self) -> None:
        self._receiver = receiver = Receiver(self._log)
        with connect(self._connect, self._address, self._token) as opened:
            self._socket = opened
            send_before_reading(opened, receiver.hello())
            while not self._stop.is_set():
                replaced = receiver.replacing
                # Blocks this thread while entries are applied; the acknowledgement is sent after
                # they are durable.
                answer = receiver.receive(opened.recv(timeout=_SILENCE_SECONDS))
                self._connected = receiver.welcomed
                if replaced and not receiver.replacing:
                    self._note(
                        0, []
                    )  # wakes waiting threads, which could not see this at the commit
                if answer is not None:
                    opened.send(answer)

    def stop(self) -> None:
        """Stop following, without waiting for the thread to end."""
        self._stop.set()
        opened = self._socket
        if opened is not None:
            with suppress(OSError):  # a closing handshake would wait for a leader that hangs
                opened.socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Stop following; returns when the thread has ended. Idempotent."""
        self.stop()
        if self._thread is not threading.current_thread():
            self._thread.join()
        self._connected = False
        self._end()
        self._end_divergence()
        self._note(0, [])


def replica_address(url: str, namespace: str) -> str:
    """Return the URL of a namespace's replication endpoint."""
    return f"{url.rstrip('/').replace('http', 'ws', 1)}/.replica?ns={quote(namespace)}"


def load_connect() -> Any:
    """Return the function that opens WebSockets.

    Raises:
        Unsupported: `websockets` is not installed.
    """
    try:
        from websockets.sync.client import connect as opened
    except ImportError:
        hint = install_hint("sennit-elkyn", "websockets")
        raise Unsupported("following needs websockets", hint=hint) from None
    return opened


def connect(opener: Any, address: str, token: str | None) -> Any:
    """Return an open WebSocket to a leader."""
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    return opener(
        address,
        additional_headers=headers,
        compression=None,
        max_size=MESSAGE_BYTES_MAX,
        open_timeout=_OPEN_SECONDS,
        close_timeout=1,
        # The protocol's own heartbeats replace pings.
        ping_interval=None,
        proxy=None,
    )


def send_before_reading(opened: Any, message: bytes) -> None:
    """Send a message whose answer is read next, even if the server has closed the connection.

    A server that refuses a connection does not wait for its first message: its reason is already
    received, and reading raises if there is none.
    """
    from websockets.exceptions import ConnectionClosed

    with suppress(ConnectionClosed):
        opened.send(message)


_NOTICE_NOT_NEEDED = (NotLeader.code, UnknownNamespace.code, NotFound.code)
"""Codes with which a server refuses a notice of promotion that it does not need; the last one is that
of older servers for a missing namespace."""


def announce_term(url: str, token: str | None, store: ReplicatedStore) -> bool:
    """Notify a server that `store` was promoted; returns whether it knows now.

    If the server already knows a later term that was unknown here, `store` moves to a term after
    that one.
    """
    # A hello from no node: its term is all that the other server needs to hear. A leader of an
    # earlier term writes it down and refuses; one of a later term welcomes, and then this store
    # must go above it.
    said = {"node": "", "term": store.admin.terms.term, "position": 0, "leads": (), "mark": None}
    try:
        with connect(load_connect(), replica_address(url, store.namespace), token) as opened:
            send_before_reading(opened, encode("hello", VERSION, {**said, "fresh": False}))
            answer = decode(opened.recv(timeout=_SILENCE_SECONDS))
            if answer[0] == "welcome":
                later = int(answer[2]["term"])
                store.admin.change_terms(lambda known, at: known.observe_term(later).promoted(at))
                return False
            if answer[1] not in _NOTICE_NOT_NEEDED:
                _log.warning("notifying %s of the promotion: it refused: %s", url, answer[2])
                return False
    except Exception as error:  # noqa: BLE001 - it is tried again
        _log.info("notifying %s of the promotion failed: %s", url, _describe_error(error))
        return False
    return True


def read_token(file: FilePath | None) -> str | None:
    """Return the credential in a file."""
    if file is None:
        return None
    try:
        return file.read_text().strip()
    except OSError as error:
        raise Unavailable(f"the token file {file} ({error.strerror})") from None


def _describe_error(error: BaseException) -> str:
    return str(error) or type(error).__name__
