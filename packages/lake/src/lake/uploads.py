"""What is known of one upload: a value, with the arithmetic of its parts."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from sennit_core.errors import UsageError

__all__ = ["SealedUpload", "UploadInfo"]

_NAME_MAX = 255
_SHA256 = re.compile(r"[0-9a-f]{64}")
_INDEX_MAX = 999_999


@dataclass(frozen=True)
class UploadInfo:
    """One upload.

    Args:
        id: The upload's id.
        dataset: Id that the dataset will have, known from the start.
        name: The file's name.
        size: Bytes of the whole file, None while unknown.
        sha256: Declared hex SHA-256 of the whole file.
        part_bytes: Bytes of every part but the last.
        mode: `create`, `append` or `replace`.
        options: Options of ingest.
        created_at: Unix seconds.
        state: `receiving` or `sealed`; the live tree also shows `ingesting` and `failed`.
        have: Indexes of the parts that are here, in order.
    """

    id: str
    dataset: str
    name: str
    size: int | None
    part_bytes: int
    sha256: str | None = None
    mode: str = "create"
    options: dict[str, Any] = field(default_factory=dict)
    created_at: float = 0.0
    state: str = "receiving"
    have: tuple[int, ...] = ()

    @property
    def parts(self) -> int | None:
        """How many parts the whole has; None while the size is unknown."""
        return None if self.size is None else -(-self.size // self.part_bytes)

    def expected_bytes(self, index: int) -> int:
        """Bytes of part `index`, at most, when the size is unknown."""
        parts = _INDEX_MAX + 1 if self.parts is None else self.parts
        if not 0 <= index < parts:
            raise UsageError(f"part {index} is outside upload {self.id}, which has {parts} parts")
        if self.size is None:
            return self.part_bytes
        return min(self.part_bytes, self.size - index * self.part_bytes)

    def missing(self, have: frozenset[int]) -> list[int]:
        """Indexes that are not in `have`, in order."""
        parts = (max(have) + 1 if have else 0) if self.parts is None else self.parts
        return [index for index in range(parts) if index not in have]

    def with_state(self, state: str, *, size: int | None = None) -> UploadInfo:
        """The same upload in another state."""
        return replace(self, state=state, size=self.size if size is None else size)

    def to_json(self) -> dict[str, Any]:
        """The upload as the routes answer it and as `upload.json` keeps it."""
        return {
            "uploadId": self.id,
            "datasetId": self.dataset,
            "name": self.name,
            "size": self.size,
            "sha256": self.sha256,
            "partBytes": self.part_bytes,
            "mode": self.mode,
            "options": self.options,
            "createdAt": self.created_at,
            "state": self.state,
            "have": list(self.have),
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> UploadInfo:
        """Inverse of `to_json`."""
        return cls(
            id=data["uploadId"],
            dataset=data["datasetId"],
            name=data["name"],
            size=data["size"],
            sha256=data["sha256"],
            part_bytes=data["partBytes"],
            mode=data["mode"],
            options=data["options"],
            created_at=data["createdAt"],
            state=data["state"],
            have=tuple(data["have"]),
        )


@dataclass(frozen=True)
class SealedUpload:
    """A complete upload: its parts' paths in order are the file's bytes.

    Args:
        upload: The upload, with its size known.
        paths: The part files, in order; none for an empty file.
        size: Bytes of the whole file.
    """

    upload: UploadInfo
    paths: tuple[Path, ...]
    size: int

    @property
    def sha256(self) -> str | None:
        """Hex SHA-256 of the whole, when the client declared one (then it is verified)."""
        return self.upload.sha256


def check_name(name: str) -> str:
    """The file name without its folders; refuses control characters and empty names."""
    base = re.split(r"[/\\]", name)[-1].strip()
    if not base or base in (".", "..") or not base.isprintable():
        raise UsageError(f"{name[:80]!r} is not a file name")
    if len(base) > _NAME_MAX:
        raise UsageError(f"the file name has {len(base)} characters; {_NAME_MAX} are allowed")
    return base


def check_sha256(text: str) -> str:
    """Hex SHA-256, lower case; raises `UsageError` for anything else."""
    if not _SHA256.fullmatch(text):
        raise UsageError(f"{text[:80]!r} is not a SHA-256 (64 lower-case hex digits)")
    return text
