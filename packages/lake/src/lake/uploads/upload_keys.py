"""The keys of encrypted uploads: one for each, which ends with it.

A part's name on the disk has its SHA-256, which would confirm a guess of its content. So names of
encrypted parts have an HMAC of it, as has the record instead of the whole file's SHA-256.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from lake.encryption.files import EncryptedFile
from lake.encryption.keys import KeyRing
from sennit_core.errors import StorageFull

__all__ = ["UploadKeys"]

# Datasets' ids and uploads' ids are entries of one file.
_ENTRY = "upload:"


class UploadKeys:
    """Which uploads are encrypted, and with what.

    Args:
        keys: The keys of the lake.
        wanted: Called with (name, mode, options); whether an upload's dataset is, or will be,
            encrypted.
    """

    def __init__(self, keys: KeyRing, wanted: Callable[[str, str, dict[str, Any]], bool]) -> None:
        self._keys = keys
        self.wanted = wanted

    def create(self, upload: str) -> None:
        """Create the key of a new upload, durable before its first part.

        Raises:
            Denied: The lake has no secret.
        """
        self._keys.create(_ENTRY + upload)

    def tag(self, upload: str, sha256: str) -> str:
        """Return the keyed hash that is stored instead of a hash."""
        return hmac.digest(self._key(upload), sha256.encode(), "sha256").hex()

    def part(self, upload: str, index: int, path: Path) -> EncryptedFile:
        """Return the file of a part.

        Raises:
            Denied: The lake has no secret.
        """
        return EncryptedFile(path, f"{upload}/{index}", self._key(upload))

    def forget(self, upload: str) -> None:
        """Remove the key of an upload that is gone: what the disk still has of it is unreadable."""
        # If there is no room to write that, the next start does it.
        with suppress(StorageFull):
            self._keys.forget((_ENTRY + upload,))

    def forget_others(self, uploads: Iterable[str]) -> None:
        """Remove all keys but those of these uploads."""
        known = {_ENTRY + upload for upload in uploads}
        with suppress(StorageFull):
            self._keys.forget(
                each
                for each in self._keys.entries()
                if each.startswith(_ENTRY) and each not in known
            )

    def _key(self, upload: str) -> bytes:
        return self._keys.key(_ENTRY + upload, what=f"upload {upload}")
