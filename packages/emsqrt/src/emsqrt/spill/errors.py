"""What can go wrong with spilled bytes; each says what to do about it, and all are `SpillError`.

```
SpillError
  SpillFull     (StorageFull)   no room left, or the quota is used up
  SpillLost     (Unavailable)   the disk or the store does not answer, or refuses
  SpillDamaged  (Corrupt)       bytes are not what was written; they are never used
```
"""

from __future__ import annotations

import errno
from dataclasses import dataclass

from sennit_core.errors import Corrupt, SennitError, StorageFull, Unavailable
from sennit_core.units import format_bytes

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


class SpillError(SennitError):
    """Spilling failed: the answer was not finished, and nothing of it is shown."""


@dataclass(eq=False)
class SpillFull(StorageFull, SpillError):
    """There is no room to spill at `path`; `quota_bytes` is set when a quota was reached."""

    code = "spill-full"
    quota_bytes: int | None = None

    def describe(self) -> str:
        """Name the place, and whether the disk or the quota ended it."""
        if self.quota_bytes is None:
            return super().describe()
        return f"the spill quota of {format_bytes(self.quota_bytes)} at {self.path} is used up"


@dataclass(eq=False)
class SpillLost(Unavailable, SpillError):
    """The place of the spilled bytes does not answer; `reason` is what it said last."""

    code = "spill-lost"
    reason: str = ""

    def describe(self) -> str:
        """Name the place and what it said."""
        return f"spilling to {self.what} failed{f': {self.reason}' if self.reason else ''}"


@dataclass(eq=False)
class SpillDamaged(Corrupt, SpillError):
    """A spilled block is not what was written."""

    code = "spill-damaged"


def spill_error(error: OSError, place: str, needed_bytes: int | None = None) -> SpillError:
    """Return the error that a failed system call at `place` means."""
    if error.errno in _FULL:
        hint = "free some room, or spill elsewhere: spill_dir, EMSQRT_SPILL_DIR"
        return SpillFull(path=place, needed_bytes=needed_bytes, hint=hint)
    hint = "name another folder: spill_dir, EMSQRT_SPILL_DIR"
    if error.errno in (errno.EEXIST, errno.ENOTDIR):
        return SpillLost(place, reason="a part of this path is no folder", hint=hint)
    return SpillLost(place, reason=error.strerror or type(error).__name__, hint=hint)
