"""The record of an upload, with the sizes and number of its parts."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from lake.encryption.files import Source
from lake.links.local_files import LocalFile
from lake.uploads.tus_upload import TusUpload
from sennit_core.errors import UsageError
from sennit_core.hashing import canonical_json, sha256_hex

__all__ = ["MODES", "SealedUpload", "UploadInfo"]

MODES = ("create", "append", "replace", "upsert")

_NAME_MAX = 255
_SHA256 = re.compile(r"[0-9a-f]{64}")
_INDEX_MAX = 999_999
_CHECKSUM = "checksum"


@dataclass(frozen=True)
class UploadInfo:
    """One upload.

    Args:
        id: The upload's id.
        dataset: Id of the dataset to create, assigned at the start.
        name: The file's name.
        size: Bytes of the whole file; None while unknown.
        sha256: Declared hex SHA-256 of the whole file.
        part_bytes: Bytes of every part except the last.
        mode: What its ingest does, of `MODES`.
        options: Ingest options.
        created_at: Unix seconds.
        resume_key: The client's name for the file; starting an upload with the same key resumes it.
        owner: Name of the user who started it; None if it is not known.
        state: `receiving` or `sealed`; the live tree also shows `ingesting` and `failed`.
        have: Indexes of the received parts, in order.
        file: The file, if it is ingested where it is and has no parts.
        linked: Whether its dataset exists already, linked to the file.
        encrypted: Whether its parts are; then `sha256` is a keyed hash (`lake.uploads.upload_keys`).
        tus: What it has as an upload of the protocol tus. Its parts arrive in order, and each has any
            size up to `part_bytes`; a part of other uploads has its size by its index.
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
    resume_key: str | None = None
    owner: str | None = None
    state: str = "receiving"
    have: tuple[int, ...] = ()
    file: LocalFile | None = None
    linked: bool = False
    encrypted: bool = False
    tus: TusUpload | None = None

    @property
    def has_fixed_parts(self) -> bool:
        """Whether the size of each part is known from its index."""
        return self.size is not None and self.tus is None

    @property
    def parts(self) -> int | None:
        """The number of parts; None if it is not known before the last one."""
        if self.size is None or self.tus is not None:
            return None
        return -(-self.size // self.part_bytes)

    def expected_bytes(self, index: int) -> int:
        """Return the bytes of part `index`; the maximum if the size of parts is not fixed."""
        parts = _INDEX_MAX + 1 if self.parts is None else self.parts
        if not 0 <= index < parts:
            raise UsageError(f"part {index} is outside upload {self.id}, which has {parts} parts")
        if self.size is None or self.tus is not None:
            return self.part_bytes
        return min(self.part_bytes, self.size - index * self.part_bytes)

    def missing(self, have: frozenset[int]) -> list[int]:
        """Return the indexes that are not in `have`, in order."""
        parts = (max(have) + 1 if have else 0) if self.parts is None else self.parts
        return [index for index in range(parts) if index not in have]

    def with_state(self, state: str, *, size: int | None = None) -> UploadInfo:
        """Return the upload with another state."""
        return replace(self, state=state, size=self.size if size is None else size)

    def is_resumed_by(
        self,
        resume_key: str,
        size: int | None,
        mode: str,
        options: dict[str, Any],
        *,
        encrypted: bool,
    ) -> bool:
        """Whether this unfinished upload is of the same file, for the same ingest."""
        own = (self.state, self.resume_key, self.size, self.mode, self.options, self.encrypted)
        return own == ("receiving", resume_key, size, mode, options, encrypted)

    def to_json(self) -> dict[str, Any]:
        """Return the upload in the JSON form of the routes."""
        return {
            "uploadId": self.id,
            "datasetId": self.dataset,
            "name": self.name,
            "size": self.size,
            "sha256": None if self.encrypted else self.sha256,
            "partBytes": self.part_bytes,
            "mode": self.mode,
            "options": self.options,
            "createdAt": self.created_at,
            "state": self.state,
            "have": list(self.have),
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> UploadInfo:
        """Read the form of `to_json`, with the further members of `upload.json` if present."""
        file = data.get("file")
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
            resume_key=data.get("resumeKey"),
            owner=data.get("owner"),
            state=data["state"],
            have=tuple(data["have"]),
            file=None if file is None else LocalFile.from_json(file),
            linked=bool(data.get("linked")),
            encrypted=bool(data.get("encrypted")),
            tus=None if data.get("tus") is None else TusUpload.from_json(data["tus"]),
        )

    def to_stored(self) -> bytes:
        """Return the content of `upload.json`, which clients do not see: it may name a path."""
        stored = self.to_json() | {"resumeKey": self.resume_key, "sha256": self.sha256}
        del stored["have"]
        if self.owner is not None:
            stored["owner"] = self.owner
        if self.encrypted:
            stored["encrypted"] = True
        if self.tus is not None:
            stored["tus"] = self.tus.to_json()
        if self.file is not None:
            stored |= {"file": self.file.to_json(), "linked": self.linked}
        return canonical_json(stored | {_CHECKSUM: sha256_hex(canonical_json(stored))})

    @classmethod
    def from_stored(cls, content: bytes, have: Sequence[int]) -> UploadInfo:
        """Read the form of `to_stored`.

        Args:
            content: The bytes of `upload.json`.
            have: Indexes of the received parts, in order.

        Raises:
            ValueError, KeyError, TypeError, BadInput: It is damaged.
        """
        stored = dict(json.loads(content))
        # Records of earlier versions have none.
        checksum = stored.pop(_CHECKSUM, None)
        if checksum is not None and checksum != sha256_hex(canonical_json(stored)):
            raise ValueError("another checksum")
        return cls.from_json(stored | {"have": have})


@dataclass(frozen=True)
class SealedUpload:
    """A complete upload: its parts in order are the file's bytes.

    Args:
        upload: The upload, with its size known.
        paths: The part files, in order; none for an empty file. Of an upload without parts, the
            file in place.
        size: Bytes of the whole file.
    """

    upload: UploadInfo
    paths: tuple[Source, ...]
    size: int

    @property
    def sha256(self) -> str | None:
        """Hex SHA-256 of the whole file if the client declared one; it has been verified."""
        return self.upload.sha256


def check_name(name: str) -> str:
    """Return the file name without its folders; refuse control characters and empty names."""
    base = re.split(r"[/\\]", name)[-1].strip()
    if not base or base in (".", "..") or not base.isprintable():
        raise UsageError(f"{name[:80]!r} is not a file name")
    if len(base) > _NAME_MAX:
        raise UsageError(f"the file name has {len(base)} characters; {_NAME_MAX} are allowed")
    return base


def check_sha256(text: str) -> str:
    """Return a lower-case hex SHA-256; raise `UsageError` for any other text."""
    if not _SHA256.fullmatch(text):
        raise UsageError(f"{text[:80]!r} is not a SHA-256 (64 lower-case hex digits)")
    return text
