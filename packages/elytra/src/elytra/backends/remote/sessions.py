"""The state of remote workers: limits, connections, sessions and attempts.

Only `elytra.backends.remote.machine` changes it.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from elytra.backends.remote.messages import CACHED_MAX, Hello, Task

__all__ = ["Attempt", "Connection", "RemoteLimits", "Session", "SessionInfo", "info_of", "state_of"]

_ENDED_MAX = 256


@dataclass(frozen=True, slots=True)
class RemoteLimits:
    """What a worker may use, and how long the node waits for it.

    Args:
        hello_seconds: From the connection to its `hello`.
        grace_seconds: From a lost connection to the `hello` that resumes it.
        lease_seconds: From the task, or its last `renew`, to the next.
        attempt_seconds: Of an attempt in all, also if it is renewed.
        result_bytes_max: Of an attempt's result.
        uploads_bytes_max: Of all uploads that were not checked yet.
        token_connections_max: Connections with one token at the same time.
        connections_max: Connections in all.
        messages_per_second: Of one connection; four seconds' worth may come at once.
        strikes_max: Broken rules, without a result that counts between them, after which a token is
            excluded: fewer than the failures that poison a task, which one worker then cannot cause.
    """

    hello_seconds: float = 5.0
    grace_seconds: float = 2.0
    lease_seconds: float = 15.0
    attempt_seconds: float = 900.0
    result_bytes_max: int = 256 << 20
    uploads_bytes_max: int = 4 << 30
    token_connections_max: int = 16
    connections_max: int = 256
    messages_per_second: float = 200.0
    strikes_max: int = 2


State: TypeAlias = Literal["preparing", "queued", "sent", "received"]


@dataclass(slots=True, eq=False)
class Attempt:
    """An attempt that was assigned to a worker and has not ended."""

    id: str
    # After this time the attempt ends in any state.
    deadline: float
    state: State = "preparing"
    # Set when its input is ready; not None in all later states.
    task: Task | None = None
    # After this time it ends if it is queued or sent.
    lease_until: float = 0.0
    started: bool = False
    bytes_done: int = -1


@dataclass(slots=True, eq=False)
class Session:
    """A worker, across the connections with which it resumes."""

    id: str
    token: str
    hello: Hello
    since: float
    # None while the connection is lost; then `lost_at` is when that was.
    connection: int | None
    resume: str
    lost_at: float = 0.0
    # Attempts that it runs at the same time; 0 until there is credit: at first, after a drain, and
    # after a lost connection.
    slots: int = 0
    # Tasks that may be sent now.
    credits: int = 0
    # Whether the scheduler knows it.
    has_joined: bool = False
    # Object ids of shards whose inputs it has, as it said, and those that it has computed since.
    cached: deque[str] = field(default_factory=lambda: deque(maxlen=CACHED_MAX))
    # Whether the scheduler has not heard of all of them, and when it heard last.
    has_news: bool = False
    reported_at: float = 0.0
    # In the order in which they were assigned.
    attempts: dict[str, Attempt] = field(default_factory=dict)
    # The last that have ended: a message about one of them is late, not malformed.
    ended: deque[str] = field(default_factory=lambda: deque(maxlen=_ENDED_MAX))
    finished_count: int = 0
    failed_count: int = 0


@dataclass(slots=True, eq=False)
class Connection:
    """A WebSocket, before its `hello` too."""

    id: int
    token: str
    opened_at: float
    session: Session | None = None
    # A token bucket: what it may still send at `counted_at`.
    allowance: float = 0.0
    counted_at: float = 0.0


@dataclass(frozen=True, slots=True)
class SessionInfo:
    """A worker as it is listed."""

    id: str
    token: str
    kind: str
    engine: str
    threads: int
    state: str
    running: int
    finished: int
    failed: int
    functions: bool


def state_of(session: Session) -> str:
    """Return the state that is shown of a worker."""
    if session.connection is None:
        return "reconnecting"
    return "connected" if session.slots else "paused"


def info_of(session: Session) -> SessionInfo:
    """Return a worker as it is listed."""
    hello = session.hello
    return SessionInfo(
        session.id, session.token, hello.kind, hello.engine, hello.threads, state_of(session),
        len(session.attempts), session.finished_count, session.failed_count,
        hello.functions,
    )  # fmt: skip
