"""What can go wrong in the lake beyond the shared errors."""

from __future__ import annotations

from dataclasses import dataclass, field

from sennit_core.errors import Conflict

__all__ = ["UploadIncomplete"]


@dataclass(eq=False)
class UploadIncomplete(Conflict):
    """An upload was completed while parts of it are missing.

    Args:
        missing: Indexes of the missing parts, in order, at most the first hundred.
    """

    missing: list[int] = field(default_factory=list)
    code = "upload-incomplete"
