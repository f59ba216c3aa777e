"""What the part store knows of its uploads without reading their folders."""

from __future__ import annotations

from collections.abc import Sequence

from lake.uploads.upload import UploadInfo

__all__ = ["Progress"]


class Progress:
    """Bytes, time and user of each upload, computed again at each start; the store's lock guards it."""

    def __init__(self) -> None:
        # The bytes of the stored parts of each upload; only for display.
        self._done: dict[str, int] = {}
        # When each upload was started, or got its last part; Unix seconds.
        self._changed_at: dict[str, float] = {}
        # The user of each upload whose parts the user's other uploads may reuse (`part_reuse`).
        self._owners: dict[str, str] = {}

    def __len__(self) -> int:
        return len(self._done)

    def add(self, upload: UploadInfo, done: int, changed_at: float) -> None:
        """Note an upload that was started, or found at a start of the node."""
        self._done[upload.id] = done
        self._changed_at[upload.id] = changed_at
        # Each encrypted upload has a key of its own, and a file in place has no parts.
        if upload.owner is not None and not upload.encrypted and upload.file is None:
            self._owners[upload.id] = upload.owner

    def add_bytes(self, upload_id: str, size: int, now: float) -> None:
        """Note a part."""
        self._done[upload_id] = self._done.get(upload_id, 0) + size
        self._changed_at[upload_id] = now

    def touch(self, upload_id: str, now: float) -> None:
        """Note that an upload has changed."""
        self._changed_at[upload_id] = now

    def remove(self, upload_id: str) -> None:
        """Forget an upload."""
        self._done.pop(upload_id, None)
        self._changed_at.pop(upload_id, None)
        self._owners.pop(upload_id, None)

    def done(self, upload_id: str) -> int:
        """Return the bytes of an upload's parts."""
        return self._done.get(upload_id, 0)

    def changed_at(self, upload_id: str) -> float:
        """Return when an upload was started, or got its last part; 0 if it is gone."""
        return self._changed_at.get(upload_id, 0.0)

    def reusable(self, owner: str, *, besides: str = "") -> Sequence[str]:
        """Return a user's uploads whose parts other uploads may reuse, the last changed first.

        Args:
            owner: The user's name.
            besides: An upload to leave out.
        """
        found = [
            upload_id
            for upload_id, name in self._owners.items()
            if name == owner and upload_id != besides and self._done[upload_id]
        ]
        return sorted(found, key=self.changed_at, reverse=True)
