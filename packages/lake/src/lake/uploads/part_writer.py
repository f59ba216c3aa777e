"""Writes one part of an upload: hashed, and encrypted if its dataset is, while it is received."""

from __future__ import annotations

import hashlib
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

from lake.encryption.files import EncryptedWriter
from lake.objects.disk_space import DiskSpace
from lake.objects.durable import NewFile
from lake.uploads.upload import UploadInfo
from lake.uploads.upload_keys import UploadKeys
from sennit_core.errors import BadInput, TooLarge
from sennit_core.file_kinds import HEAD_BYTES, check_readable

__all__ = ["PartWriter"]


class Parts(Protocol):
    """What a part is written for: the part store."""

    space: DiskSpace

    def folder(self, upload_id: str) -> Path:
        """Return the upload's folder."""
        ...

    def keys_of(self, upload: UploadInfo) -> UploadKeys:
        """Return the keys of an encrypted upload."""
        ...

    def check_end(self, end: int) -> None:
        """Refuse a file of so many bytes, if it is too long."""
        ...

    def keep(self, upload: UploadInfo, index: int, sha256: str, new: NewFile, size: int) -> None:
        """Store a received part under its final name."""
        ...


class PartWriter:
    """Writes and hashes one part, which is invisible until `commit`.

    Args:
        store: Keeps the part.
        upload: The upload.
        index: Index of the part.
        sha256: Its declared SHA-256; None skips the check.
        start: Offset of its first byte in the file.
    """

    def __init__(
        self, store: Parts, upload: UploadInfo, index: int, sha256: str | None, start: int
    ) -> None:
        self._store = store
        self._upload = upload
        self._index = index
        self._declared = sha256
        self._start = start
        self._limit = upload.expected_bytes(index)
        self._hash = hashlib.sha256()
        self._size = 0
        folder = store.folder(upload.id)
        self._encrypted: EncryptedWriter | None = None
        if upload.encrypted:
            part = store.keys_of(upload).part(upload.id, index, folder)
            self._encrypted = EncryptedWriter(
                lambda data: self._new.write(data), part.name, part.key
            )
        self._new = NewFile(folder)
        # The file's first bytes, until the format check; only the first part has them. A partial
        # upload begins anywhere in the file.
        is_first = index == 0 and not (upload.tus and upload.tus.partial)
        self._head: bytearray | None = bytearray() if is_first else None

    def write(self, data: bytes | memoryview) -> None:
        """Append bytes.

        Raises:
            TooLarge: The part would exceed its size.
            StorageFull: The disk is full.
            BadInput: The file's first bytes are of a format that holds no table.
        """
        size = self._size + memoryview(data).nbytes
        if size > self._limit:
            raise TooLarge(
                what=f"part {self._index} of upload {self._upload.id}",
                limit_bytes=self._limit,
                actual_bytes=size,
            )
        self._store.check_end(self._start + size)
        # Again for each piece: other writers may have used the room since the upload's start.
        self._store.space.check_disk(f"the upload {self._upload.name!r}", size - self._size)
        self._look_at(data)
        self._hash.update(data)
        (self._encrypted or self._new).write(data)
        self._size = size

    def commit(self) -> str:
        """Store the part; return its SHA-256 as hex.

        Raises:
            BadInput: The part is too short or its hash differs from the declared one; not stored.
            Conflict: A part with this index and other bytes exists; it is kept.
        """
        if self._head is not None:
            check_readable(bytes(self._head), self._upload.name)
        sha256 = self._hash.hexdigest()
        what = f"part {self._index} of upload {self._upload.id}"
        if self._declared is not None and sha256 != self._declared:
            reason = (
                f"its SHA-256 was declared as {self._declared}, the bytes received have {sha256}"
            )
            raise BadInput(what=what, reason=reason, hint="send the part again")
        if self._upload.has_fixed_parts and self._size != self._limit:
            reason = f"it has {self._size} bytes, expected {self._limit}"
            raise BadInput(what=what, reason=reason, hint="send the part again, whole")
        if self._encrypted is not None:
            self._encrypted.finish()
        self._store.keep(self._upload, self._index, sha256, self._new, self._size)
        return sha256

    def _look_at(self, data: bytes | memoryview) -> None:
        """Refuse an image or an archive by its first bytes, before gigabytes are received."""
        if self._head is None:
            return
        self._head += memoryview(data).cast("B")[: HEAD_BYTES - len(self._head)]
        if len(self._head) == HEAD_BYTES:
            check_readable(bytes(self._head), self._upload.name)
            self._head = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._new.__exit__(kind, error, trace)
