"""What the record of an upload has if its client speaks tus (https://tus.io/protocols/resumable-upload)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

__all__ = ["TusUpload"]


@dataclass(frozen=True, slots=True)
class TusUpload:
    """The members of an upload that only tus knows.

    Args:
        metadata: The header Upload-Metadata of its creation, which HEAD repeats.
        partial: Whether it is one of several uploads to concatenate, and no file of its own.
        sources: Ids of the uploads that it was made of, in order; empty if its bytes were sent to it.
    """

    metadata: str = ""
    partial: bool = False
    sources: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return the form of `upload.json`."""
        return {"metadata": self.metadata, "partial": self.partial, "sources": list(self.sources)}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> TusUpload:
        """Read the form of `to_json`."""
        return cls(str(data["metadata"]), bool(data["partial"]), tuple(data["sources"]))
