"""The worker protocol, version 1: messages between a node and its remote workers.

Each message is one binary WebSocket frame: a MessagePack map whose member `word` names it. All members
of a message are present, null included; others are refused. `docs/workers.yaml` is the AsyncAPI
document of the protocol, and `CONTRACTS.md` its short form.

```
worker -> node   hello credit renew partial failed drain
node -> worker   welcome task cancel ack drain
```
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any, ClassVar, TypeAlias, TypeVar

import ormsgpack

from sennit_core.errors import BadInput
from sennit_core.text import camel_case

__all__ = [
    "CACHED_MAX",
    "FROM_NODE",
    "FROM_WORKER",
    "INLINE_BYTES_MAX",
    "MESSAGE_BYTES_MAX",
    "SUBPROTOCOL",
    "VERSION",
    "Ack",
    "Cancel",
    "Credit",
    "Drain",
    "Failed",
    "FromWorker",
    "Hello",
    "Message",
    "Partial",
    "Renew",
    "Task",
    "Welcome",
    "encode",
    "read_from_node",
    "read_from_worker",
]

VERSION = 1
SUBPROTOCOL = f"sennit-worker-{VERSION}"
INLINE_BYTES_MAX = 256 << 10
"""Of the rows in a `partial`: a longer stream is sent by PUT, so that no frame delays others."""
MESSAGE_BYTES_MAX = INLINE_BYTES_MAX + (64 << 10)
"""Of a message from a worker. A `hello` with the most cached inputs has 36 KiB."""
CACHED_MAX = 512
ATTEMPTS_MAX = 64
_TEXT_MAX = 128
_ERROR_MAX = 4096
_NUMBER_MAX = 1 << 53  # what JavaScript represents exactly

_HASH = re.compile(r"[0-9a-f]{64}")
_ATTEMPT = re.compile(r"[a-z0-9][a-z0-9-]{0,127}")
_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._+-]{0,63}")
_SECRET = re.compile(r"[A-Za-z0-9_-]{1,64}")


@dataclass(frozen=True, slots=True)
class Message:
    """Base class of the messages; `word` is the name on the wire."""

    word: ClassVar[str]


@dataclass(frozen=True, slots=True)
class Hello(Message):
    """The first message of a connection.

    Args:
        version: Of the protocol.
        engine: Name and version of the worker's engine, such as `emsqrt 0.1.0`. The version must be
            that of the node's engine: the states of aggregates have no other format.
        kind: What the worker is: `tab`, `node`, `python`; only shown.
        threads: How many tasks it computes at the same time.
        cached: Object ids of shards (`spec.inputs`) whose streams it has: it gets tasks over these first.
        resume: The secret of the last `welcome`, to continue after a lost connection, or null.
        attempts: With `resume`: the attempts whose tasks it still has.
        functions: Whether its owner runs JavaScript functions of others: only then it gets tasks with some.
    """

    word: ClassVar[str] = "hello"
    version: int
    engine: str
    kind: str
    threads: int
    cached: tuple[str, ...]
    resume: str | None
    attempts: tuple[str, ...]
    functions: bool


@dataclass(frozen=True, slots=True)
class Credit(Message):
    """The worker accepts `n` more tasks; without credit it gets none."""

    word: ClassVar[str] = "credit"
    n: int


@dataclass(frozen=True, slots=True)
class Renew(Message):
    """The attempt has come further, and its lease begins again.

    Args:
        attempt: The attempt.
        bytes_done: Bytes that were received and computed. A lease is renewed only if they grow.
    """

    word: ClassVar[str] = "renew"
    attempt: str
    bytes_done: int


@dataclass(frozen=True, slots=True)
class Partial(Message):
    """The result of an attempt: an Arrow IPC stream whose schema is that of the task.

    Args:
        attempt: The attempt.
        plan_hash: As in the task.
        input_sha256: As in the task; the worker has compared its input with it.
        engine: As in `hello`.
        sha256: Of the stream.
        data: The stream; null if it was sent by PUT to the task's `upload`.
    """

    word: ClassVar[str] = "partial"
    attempt: str
    plan_hash: str
    input_sha256: str
    engine: str
    sha256: str
    data: bytes | None


@dataclass(frozen=True, slots=True)
class Failed(Message):
    """An attempt has ended without a result.

    Args:
        attempt: The attempt.
        code: A code of `docs/errors.md`; `unsupported` if the runtime lacks something.
        message: What happened.
    """

    word: ClassVar[str] = "failed"
    attempt: str
    code: str
    message: str


@dataclass(frozen=True, slots=True)
class Drain(Message):
    """From a worker: it finishes its tasks and wants no more. From the node: it is about to close."""

    word: ClassVar[str] = "drain"


@dataclass(frozen=True, slots=True)
class Welcome(Message):
    """The answer to `hello`.

    Args:
        version: Of the protocol.
        worker: The worker's id.
        resume: For the next `hello`, within `grace_seconds` after the connection was lost.
        grace_seconds: How long the node waits for it.
        lease_seconds: After this time without a `renew` an attempt is reassigned.
        inline_bytes_max: The longest stream in a `partial`.
        result_bytes_max: The longest stream of all.
        attempts: Those that the node waits for; the worker drops all others.
    """

    word: ClassVar[str] = "welcome"
    version: int
    worker: str
    resume: str
    grace_seconds: float
    lease_seconds: float
    inline_bytes_max: int
    result_bytes_max: int
    attempts: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Task(Message):
    """An attempt at a task.

    Args:
        attempt: The attempt's id, as in the spec.
        spec: The task (`TaskSpec`). Its only input is an Arrow IPC stream.
        plan_hash: SHA-256 of the plan's canonical JSON.
        input: Path below the node's address; for GET, with ranges, until the attempt ends.
        input_bytes: Its size.
        input_sha256: Its SHA-256, which is its ETag too.
        schema: The columns of the result.
        upload: Path for PUT of a result over the inline limit, with the header X-Sha256.
        lease_seconds: As of `welcome`.
    """

    word: ClassVar[str] = "task"
    attempt: str
    spec: Mapping[str, Any]
    plan_hash: str
    input: str
    input_bytes: int
    input_sha256: str
    schema: Mapping[str, Any]
    upload: str
    lease_seconds: float


@dataclass(frozen=True, slots=True)
class Cancel(Message):
    """The attempt's result is not wanted; the worker stops it and answers nothing."""

    word: ClassVar[str] = "cancel"
    attempt: str


