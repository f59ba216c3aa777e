"""The outputs of the protocol's state machine, which its shell carries out; plain values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from elytra.backends.remote.messages import Message
from sennit_core.errors import SennitError

__all__ = [
    "CloseConnection",
    "Ended",
    "Excluded",
    "Instruction",
    "Joined",
    "Left",
    "Progressed",
    "Received",
    "Rerun",
    "Send",
    "Started",
]


@dataclass(frozen=True, slots=True)
class Send:
    """Send a message on a connection."""

    connection: int
    message: Message


@dataclass(frozen=True, slots=True)
class CloseConnection:
    """Close a connection after what was sent on it."""

    connection: int
    code: int
    reason: str


@dataclass(frozen=True, slots=True)
class Joined:
    """A worker can run this many attempts at the same time, 0 while it wants none, and has these shards.

    With `functions`, its owner runs functions of others.
    """

    worker: str
    slots: int
    cached: tuple[str, ...]
    functions: bool = False


@dataclass(frozen=True, slots=True)
class Left:
    """A worker is gone."""

    worker: str


@dataclass(frozen=True, slots=True)
class Started:
    """A worker has shown that it works on an attempt."""

    attempt: str


@dataclass(frozen=True, slots=True)
class Progressed:
    """An attempt has come this far."""

    attempt: str
    bytes_done: int


@dataclass(frozen=True, slots=True)
class Ended:
    """An attempt has ended without a result."""

    attempt: str
    error: SennitError
    retryable: bool


@dataclass(frozen=True, slots=True)
class Received:
    """A result has arrived and is to be checked; `data` is None if it was uploaded."""

    attempt: str
    data: bytes | None
    sha256: str


@dataclass(frozen=True, slots=True)
class Rerun:
    """A worker could not run an attempt: the node runs it, and so finds out whether anything can."""

    attempt: str
    code: str
    message: str


@dataclass(frozen=True, slots=True)
class Excluded:
    """No worker with this token is admitted any more."""

    token: str
    reason: str


Instruction: TypeAlias = (
    Send
    | CloseConnection
    | Joined
    | Left
    | Started
    | Progressed
    | Ended
    | Received
    | Rerun
    | Excluded
)
