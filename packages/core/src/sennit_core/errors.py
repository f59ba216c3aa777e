"""All errors of Sennit, named for what the caller can do about them.

```
SennitError
  UsageError (ValueError)
    BadInput
    SqlError
    UnknownColumn
    Unsupported
  NotFound (LookupError)
  Conflict
  Denied (PermissionError)
    Unauthenticated
    WaitingToJoin
  Closed
  Busy
  CapacityError
    CapTooSmall (MemoryError)
    MemoryCapExceeded (MemoryError)
    StorageFull (OSError)
    TooLarge
  DeadlineExceeded (TimeoutError)
  Cancelled
  Unavailable
    WorkerLost
  Corrupt
  InternalError
  RemoteError
```

Each class has a `code` (its name on the wire), says whether trying again may help (`retryable`),
and carries its data as fields. Packages subclass these and never define their own root class:

    @dataclass(eq=False)
    class ProducerDied(Unavailable):
        code = "producer-died"
        pid: int = 0

A class without a `code` of its own is sent under its parent's code. `eq=False` keeps errors
hashable.
"""

from __future__ import annotations

import errno
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from math import isfinite
from os import PathLike, fspath
from typing import Any, ClassVar

from sennit_core.text import camel_case, nearest, shorten_list

__all__ = [
    "BadInput",
    "Busy",
    "Cancelled",
    "CapTooSmall",
    "CapacityError",
    "Closed",
    "Conflict",
    "Corrupt",
    "DeadlineExceeded",
    "Denied",
    "InternalError",
    "MemoryCapExceeded",
    "NotFound",
    "RemoteError",
    "SennitError",
    "SqlError",
    "StorageFull",
    "TooLarge",
    "Unauthenticated",
    "Unavailable",
    "UnknownColumn",
    "Unsupported",
    "UsageError",
    "WaitingToJoin",
    "WorkerLost",
    "error_from_json",
    "nearest",
]

_BY_CODE: dict[str, type[SennitError]] = {}


def _rebuild(cls: type[SennitError], values: dict[str, Any]) -> SennitError:
    return cls(**values)


@dataclass(eq=False)
class SennitError(Exception):
    """The root: catch this to catch everything Sennit raises on purpose.

    Args:
        message: the sentence shown; when empty, classes with fields compose one from them.
        hint: what to do next; shown under the traceback and sent as a field of its own.
    """

    code = "error"
    retryable: ClassVar[bool] = False

    message: str = field(default="", kw_only=True)
    hint: str | None = field(default=None, kw_only=True)

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "code" not in cls.__dict__:
            return
        owner = _BY_CODE.get(cls.code)
        if owner is not None and _full_name(owner) != _full_name(cls):
            raise TypeError(f"error code {cls.code!r} already belongs to {_full_name(owner)}")
        _BY_CODE[cls.code] = cls

    def __post_init__(self) -> None:
        if self.hint:
            self.add_note(f"hint: {self.hint}")

    @property
    def docs(self) -> str:
        """The place in the documentation that explains this error."""
        return f"docs/errors.md#{self.code}"

    def describe(self) -> str:
        """Compose the sentence from the fields; used when `message` is empty."""
        return ""

    def __str__(self) -> str:
        return self.message or self.describe() or type(self).__name__

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), {f.name: getattr(self, f.name) for f in fields(self)})

    def to_json(self) -> dict[str, Any]:
        """Return the wire form: `error`, `code`, `hint`, `details` (camelCase fields)."""
        details = {
            camel_case(f.name): getattr(self, f.name)
            for f in fields(self)
            if f.name not in ("message", "hint", "code", "details")
        }
        wire = {"error": str(self), "code": self.code, "hint": self.hint, "details": details}
        return {name: _plain(value) for name, value in wire.items()}


@dataclass(eq=False)
class UsageError(SennitError, ValueError):
    """The request is invalid; change it."""

    code = "usage"
    message: str = ""


@dataclass(eq=False)
class UnknownColumn(UsageError):
    """The schema has no column of this name; `suggestion` is the nearest name it has."""

    code = "unknown-column"
    message: str = field(default="", kw_only=True)
    name: str
    known: Sequence[str] = ()
    suggestion: str | None = None

    def __post_init__(self) -> None:
        self.known = tuple(self.known)
        self.suggestion = self.suggestion or nearest(self.name, self.known)
        if self.suggestion and not self.hint:
            self.hint = f'did you mean "{self.suggestion}"?'
        super().__post_init__()

    def describe(self) -> str:
        """Name the column and those that exist."""
        columns = f"; the columns are {shorten_list(self.known)}" if self.known else ""
        return f'there is no column "{self.name}"{columns}'


@dataclass(eq=False)
class SqlError(UsageError):
    """SQL that does not parse or resolve; `line` and `column` count from 1, `offset` from 0."""

    code = "sql"
    line: int | None = None
    column: int | None = None
    offset: int | None = None


