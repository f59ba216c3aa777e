"""Errors of a ring, named for what the caller can do about them.

```
Corrupt
  CorruptRecord            acknowledge it to continue after it
  HeaderError              not a ring, or a damaged one
    SegmentTooSmall BadMagic BadVersion BadChecksum BadSchemaLength UnknownField
    FingerprintMismatch BadStride BadGeometry BadMetadata NoExtension
Unavailable
  ProducerDied ConsumerDied
Cancelled      StrandAbortError
TooLarge       PayloadTooLarge
CapacityError  RingExhausted
Conflict       RoleTaken LeaseHeld
Closed         RoleInherited
RemoteError    RemoteFailure
```
"""

from __future__ import annotations

from dataclasses import dataclass, field

from sennit_core.errors import (
    Cancelled,
    CapacityError,
    Closed,
    Conflict,
    Corrupt,
    RemoteError,
    TooLarge,
    Unavailable,
)

__all__ = [
    "BadChecksum",
    "BadGeometry",
    "BadMagic",
    "BadMetadata",
    "BadSchemaLength",
    "BadStride",
    "BadVersion",
    "ConsumerDied",
    "CorruptRecord",
    "FingerprintMismatch",
    "LeaseHeld",
    "NoExtension",
    "PayloadTooLarge",
    "ProducerDied",
    "RemoteFailure",
    "RingExhausted",
    "RoleInherited",
    "RoleTaken",
    "SegmentTooSmall",
    "StrandAbortError",
    "StrandHeaderError",
    "StreamReset",
    "UnknownField",
]


@dataclass(eq=False)
class StrandHeaderError(Corrupt):
    """The segment is not a ring, or its header is damaged; do not use it."""

    code = "strand-header"
    what: str = "the ring's header"


class SegmentTooSmall(StrandHeaderError):
    """The segment is smaller than a header."""


class BadMagic(StrandHeaderError):
    """The first four bytes are not a ring's, or its creator has not finished the header."""


class BadVersion(StrandHeaderError):
    """The layout version is not supported by this package."""


class BadChecksum(StrandHeaderError):
    """The static header's FNV-1a does not match."""


class BadSchemaLength(StrandHeaderError):
    """The schema's length does not fit its field count or the header."""


class UnknownField(StrandHeaderError):
    """A field type or flag this version does not know."""


class FingerprintMismatch(StrandHeaderError):
    """The hash of the schema's bytes differs from the one in the header."""


class BadStride(StrandHeaderError):
    """The fields do not fit the record stride."""


class BadGeometry(StrandHeaderError):
    """A capacity is not a power of two, or does not fit the segment."""


class BadMetadata(StrandHeaderError):
    """The metadata is not a JSON object that names every column."""


class NoExtension(StrandHeaderError):
    """A plain v5 ring has no room for the counters that roles in this package need."""


@dataclass(eq=False)
class CorruptRecord(Corrupt):
    """One record cannot be decoded; acknowledge up to `record + 1` to continue after it."""

    code = "corrupt-record"
    record: int = 0

    def describe(self) -> str:
        """Name the record, its field and the error."""
        return f"record {self.record}: {super().describe()}"


@dataclass(eq=False)
class ProducerDied(Unavailable):
    """The producer's process died before it ended the stream; published records were delivered."""

    code = "producer-died"
    what: str = "the ring's producer"
    pid: int = 0

    def describe(self) -> str:
        """Name the process."""
        return f"{self.what} (pid {self.pid}) died before the end of the stream"


@dataclass(eq=False)
class ConsumerDied(Unavailable):
    """The ring has no consumer any more: the process died, or it closed its view."""

    code = "consumer-died"
    what: str = "the ring's consumer"
    pid: int = 0
    reason: str = "died"

    def describe(self) -> str:
        """Name the process, and whether it died or closed its view."""
        return f"{self.what} (pid {self.pid}) {self.reason}, and the ring is full"


@dataclass(eq=False)
class StrandAbortError(Cancelled):
    """One side aborted the stream, for `reason`."""

    code = "strand-abort"
    what: str = "the stream"
    reason: str = ""

    def describe(self) -> str:
        """Name the reason."""
        return f"{self.what} was aborted{f': {self.reason}' if self.reason else ''}"


@dataclass(eq=False)
class PayloadTooLarge(TooLarge):
    """One record needs more than half of the heap; slice it, or open the ring with a larger one."""

    code = "payload-too-large"
    what: str = field(default="a record's payload", kw_only=True)


@dataclass(eq=False)
class RingExhausted(CapacityError):
    """A v5 ring has carried as many records as its 31-bit counters allow; use version 6."""

    code = "ring-exhausted"


@dataclass(eq=False)
class RoleTaken(Conflict):
    """Another process is this ring's producer or consumer."""

    code = "role-taken"
    message: str = field(default="", kw_only=True)
    role: str
    pid: int = 0

    def describe(self) -> str:
        """Name the role and its holder."""
        return f"the ring already has a {self.role} (pid {self.pid})"


@dataclass(eq=False)
class LeaseHeld(Conflict):
    """A payload is still referenced where it must be acknowledged; copy it or drop it first."""

    code = "lease-held"


@dataclass(eq=False)
class RoleInherited(Closed):
    """A role acquired before `fork` stays with the parent; acquire one in the child."""

    code = "role-inherited"
    what: str = "a role inherited through fork"


@dataclass(eq=False)
class StreamReset(Conflict):
    """The producer began a new stream in this ring; read it from record 0."""

    code = "stream-reset"


@dataclass(eq=False)
class RemoteFailure(RemoteError):
    """The generator of a pipe raised; `__cause__` is its error, when that can be rebuilt here."""

    kind: str = ""
    """The error's class, with its module unless that is builtins."""
    remote_traceback: str = ""
    """The traceback in the other process, as text."""

    def __post_init__(self) -> None:
        """Add the other process's traceback as a note."""
        super().__post_init__()
        if self.remote_traceback:
            self.add_note(f"in the pipe's process:\n{self.remote_traceback}")
