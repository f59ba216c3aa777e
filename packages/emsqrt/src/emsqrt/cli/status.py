"""The exit status of each error."""

from __future__ import annotations

from emsqrt.termination import EXIT_INTERRUPTED
from sennit_core.errors import (
    BadInput,
    CapTooSmall,
    Corrupt,
    MemoryCapExceeded,
    NotFound,
    SennitError,
    StorageFull,
    UsageError,
)

__all__ = ["EXIT_FAILED", "EXIT_INTERRUPTED", "EXIT_STATUS", "exit_status"]

EXIT_FAILED = 1
# The first match counts, so a special case precedes its parent: `BadInput` is a `UsageError`.
EXIT_STATUS: tuple[tuple[type[SennitError] | str, int], ...] = (
    ("reader-gone", 0),
    ("expectation-failed", 6),
    (CapTooSmall, 3),
    (MemoryCapExceeded, 4),
    (StorageFull, 7),
    ("spill-lost", 7),
    ("spill-damaged", 7),
    (BadInput, 5),
    (Corrupt, 5),
    (NotFound, 5),
    (UsageError, 2),
)
"""The first entry that matches an error, by class or by code, is the exit status."""


def exit_status(error: SennitError) -> int:
    """Return the exit status of an error."""
    for kind, status in EXIT_STATUS:
        if error.code == kind if isinstance(kind, str) else isinstance(error, kind):
            return status
    return EXIT_FAILED