@dataclass(frozen=True, slots=True)
class Ack(Message):
    """The attempt's `partial` or `failed` has arrived; the worker need not send it again."""

    word: ClassVar[str] = "ack"
    attempt: str


FromWorker: TypeAlias = Hello | Credit | Renew | Partial | Failed | Drain
M = TypeVar("M")

FROM_WORKER: Mapping[str, type[FromWorker]] = {
    each.word: each for each in (Hello, Credit, Renew, Partial, Failed, Drain)
}
FROM_NODE: Mapping[str, type[Message]] = {
    each.word: each for each in (Welcome, Task, Cancel, Ack, Drain)
}


def encode(message: Message) -> bytes:
    """Return a message as it is sent."""
    members = {camel_case(each.name): getattr(message, each.name) for each in fields(message)}
    packed: bytes = ormsgpack.packb({"word": message.word, **members})
    return packed


def read_from_worker(frame: bytes) -> FromWorker:
    """Read a message from a worker, which may be hostile.

    Raises:
        BadInput: It is not a message of this version, or has a member outside its range.
    """
    if len(frame) > MESSAGE_BYTES_MAX:
        raise _bad(f"it has {len(frame):,} bytes, at most {MESSAGE_BYTES_MAX:,} are read")
    message = _read(frame, FROM_WORKER)
    for each in fields(message):
        check = _CHECKS[message.word, each.name]
        if not check(getattr(message, each.name)):
            raise _bad(f"{message.word}.{camel_case(each.name)} is out of its range")
    return message


def read_from_node(frame: bytes) -> Message:
    """Read a message from a node; a worker's side, for tests."""
    return _read(frame, FROM_NODE)


def _read(frame: bytes, kinds: Mapping[str, type[M]]) -> M:
    try:
        members = ormsgpack.unpackb(frame)
    except (ValueError, TypeError, RecursionError) as problem:
        raise _bad(f"it is not MessagePack: {problem}") from None
    if not isinstance(members, dict):
        raise _bad("it is not a map")
    word = members.pop("word", None)
    kind = kinds.get(word) if isinstance(word, str) else None
    if kind is None:
        raise _bad(f"its word is {str(word)[:32]!r}, not one of {', '.join(kinds)}")
    names = {camel_case(each.name): each.name for each in fields(kind)}  # type: ignore[arg-type]
    if set(members) != set(names):
        raise _bad(f"the members of {word} are {', '.join(names) or 'none'}")
    values = {
        names[name]: tuple(value) if isinstance(value, list) else value
        for name, value in members.items()
    }
    return kind(**values)


def _bad(reason: str) -> BadInput:
    return BadInput("a message of a worker", reason=reason)


_Check: TypeAlias = Callable[[Any], bool]


def _text(pattern: re.Pattern[str]) -> _Check:
    return lambda value: isinstance(value, str) and pattern.fullmatch(value) is not None


def _number(low: int, high: int) -> _Check:
    return lambda value: type(value) is int and low <= value <= high


def _texts(pattern: re.Pattern[str], most: int) -> _Check:
    one = _text(pattern)
    return lambda value: isinstance(value, tuple) and len(value) <= most and all(map(one, value))


def _or_null(check: _Check) -> _Check:
    return lambda value: value is None or check(value)


def _short(most: int) -> _Check:
    return lambda value: isinstance(value, str) and len(value) <= most


def _stream(value: Any) -> bool:
    return isinstance(value, bytes) and len(value) <= INLINE_BYTES_MAX


# Of every member of every message from a worker: one without a check is a KeyError in tests.
_CHECKS: Mapping[tuple[str, str], _Check] = {
    # Any number: the node answers another version with a reason.
    ("hello", "version"): _number(0, 1 << 31),
    ("hello", "engine"): _text(_WORD),
    ("hello", "kind"): _text(_WORD),
    ("hello", "threads"): _number(1, 1024),
    ("hello", "cached"): _texts(_HASH, CACHED_MAX),
    ("hello", "resume"): _or_null(_text(_SECRET)),
    ("hello", "attempts"): _texts(_ATTEMPT, ATTEMPTS_MAX),
    ("hello", "functions"): lambda value: isinstance(value, bool),
    ("credit", "n"): _number(1, ATTEMPTS_MAX),
    ("renew", "attempt"): _text(_ATTEMPT),
    ("renew", "bytes_done"): _number(0, _NUMBER_MAX),
    ("partial", "attempt"): _text(_ATTEMPT),
    ("partial", "plan_hash"): _text(_HASH),
    ("partial", "input_sha256"): _text(_HASH),
    ("partial", "engine"): _text(_WORD),
    ("partial", "sha256"): _text(_HASH),
    ("partial", "data"): _or_null(_stream),
    ("failed", "attempt"): _text(_ATTEMPT),
    ("failed", "code"): _short(_TEXT_MAX),
    ("failed", "message"): _short(_ERROR_MAX),
}
