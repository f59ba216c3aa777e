"""The node's side of the worker protocol: a pure state machine.

Calls come in with the time, instructions go out; there is no clock, no thread, no socket here. The node
drives all clocks: a worker needs no timer, and one that is silent is disconnected by `tick`.

    connection  connected -> hello -> welcome; lost -> grace -> resumed | left
    attempt     preparing -> queued -> sent -> received -> ended

Nothing that a worker sends is trusted. A message only has an effect on the attempts of its own
session, and a result counts only after the shell has checked it.
"""

from __future__ import annotations

import secrets
from collections import OrderedDict
from collections.abc import Callable, Mapping
from functools import singledispatchmethod

from elytra.backends.remote.instructions import (
    CloseConnection,
    Ended,
    Excluded,
    Instruction,
    Joined,
    Left,
    Progressed,
    Received,
    Rerun,
    Send,
    Started,
)
from elytra.backends.remote.messages import (
    INLINE_BYTES_MAX,
    VERSION,
    Ack,
    Cancel,
    Credit,
    Drain,
    Failed,
    FromWorker,
    Hello,
    Partial,
    Renew,
    Task,
    Welcome,
)
from elytra.backends.remote.sessions import (
    Attempt,
    Connection,
    RemoteLimits,
    Session,
    SessionInfo,
    info_of,
)
from sennit_core.errors import BadInput, Cancelled, DeadlineExceeded, SennitError, WorkerLost
from sennit_core.ids import new_id

__all__ = ["CLOSE_CODES", "Machine"]

CLOSE_CODES = {
    "malformed": 4400,
    "excluded": 4403,
    "version": 4406,
    "silent": 4408,
    "replaced": 4409,
    "engine": 4426,
    "too-many": 4429,
    "closing": 4503,
}
"""Of WebSocket closes, for programs; the reason has a text for people."""
_STRIKING_MAX = 10_000
_REPORT_SECONDS = 1.0