@dataclass(eq=False)
class Unsupported(UsageError):
    """The request is well-formed, but this version, engine or platform does not support it."""

    code = "unsupported"


@dataclass(eq=False)
class BadInput(UsageError):
    """A file or stream breaks its format; `line` counts from 1, `byte_offset` from 0."""

    code = "bad-input"
    message: str = field(default="", kw_only=True)
    what: str
    line: int | None = None
    byte_offset: int | None = None
    reason: str = ""

    def describe(self) -> str:
        """Say where the input breaks and how."""
        line = None if self.line is None else f"line {self.line}"
        offset = None if self.byte_offset is None else f"byte {self.byte_offset}"
        place = ", ".join(part for part in (line, offset) if part)
        return f"{self.what}{f' ({place})' if place else ''}: {self.reason or 'malformed'}"


@dataclass(eq=False)
class NotFound(SennitError, LookupError):
    """There is no `kind` with this `name`; `suggestion` is the nearest existing name."""

    code = "not-found"
    kind: str
    name: str = ""
    suggestion: str | None = None

    def __post_init__(self) -> None:
        if self.suggestion and not self.hint:
            self.hint = f'did you mean "{self.suggestion}"?'
        super().__post_init__()

    def describe(self) -> str:
        """Name the missing object."""
        return f'there is no {self.kind} "{self.name}"' if self.name else f"no such {self.kind}"


@dataclass(eq=False)
class Conflict(SennitError):
    """The request conflicts with an earlier change by this or another client."""

    code = "conflict"
    message: str = ""


@dataclass(eq=False)
class Denied(SennitError, PermissionError):
    """The caller is authenticated but not authorized; `needed` is the missing role or right."""

    code = "denied"
    action: str
    needed: str | None = None

    def describe(self) -> str:
        """Name the action and what it needs."""
        needs = f"; it needs {self.needed}" if self.needed else ""
        return f"not allowed: {self.action}{needs}"


@dataclass(eq=False)
class Unauthenticated(Denied):
    """The caller is not authenticated: the token is missing or invalid."""

    code = "unauthenticated"

    def describe(self) -> str:
        """Name the action, and what it needs."""
        needed = f"; it needs {self.needed}" if self.needed else ""
        return f"not signed in: {self.action}{needed}"


@dataclass(eq=False)
class WaitingToJoin(Denied):
    """A node that asked to join a network must be accepted at the node that it asked."""

    code = "waiting-to-join"


@dataclass(eq=False)
class Closed(SennitError):
    """`what` has already been closed."""

    code = "closed"
    what: str

    def describe(self) -> str:
        """Name what is closed."""
        return f"{self.what} is closed"


@dataclass(eq=False)
class Busy(SennitError):
    """The queue is full; try again shortly."""

    code = "busy"
    retryable = True
    message: str = ""


@dataclass(eq=False)
class CapacityError(SennitError):
    """A limit of memory, disk or size was reached."""

    code = "capacity"
    message: str = ""


@dataclass(eq=False)
class MemoryCapExceeded(CapacityError, MemoryError):
    """The work reached its memory cap; raise the cap or ask for less."""

    code = "memory-cap-exceeded"
    message: str = field(default="", kw_only=True)
    cap_bytes: int
    asked_bytes: int = 0
    what: str = "the work"

    def describe(self) -> str:
        """Name the cap, the bytes requested, and what requested them."""
        asked = f" asked for {_size(self.asked_bytes)}" if self.asked_bytes else ""
        return f"{self.what}{asked}, over the memory cap of {_size(self.cap_bytes)}"


@dataclass(eq=False)
class CapTooSmall(CapacityError, MemoryError):
    """Raised before the work starts: the memory cap is too small, `needed_bytes` would do."""

    code = "cap-too-small"
    message: str = field(default="", kw_only=True)
    cap_bytes: int
    needed_bytes: int
    because: str = ""

    def describe(self) -> str:
        """Name the cap, the need and its reason."""
        because = f": {self.because}" if self.because else ""
        sizes = f"{_size(self.cap_bytes)} is too small, at least {_size(self.needed_bytes)}"
        return f"a memory cap of {sizes} is needed{because}"


@dataclass(eq=False)
class StorageFull(CapacityError, OSError):
    """The disk is full; data that was stored before is intact."""

    code = "storage-full"
    message: str = field(default="", kw_only=True)
    path: str | PathLike[str]
    needed_bytes: int | None = None
    free_bytes: int | None = None

    def __post_init__(self) -> None:
        self.path = fspath(self.path)
        self.errno = errno.ENOSPC
        super().__post_init__()

    def describe(self) -> str:
        """Name the path, the bytes needed and the bytes free."""
        needed = "" if self.needed_bytes is None else f": {_size(self.needed_bytes)} needed"
        free = "" if self.free_bytes is None else f", {_size(self.free_bytes)} free"
        return f"no space left at {fspath(self.path)}{needed}{free}"


