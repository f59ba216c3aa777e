"""Elkyn's errors: subclasses of those in `sennit_core.errors` with the tree's fields."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from sennit_core.errors import (
    CapacityError,
    Conflict,
    DeadlineExceeded,
    Denied,
    NotFound,
    SennitError,
    Unavailable,
    UsageError,
)

__all__ = [
    "BadPath",
    "BadRules",
    "BadValue",
    "Diverged",
    "NotLeader",
    "NotReadable",
    "NotReplicated",
    "NotSynced",
    "OtherFormat",
    "PositionGone",
    "PreconditionFailed",
    "Problem",
    "ReplicaLag",
    "StoreInUse",
    "TooManyNodes",
    "UnknownHost",
    "UnknownNamespace",
]

_PROBLEMS_SHOWN = 5


@dataclass(eq=False)
class BadPath(UsageError):
    """A path that is invalid: a forbidden character, a key too long, too many levels."""

    code = "bad-path"
    message: str = field(default="", kw_only=True)
    path: str
    reason: str = ""

    def describe(self) -> str:
        """Name the path and the limit that it breaks."""
        return f"path {_shorten(self.path)}: {self.reason}"


@dataclass(eq=False)
class BadValue(UsageError):
    """A value that the tree cannot store; `path` is the path of the invalid part."""

    code = "bad-value"
    message: str = field(default="", kw_only=True)
    path: str
    reason: str = ""

    def describe(self) -> str:
        """Name the path and the problem."""
        return f"value at {_shorten(self.path)}: {self.reason}"


class Problem(NamedTuple):
    """One reason for refusing rules; `line` and `column` count from 1, `path` names the rule."""

    line: int
    column: int
    path: str
    text: str

    def __str__(self) -> str:
        at = f" ({self.path})" if self.path else ""
        return f"line {self.line}, column {self.column}{at}: {self.text}"


@dataclass(eq=False)
class BadRules(UsageError):
    """Invalid rules; `problems` lists the reasons, in the order of the file."""

    code = "bad-rules"
    message: str = field(default="", kw_only=True)
    problems: Sequence[Problem]

    def __post_init__(self) -> None:
        self.problems = tuple(Problem(*problem) for problem in self.problems)
        super().__post_init__()

    def describe(self) -> str:
        """Name the first problems."""
        shown = "; ".join(map(str, self.problems[:_PROBLEMS_SHOWN]))
        more = len(self.problems) - _PROBLEMS_SHOWN
        return f"{shown}; and {more} more" if more > 0 else shown


@dataclass(eq=False)
class StoreInUse(Conflict):
    """Another process, or another store in this process, has the same folder open."""

    code = "store-in-use"
    message: str = field(default="", kw_only=True)
    path: str
    pid: int | None = None

    def describe(self) -> str:
        """Name the folder and its owner."""
        owner = "another store" if self.pid is None else f"process {self.pid}"
        return f"the store at {self.path} is open in {owner}"


@dataclass(eq=False)
class PreconditionFailed(Conflict):
    """A conditional write found another value; `value` and `etag` are the current ones."""

    code = "precondition-failed"
    message: str = field(default="", kw_only=True)
    path: str
    value: Any = None
    etag: str = ""

    def describe(self) -> str:
        """Name the path whose value has changed."""
        return f"{self.path} has changed: its etag is {self.etag} now"


@dataclass(eq=False)
class PositionGone(Conflict):
    """The log no longer (or not yet) continues from `after`; a fresh snapshot is needed."""

    code = "position-gone"
    message: str = field(default="", kw_only=True)
    after: int
    first: int
    last: int

    def describe(self) -> str:
        """Name the position and the range of the log."""
        return f"the log cannot be read after {self.after}: it holds {self.first} to {self.last}"


@dataclass(eq=False)
class NotLeader(Conflict):
    """This store is not the leader: it follows another store, or another one was promoted.

    `term` is the latest known term.
    """

    code = "not-leader"
    message: str = field(default="", kw_only=True)
    term: int

    def describe(self) -> str:
        """Name the term of the current leader."""
        return f"another store leads since term {self.term}: this one refuses writes"


@dataclass(eq=False)
class NotReplicated(DeadlineExceeded):
    """A write is durable on the leader, but too few replicas have acknowledged it in time."""

    code = "not-replicated"
    message: str = field(default="", kw_only=True)
    what: str = field(default="replication", kw_only=True)
    seconds: float | None = field(default=None, kw_only=True)
    position: int
    wanted: int
    reached: int

    def describe(self) -> str:
        """Name the position, and how many replicas have acknowledged it."""
        return (
            f"the write is durable on the leader at position {self.position}, "
            f"but only {self.reached} of {self.wanted} replicas have it"
        )


@dataclass(eq=False)
class ReplicaLag(DeadlineExceeded):
    """A replica has not reached a position in time."""

    code = "behind"
    message: str = field(default="", kw_only=True)
    what: str = field(default="replication", kw_only=True)
    seconds: float | None = field(default=None, kw_only=True)
    position: int
    wanted: int

    def describe(self) -> str:
        """Name both positions."""
        return f"this replica is at position {self.position}; the request needs {self.wanted}"


@dataclass(eq=False)
class NotReadable(Unavailable):
    """A follower whose data must not be read yet; a later request may succeed."""

    code = "not-readable"
    what: str = "this replica"


@dataclass(eq=False)
class NotSynced(NotReadable):
    """A follower has never received a full state of its leader."""

    code = "not-synced"

    def describe(self) -> str:
        """Explain what is missing, and how to diagnose it."""
        return (
            "this replica has not received its leader's state yet, so it cannot be read; "
            "try again, and check `elkyn replicas` if this persists"
        )


@dataclass(eq=False)
class Diverged(NotReadable):
    """A follower holds writes that its leader never had, and has not received the leader's state."""

    code = "diverged"

    def describe(self) -> str:
        """Explain why reads are refused."""
        return (
            "this replica may hold writes that its leader never had: "
            "it refuses reads until it has the leader's state; try again"
        )


