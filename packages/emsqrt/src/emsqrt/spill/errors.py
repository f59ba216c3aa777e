"""Errors of spilling; each message says what to do, and all are subclasses of `SpillError`.

```
SpillError
  SpillFull     (StorageFull)   the disk is full, or the quota is used up
  SpillLost     (Unavailable)   the disk or the store does not respond, or refuses
  SpillDamaged  (Corrupt)       bytes differ from what was written; they are never used
```
"""

from __future__ import annotations

import errno
from dataclasses import dataclass

from sennit_core.errors import Corrupt, SennitError, StorageFull, Unavailable
from sennit_core.units import format_bytes

# No space on the device, the user's disk quota, the file system's largest file.
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


class SpillError(SennitError):
    """Spilling failed: the result was not finished, and no part of it is returned."""


@dataclass(eq=False)
class SpillFull(StorageFull, SpillError):
    """The disk at `path` is full; `quota_bytes` is set if the spill quota is used up instead."""

    code = "spill-full"
    quota_bytes: int | None = None

    def describe(self) -> str:
        """Name the path, and whether the disk or the quota is full."""
        if self.quota_bytes is None:
            return super().describe()
        return f"the spill quota of {format_bytes(self.quota_bytes)} at {self.path} is used up"


@dataclass(eq=False)
class SpillLost(Unavailable, SpillError):
    """The disk or store does not respond; `reason` is its last error."""

    code = "spill-lost"
    reason: str = ""

    def describe(self) -> str:
        """Name the disk or store and its last error."""
        return f"spilling to {self.what} failed{f': {self.reason}' if self.reason else ''}"


@dataclass(eq=False)
class SpillDamaged(Corrupt, SpillError):
    """A spilled block differs from what was written."""

    code = "spill-damaged"


def spill_error(error: OSError, place: str, needed_bytes: int | None = None) -> SpillError:
    """Return the error for a failed system call at `place`."""
    if error.errno in _FULL:
        hint = "free disk space, or use another folder: spill_dir, EMSQRT_SPILL_DIR"
        return SpillFull(path=place, needed_bytes=needed_bytes, hint=hint)
    hint = "use another folder: spill_dir, EMSQRT_SPILL_DIR"
    if error.errno in (errno.EEXIST, errno.ENOTDIR):
        return SpillLost(place, reason="a part of this path is not a folder", hint=hint)
    return SpillLost(place, reason=error.strerror or type(error).__name__, hint=hint)