@dataclass(eq=False)
class TooLarge(CapacityError):
    """`what` is larger than its limit."""

    code = "too-large"
    message: str = field(default="", kw_only=True)
    what: str
    limit_bytes: int
    actual_bytes: int | None = None

    def describe(self) -> str:
        """Name `what`, its size and the limit."""
        actual = "" if self.actual_bytes is None else f" of {_size(self.actual_bytes)}"
        return f"{self.what}{actual} is over the limit of {_size(self.limit_bytes)}"


@dataclass(eq=False)
class DeadlineExceeded(SennitError, TimeoutError):
    """`what` did not finish within `seconds`."""

    code = "deadline-exceeded"
    what: str
    seconds: float | None = None

    def describe(self) -> str:
        """Name the operation and its time limit."""
        limit = "its deadline" if self.seconds is None else f"{self.seconds:g} s"
        return f"{self.what} did not finish within {limit}"


@dataclass(eq=False)
class Cancelled(SennitError):
    """`what` was stopped because a client or caller cancelled it."""

    code = "cancelled"
    what: str = "the work"

    def describe(self) -> str:
        """Name what was stopped."""
        return f"{self.what} was cancelled"


@dataclass(eq=False)
class Unavailable(SennitError):
    """`what` cannot be reached at the moment; trying again may help."""

    code = "unavailable"
    retryable = True
    what: str

    def describe(self) -> str:
        """Name what is missing."""
        return f"{self.what} is unavailable"


@dataclass(eq=False)
class WorkerLost(Unavailable):
    """The process that did the work has ended; the work may be retried."""

    code = "worker-lost"
    what: str = field(default="worker", kw_only=True)
    worker: str
    reason: str = ""

    def describe(self) -> str:
        """Name the worker and why it was lost."""
        return f"{self.what} {self.worker} was lost{f': {self.reason}' if self.reason else ''}"


@dataclass(eq=False)
class Corrupt(SennitError):
    """Stored or received bytes do not match their checksum or format; they are never used."""

    code = "corrupt"
    what: str
    expected: str | None = None
    found: str | None = None

    def describe(self) -> str:
        """Name the damaged thing, what was expected and what was found."""
        expected = "" if self.expected is None else f": expected {self.expected}"
        found = "" if self.found is None else f", found {self.found}"
        return f"{self.what} is damaged{expected}{found}"


@dataclass(eq=False)
class InternalError(SennitError):
    """A bug in Sennit; please report it."""

    code = "internal"
    message: str = ""


@dataclass(eq=False)
class RemoteError(SennitError):
    """An error from another process whose class is unknown here; its code and data are kept."""

    message: str = ""
    code: str = "remote"
    details: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return the wire form as it was received."""
        return {**super().to_json(), "details": _plain(self.details)}


def error_from_json(document: Mapping[str, Any]) -> SennitError:
    """Rebuild an error from its wire form.

    A known `code` yields its class with fields from `details` (fields that this version does not
    know are ignored); an unknown code, or details that lack a required field, yield `RemoteError`.
    """
    message = str(document.get("error") or "")
    code = str(document.get("code") or "remote")
    hint = None if document.get("hint") is None else str(document["hint"])
    details = document.get("details") or {}
    cls = _BY_CODE.get(code)
    if cls is not None and isinstance(details, Mapping):
        known = {camel_case(f.name): f.name for f in fields(cls) if f.init}
        values = {known[k]: _tupled(v) for k, v in details.items() if k in known}
        try:
            error = cls(**values, hint=hint)
            sentence = str(error)
        except (TypeError, ValueError, AttributeError):  # details do not fit the class
            pass
        else:
            error.message = message if message != sentence else error.message
            return error
    kept = details if isinstance(details, Mapping) else {"details": details}
    return RemoteError(message, code=code, details=dict(kept), hint=hint)


def _full_name(cls: type) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"


def _size(count: int) -> str:
    from sennit_core.units import format_bytes

    return format_bytes(count)


def _plain(value: Any) -> Any:
    """Convert a field's value for JSON and MessagePack; unsupported values become text."""
    if isinstance(value, Mapping):
        return {_plain(str(key)): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_plain(item) for item in value]
    if isinstance(value, PathLike):
        value = fspath(value)
    if isinstance(value, str):  # half a surrogate pair has no UTF-8
        return value.encode("utf-8", "backslashreplace").decode("utf-8")
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int) and -(1 << 63) <= value < 1 << 64:
        return value
    if isinstance(value, float) and isfinite(value):
        return value
    return str(value)


def _tupled(value: Any) -> Any:
    return tuple(map(_tupled, value)) if isinstance(value, list) else value