@dataclass(eq=False)
class OtherFormat(SennitError):
    """A file whose format version is not supported; `oldest` to `newest` are."""

    code = "other-format"
    message: str = field(default="", kw_only=True)
    what: str
    version: int
    oldest: int
    newest: int

    def describe(self) -> str:
        """Name the versions, and how to export with the version that wrote the file."""
        newer = self.version > self.newest
        who = "a newer" if newer else "an older"
        do = "use that version, or export with it" if newer else "export with that version"
        return (
            f"{self.what} was written by {who} version of elkyn (format {self.version}; this one "
            f"reads {self.oldest} to {self.newest}) and was left as it is: {do} "
            "(elkyn export) and import the file here (elkyn import)"
        )


@dataclass(eq=False)
class UnknownNamespace(NotFound):
    """No namespace has this name; a request does not create one."""

    code = "unknown-namespace"
    kind: str = field(default="namespace", kw_only=True)
    name: str


@dataclass(eq=False)
class UnknownHost(Denied):
    """An emulator got a request with a Host, or from a page of an origin, that it does not serve.

    `host` is the name in the header; None when the header has none.
    """

    code = "unknown-host"
    action: str = field(default="reaching the emulator", kw_only=True)
    needed: str | None = field(default=None, kw_only=True)
    header: str
    value: str
    host: str | None = None

    def describe(self) -> str:
        """Name the header, and the option that allows its host."""
        refused = f"the emulator refuses the {self.header} header {_shorten(self.value)!r}"
        if self.host is None:
            return f"{refused}: it names no host"
        option = f"elkyn serve --emulator --allow-host {self.host}"
        return f"{refused}; to allow it, restart with: {option}"


def _shorten(path: str, limit: int = 200) -> str:
    return path if len(path) <= limit else f"{path[:limit]}… ({len(path)} characters)"


@dataclass(eq=False)
class TooManyNodes(CapacityError):
    """One value holds more nodes (scalars, maps and lists) than one write may hold."""

    code = "too-many-nodes"
    message: str = field(default="", kw_only=True)
    what: str
    limit: int

    def describe(self) -> str:
        """Name the value and the limit."""
        return f"{self.what} holds more than {self.limit:,} values: write it in parts"
