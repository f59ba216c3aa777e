"""Elkyn's own errors; each is one of `sennit_core.errors` with the tree's fields."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from sennit_core.errors import Conflict, UsageError

__all__ = ["BadPath", "BadValue", "PositionGone", "PreconditionFailed", "StoreInUse"]


@dataclass(eq=False)
class BadPath(UsageError):
    """A path that no tree can hold: a forbidden character, a key too long, too many levels."""

    code = "bad-path"
    message: str = field(default="", kw_only=True)
    path: str
    reason: str = ""

    def describe(self) -> str:
        """Name the path and what is wrong with it."""
        return f"path {_shorten(self.path)}: {self.reason}"


@dataclass(eq=False)
class BadValue(UsageError):
    """A value that the tree cannot hold; `path` is the place inside the tree that breaks."""

    code = "bad-value"
    message: str = field(default="", kw_only=True)
    path: str
    reason: str = ""

    def describe(self) -> str:
        """Name the place and what is wrong there."""
        return f"value at {_shorten(self.path)}: {self.reason}"


@dataclass(eq=False)
class StoreInUse(Conflict):
    """Another process, or another store of this one, has the same folder open."""

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
    """A conditional write found another value; `value` and `etag` are what stands there now."""

    code = "precondition-failed"
    message: str = field(default="", kw_only=True)
    path: str
    value: Any = None
    etag: str = ""

    def describe(self) -> str:
        """Name the place whose value has moved on."""
        return f"{self.path} has changed: its etag is {self.etag} now"


@dataclass(eq=False)
class PositionGone(Conflict):
    """The log does not reach from `after` any more, or not yet; a fresh snapshot is needed."""

    code = "position-gone"
    message: str = field(default="", kw_only=True)
    after: int
    first: int
    last: int

    def describe(self) -> str:
        """Name the position and what the log holds."""
        return f"the log cannot be read after {self.after}: it holds {self.first} to {self.last}"


def _shorten(path: str, limit: int = 200) -> str:
    return path if len(path) <= limit else f"{path[:limit]}… ({len(path)} characters)"