class Machine:
    """Workers, their connections and their attempts.

    Args:
        engine_version: Of the node's engine.
        limits: Limits and times.
        new_secret: Makes the secrets with which connections are resumed.
        excluded: The tokens that are not admitted, and why.
    """

    def __init__(
        self,
        engine_version: str,
        limits: RemoteLimits | None = None,
        new_secret: Callable[[], str] = lambda: secrets.token_urlsafe(24),
        excluded: Mapping[str, str] | None = None,
    ) -> None:
        self._engine_version = engine_version
        self._limits = limits or RemoteLimits()
        self._new_secret = new_secret
        self._connections: dict[int, Connection] = {}
        self._sessions: dict[str, Session] = {}
        # The session of each attempt that has not ended.
        self._owners: dict[str, Session] = {}
        # Broken rules by token since its last result that counted, and the reasons of exclusions.
        self._strikes: OrderedDict[str, int] = OrderedDict()
        self.excluded: dict[str, str] = dict(excluded or {})
        # Of the current call, in order; empty between calls.
        self._out: list[Instruction] = []

    # State, for the shell

    @property
    def is_active(self) -> bool:
        """Whether time has to be reported."""
        return bool(self._connections or self._sessions)

    def sessions(self) -> list[SessionInfo]:
        """Return the workers."""
        return [info_of(session) for session in self._sessions.values()]

    def token_of(self, attempt: str) -> str | None:
        """Return the token of the worker that has the task of an attempt."""
        session = self._owners.get(attempt)
        if session is None or session.attempts[attempt].state != "sent":
            return None
        return session.token

    # Connections

    def connect(self, connection: int, token: str, now: float) -> list[Instruction]:
        """A client with a valid token has connected."""
        burst = 4 * self._limits.messages_per_second
        self._connections[connection] = Connection(
            connection, token, now, allowance=burst, counted_at=now
        )
        mine = sum(1 for each in self._connections.values() if each.token == token)
        if token in self.excluded:
            self._close(connection, "excluded", self.excluded[token])
        elif mine > self._limits.token_connections_max:
            most = self._limits.token_connections_max
            self._close(connection, "too-many", f"a token has at most {most} connections")
        elif len(self._connections) > self._limits.connections_max:
            self._close(connection, "too-many", "the node has no room for more workers")
        return self._flushed()

    def disconnect(self, connection: int, now: float) -> list[Instruction]:
        """A connection has ended, by either side."""
        found = self._connections.pop(connection, None)
        session = None if found is None else found.session
        if session is not None and session.connection == connection:
            session.connection, session.lost_at = None, now
            if session.has_joined:
                self._pause(session)
            else:
                self._leave(session)
        return self._flushed()

    def receive(self, connection: int, message: FromWorker, now: float) -> list[Instruction]:
        """A message has arrived."""
        found = self._connections.get(connection)
        if found is None:
            return []  # it was closed; what was on its way is not read
        if not self._allow(found, now):
            self._strike(found.token, "it sent too many messages")
            self._close(connection, "too-many", "too many messages in a second")
        elif found.session is None and not isinstance(message, Hello):
            self._break(found, f"{message.word} before hello")
        elif found.session is not None and isinstance(message, Hello):
            self._break(found, "a second hello")
        elif isinstance(message, Hello):
            self._greet(found, message, now)
        else:
            assert found.session is not None
            self._apply(message, found.session, found, now)
        return self._flushed()

    def refuse(self, connection: int, reason: str) -> list[Instruction]:
        """A frame has arrived that is no message."""
        found = self._connections.get(connection)
        if found is not None:
            self._break(found, reason)
        return self._flushed()

    def disconnect_token(self, token: str) -> list[Instruction]:
        """A token was revoked."""
        self._drop_token(token, "the token was revoked")
        return self._flushed()

    # Attempts

    def assign(
        self, attempt: str, worker: str, seconds: float | None, now: float
    ) -> list[Instruction]:
        """An attempt was assigned to a worker; its input is being prepared."""
        session = self._sessions.get(worker)
        if session is None:
            self._out.append(Ended(attempt, WorkerLost(worker), retryable=True))
            return self._flushed()
        most = self._limits.attempt_seconds
        deadline = now + (most if seconds is None else min(seconds, most))
        session.attempts[attempt] = Attempt(attempt, deadline)
        self._owners[attempt] = session
        return self._flushed()

    def ready(self, task: Task, now: float) -> list[Instruction]:
        """The input of an attempt is ready."""
        session = self._owners.get(task.attempt)
        if session is not None:
            attempt = session.attempts[task.attempt]
            attempt.task = task
            self._queue(attempt, now)
            self._push(session, now)
        return self._flushed()

    def stop(self, attempt: str) -> list[Instruction]:
        """An attempt is to be cancelled."""
        self._end(attempt, Cancelled("the attempt"), retryable=False)
        return self._flushed()

    def fail(self, attempt: str, error: SennitError, *, retryable: bool) -> list[Instruction]:
        """An attempt has failed at the node: it could not be prepared."""
        self._end(attempt, error, retryable=retryable)
        return self._flushed()

    def touch(self, attempt: str, now: float) -> list[Instruction]:
        """Bytes of an attempt's upload have arrived."""
        session = self._owners.get(attempt)
        if session is not None:
            session.attempts[attempt].lease_until = now + self._limits.lease_seconds
        return self._flushed()

    def conclude(
        self, attempt: str, token: str, *, counts: bool, fault: str | None = None
    ) -> list[Instruction]:
        """An attempt has ended at the node.

        Args:
            attempt: The attempt.
            token: Of its worker, which may be gone.
            counts: Whether the worker's result is used.
            fault: What was wrong with it, if that was the worker's fault.
        """
        if counts:
            self._note_input(attempt)
        session = self._forget(attempt)
        if session is not None:
            session.finished_count += counts
            session.failed_count += fault is not None
        if fault is not None:
            self._strike(token, fault)
        elif counts:
            self._strikes.pop(token, None)
        return self._flushed()

    def exclude(self, token: str, reason: str) -> list[Instruction]:
        """No worker with this token is admitted any more."""
        self._exclude(token, reason)
        return self._flushed()

    def readmit(self, token: str) -> None:
        """Workers with this token are admitted again."""
        self.excluded.pop(token, None)
        self._strikes.pop(token, None)

    def token_of_worker(self, worker: str) -> str | None:
        """Return the token of a worker that is there."""
        session = self._sessions.get(worker)
        return None if session is None else session.token

    # Time

    def tick(self, now: float) -> list[Instruction]:
        """Time has passed."""
        for connection in list(self._connections.values()):
            if (
                connection.session is None
                and now - connection.opened_at > self._limits.hello_seconds
            ):
                self._close(connection.id, "silent", "there was no hello")
        for session in list(self._sessions.values()):
            if session.connection is None and now - session.lost_at > self._limits.grace_seconds:
                self._leave(session)
                continue
            for attempt in list(session.attempts.values()):
                if now > attempt.deadline:
                    self._end(attempt.id, DeadlineExceeded("the attempt"), retryable=False)
            self._check_leases(session, now)
            self._report_inputs(session, now)
        return self._flushed()

    def _check_leases(self, session: Session, now: float) -> None:
        """Disconnect a worker without progress: it would only delay its next tasks."""
        attempts = [each for each in session.attempts.values() if each.state in ("queued", "sent")]
        if all(now <= each.lease_until for each in attempts):
            return
        reason = f"there was no progress for {self._limits.lease_seconds:g} seconds"
        if session.connection is None:
            self._leave(session, reason)
        else:
            self._close(session.connection, "silent", reason)

    def drain(self) -> list[Instruction]:
        """The node is about to close."""
        for session in self._sessions.values():
            if session.connection is not None:
                self._out.append(Send(session.connection, Drain()))
                self._out.append(
                    CloseConnection(session.connection, CLOSE_CODES["closing"], "the node closes")
                )
        for attempt in list(self._owners):
            self._end(attempt, Cancelled("the attempt"), retryable=False)
        return self._flushed()

    # Messages of a worker

    def _greet(self, connection: Connection, hello: Hello, now: float) -> None:
        name, _, version = hello.engine.rpartition(" ")
        if hello.version != VERSION:
            reason = f"this node speaks version {VERSION} of the protocol, not {hello.version}"
            self._close(connection.id, "version", reason)
        elif not name or version != self._engine_version:
            reason = f"this node has engine {self._engine_version}, the worker {hello.engine}"
            self._close(connection.id, "engine", reason)
        else:
            session = self._resumed(connection, hello, now) or self._opened(connection, hello, now)
            connection.session = session
            self._welcome(session)
            self._requeue(session, now)

    def _opened(self, connection: Connection, hello: Hello, now: float) -> Session:
        session = Session(new_id(), connection.token, hello, now, connection.id, "")
        session.cached.extend(hello.cached)
        self._sessions[session.id] = session
        return session

    def _resumed(self, connection: Connection, hello: Hello, now: float) -> Session | None:
        """Return the session that a `hello` continues, if there is one of the same token."""
        if hello.resume is None:
            return None
        for session in self._sessions.values():
            if session.token == connection.token and secrets.compare_digest(
                session.resume, hello.resume
            ):
                if session.connection is not None:
                    # The worker noticed first that the connection was lost.
                    self._close(session.connection, "replaced", "the worker has connected again")
                if hello.functions != session.hello.functions:
                    self._pause(session)  # the scheduler hears of it with the next credit
                session.connection, session.credits, session.hello = connection.id, 0, hello
                return session
        return None

    def _welcome(self, session: Session) -> None:
        assert session.connection is not None
        session.resume = self._new_secret()
        wanted = tuple(
            each.id for each in session.attempts.values() if each.state in ("queued", "sent")
        )
        limits = self._limits
        message = Welcome(
            VERSION, session.id, session.resume, limits.grace_seconds, limits.lease_seconds,
            INLINE_BYTES_MAX, limits.result_bytes_max, wanted,
        )  # fmt: skip
        self._out.append(Send(session.connection, message))

    def _requeue(self, session: Session, now: float) -> None:
        """Queue the tasks again that were sent and did not arrive."""
        for attempt in session.attempts.values():
            if attempt.state == "sent" and attempt.id not in session.hello.attempts:
                self._queue(attempt, now)

    @singledispatchmethod
    def _apply(self, message: object, session: Session, _c: Connection, _now: float) -> None:
        raise TypeError(f"not a message of a worker: {message!r}")

    @_apply.register
    def _(self, message: Credit, session: Session, _c: Connection, now: float) -> None:
        if not session.slots:
            kept = sum(1 for each in session.attempts.values() if each.state == "sent")
            session.slots, session.has_joined = message.n + kept, True
            session.has_news, session.reported_at = False, now
            self._join(session)
        # More than its slots are never used: the scheduler assigns no more attempts.
        session.credits = min(session.credits + message.n, session.slots)
        self._push(session, now)

    @_apply.register
    def _(self, message: Renew, session: Session, found: Connection, now: float) -> None:
        attempt = self._sent(message.attempt, session, found)
        if attempt is None:
            return
        self._start(attempt)
        # Only growth renews: a worker that hangs may still have a thread that sends.
        if message.bytes_done > attempt.bytes_done:
            attempt.bytes_done = message.bytes_done
            attempt.lease_until = now + self._limits.lease_seconds
            self._out.append(Progressed(attempt.id, message.bytes_done))

    @_apply.register
    def _(self, message: Partial, session: Session, found: Connection, _now: float) -> None:
        self._ack(message.attempt, session)
        attempt = self._sent(message.attempt, session, found)
        if attempt is None:
            return
        task = attempt.task
        assert task is not None
        bound = (message.plan_hash, message.input_sha256, message.engine)
        if bound != (task.plan_hash, task.input_sha256, session.hello.engine):
            fault = "a result is for another plan or input, or of another engine"
            session.failed_count += 1
            # First: a worker that is excluded for it leaves before the task is tried again.
            self._strike(session.token, fault)
            error = BadInput("the result of a remote worker", reason=fault)
            self._end(attempt.id, error, retryable=True, cancel=False)
            return
        self._start(attempt)
        attempt.state = "received"
        self._out.append(Received(attempt.id, message.data, message.sha256))

    @_apply.register
    def _(self, message: Failed, session: Session, found: Connection, _now: float) -> None:
        self._ack(message.attempt, session)
        attempt = self._sent(message.attempt, session, found)
        if attempt is not None:
            self._start(attempt)
            attempt.state = "received"
            self._out.append(Rerun(attempt.id, message.code, message.message))

    @_apply.register
    def _(self, _message: Drain, session: Session, _c: Connection, _now: float) -> None:
        self._pause(session)
        for attempt in list(session.attempts.values()):
            if attempt.state in ("preparing", "queued"):
                error = WorkerLost(session.id, reason="it wants no more tasks")
                self._end(attempt.id, error, retryable=True)

    def _sent(self, attempt: str, session: Session, found: Connection) -> Attempt | None:
        """Return the attempt of a message, if it was sent to this worker and has not ended."""
        mine = session.attempts.get(attempt)
        if mine is not None and mine.state == "sent":
            return mine
        if mine is None and attempt not in session.ended:
            self._break(found, "a message about an attempt that the worker does not have")
        return None  # late or repeated

    # Steps

    def _note_input(self, attempt: str) -> None:
        """Note that a worker has read an input, which it may have kept."""
        session = self._owners.get(attempt)
        task = None if session is None else session.attempts[attempt].task
        if session is None or task is None:
            return
        for source in task.spec.get("inputs", ()):
            if source["kind"] == "shard" and source["id"] not in session.cached:
                session.cached.append(source["id"])
                session.has_news = True

    def _report_inputs(self, session: Session, now: float) -> None:
        """Let the scheduler know of inputs: not after each task, as it looks through all that wait."""
        due = now - session.reported_at >= _REPORT_SECONDS
        if session.has_news and session.slots and due:
            session.has_news, session.reported_at = False, now
            self._join(session)

    def _pause(self, session: Session) -> None:
        """Let the scheduler assign no more attempts until there is credit again."""
        session.credits = 0
        if session.slots:
            session.slots = 0
            self._out.append(Joined(session.id, 0, ()))

    def _join(self, session: Session) -> None:
        functions = session.hello.functions
        self._out.append(Joined(session.id, session.slots, tuple(session.cached), functions))

    def _allow(self, found: Connection, now: float) -> bool:
        rate = self._limits.messages_per_second
        gained = (now - found.counted_at) * rate
        found.allowance = min(4 * rate, found.allowance + gained) - 1
        found.counted_at = now
        return found.allowance >= 0

    def _queue(self, attempt: Attempt, now: float) -> None:
        attempt.state = "queued"
        attempt.lease_until = now + self._limits.lease_seconds

    def _push(self, session: Session, now: float) -> None:
        """Send queued tasks, as far as the credit goes."""
        if session.connection is None:
            return
        for attempt in session.attempts.values():
            if session.credits and attempt.state == "queued":
                assert attempt.task is not None
                session.credits -= 1
                attempt.state, attempt.bytes_done = "sent", -1
                attempt.lease_until = now + self._limits.lease_seconds
                self._out.append(Send(session.connection, attempt.task))

    def _start(self, attempt: Attempt) -> None:
        if not attempt.started:
            attempt.started = True
            self._out.append(Started(attempt.id))

    def _ack(self, attempt: str, session: Session) -> None:
        if session.connection is not None:
            self._out.append(Send(session.connection, Ack(attempt)))

    def _forget(self, attempt: str) -> Session | None:
        session = self._owners.pop(attempt, None)
        if session is not None:
            del session.attempts[attempt]
            session.ended.append(attempt)
        return session

    def _end(
        self, attempt: str, error: SennitError, *, retryable: bool, cancel: bool = True
    ) -> None:
        """End an attempt without a result; with `cancel`, the worker is to stop it."""
        session = self._owners.get(attempt)
        if session is None:
            return
        was_sent = session.attempts[attempt].state == "sent"
        self._forget(attempt)
        if cancel and was_sent and session.connection is not None:
            self._out.append(Send(session.connection, Cancel(attempt)))
        self._out.append(Ended(attempt, error, retryable))

    def _leave(self, session: Session, reason: str = "its connection was lost") -> None:
        del self._sessions[session.id]
        # First: an attempt that fails before would be assigned to the same worker again.
        if session.has_joined:
            self._out.append(Left(session.id))
        for attempt in list(session.attempts):
            self._forget(attempt)
            self._out.append(Ended(attempt, WorkerLost(session.id, reason=reason), retryable=True))

    def _break(self, found: Connection, reason: str) -> None:
        """Close the connection of a worker that breaks the protocol."""
        self._strike(found.token, reason)
        self._close(found.id, "malformed", reason)

    def _strike(self, token: str, reason: str) -> None:
        count = self._strikes[token] = self._strikes.pop(token, 0) + 1
        if len(self._strikes) > _STRIKING_MAX:
            self._strikes.popitem(last=False)
        if count >= self._limits.strikes_max:
            self._exclude(token, f"{count} faults, the last: {reason}")

    def _exclude(self, token: str, reason: str) -> None:
        if token not in self.excluded:
            self.excluded[token] = reason
            self._out.append(Excluded(token, reason))
            self._drop_token(token, reason)

    def _drop_token(self, token: str, reason: str) -> None:
        for session in [each for each in self._sessions.values() if each.token == token]:
            self._leave(session, reason)
        for connection in [each for each in self._connections.values() if each.token == token]:
            self._close(connection.id, "excluded", reason)

    def _close(self, connection: int, kind: str, reason: str) -> None:
        found = self._connections.pop(connection, None)
        if found is None:
            return
        session = found.session
        if session is not None and session.connection == connection:
            # No grace: the worker has broken the protocol, or another connection replaces this one.
            session.connection = None
            if kind != "replaced" and session.id in self._sessions:
                self._leave(session, reason)
        self._out.append(CloseConnection(connection, CLOSE_CODES[kind], reason[:120]))

    def _flushed(self) -> list[Instruction]:
        out, self._out = self._out, []
        return out
