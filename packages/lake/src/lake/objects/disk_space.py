"""How much may be written: the disk's reserve, and the lake's quota.

Everything that writes much asks here first, and again while it writes: uploads, ingests, statements
that change data. Some bytes and files (inodes) of the disk always stay free, so that deleting, the
catalog and the log work; and the objects of the lake may have a quota. Metadata, deletions and
queries do not ask.

The node knows the quota, an executor writes the shards. So a request has a `WriteLimit`, which the
executor checks as its bytes grow; `DiskSpace.admit` counts them once more when they become objects,
because two executors may have used the same room.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lake.objects.durable import PLACE
from sennit_core.errors import StorageFull
from sennit_core.units import MIB, format_bytes

__all__ = ["RESERVE_BYTES", "RESERVE_FILES", "DiskSpace", "Usage", "WriteBudget", "WriteLimit"]

RESERVE_BYTES = 64 * MIB
RESERVE_FILES = 1024
_SHARE = 16
"""At most 1/16 of a small disk is reserved."""
_HINT_DISK = "delete datasets (`platform datasets NAME --delete`), or free space on the disk"
_HINT_QUOTA = "delete datasets, or raise the setting storage.{} of the node"


@dataclass(frozen=True, slots=True)
class Usage:
    """What the objects use: their bytes, and their number."""

    bytes: int
    objects: int


@dataclass(frozen=True, slots=True)
class WriteLimit:
    """What one writer may use; its check costs two system calls.

    Args:
        reserve_bytes: Bytes of the disk that stay free.
        reserve_files: Inodes of the disk that stay free.
        bytes_max: Bytes that the writer may write; None for no limit but the disk.
    """

    reserve_bytes: int = RESERVE_BYTES
    reserve_files: int = RESERVE_FILES
    bytes_max: int | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the form of executor requests."""
        return {
            "reserveBytes": self.reserve_bytes,
            "reserveFiles": self.reserve_files,
            "bytesMax": self.bytes_max,
        }

    @classmethod
    def from_json(cls, data: dict[str, Any] | None) -> WriteLimit:
        """Read the form of `to_json`; None has the default reserve and no other limit."""
        if data is None:
            return cls()
        return cls(data["reserveBytes"], data["reserveFiles"], data["bytesMax"])

    def without_quota(self) -> WriteLimit:
        """Return the limit that the disk alone sets."""
        return replace(self, bytes_max=None)

    def check(self, folder: Path, written: int, coming: int, what: str) -> None:
        """Refuse the next bytes if they exceed the limit.

        Args:
            folder: An existing folder of the disk.
            written: Bytes that the writer has written.
            coming: Bytes that it is about to write.
            what: The writer, for the error.

        Raises:
            StorageFull: They do; names what is free, needed and reserved.
        """
        if self.bytes_max is not None and written + coming > self.bytes_max:
            raise _full(
                f"{what} needs {format_bytes(written + coming)}, and "
                f"{format_bytes(self.bytes_max)} of the lake's quota are left",
                written + coming,
                self.bytes_max,
                _HINT_QUOTA.format("quota_bytes"),
            )
        disk = os.statvfs(folder)
        free = disk.f_bavail * disk.f_frsize
        reserved = min(self.reserve_bytes, disk.f_blocks * disk.f_frsize // _SHARE)
        if free - coming < reserved:
            raise _full(
                f"{what} needs {format_bytes(coming) + ' more' if coming else 'room'}; {PLACE} has {format_bytes(free)} "
                f"free, of which {format_bytes(reserved)} are reserved for metadata and deletions",
                coming,
                free,
                _HINT_DISK,
            )
        # A file system that makes inodes as it needs them reports none.
        kept = min(self.reserve_files, disk.f_files // _SHARE)
        if disk.f_files and disk.f_favail < kept:
            raise _full(
                f"{what} needs another file; {PLACE} has room for {disk.f_favail:,} (inodes), "
                f"of which {kept:,} are reserved for metadata and deletions",
                coming,
                free,
                "delete datasets or other files: many small files use up a disk's inodes",
            )


class WriteBudget:
    """The room of one statement or ingest in an executor, however many files it writes.

    Args:
        limit: Of the node.
        folder: Folder of the files.
        what: The writer, for errors.
    """

    def __init__(self, limit: WriteLimit, folder: Path, what: str) -> None:
        self._limit = limit
        self._folder = folder
        self._what = what
        self._written = 0

    def check(self, coming: int) -> None:
        """Refuse bytes to come, known as an upper bound, for which the disk has no room."""
        self._limit.without_quota().check(self._folder, 0, coming, self._what)

    def add(self, written: int) -> None:
        """Count written bytes; refuse them if they exceed the quota."""
        self._written += written
        self._limit.check(self._folder, self._written, 0, self._what)


class DiskSpace:
    """The space of one lake; thread-safe.

    Args:
        folder: The data folder.
        usage: Returns what the objects use; called only if there is a quota.
        quota_bytes: Most bytes of all objects; None for no limit.
        quota_objects: Largest number of objects; None for no limit.
        reserve_bytes: Bytes of the disk that stay free.
        reserve_files: Inodes of the disk that stay free.
    """

    def __init__(
        self,
        folder: Path,
        usage: Callable[[], Usage],
        *,
        quota_bytes: int | None = None,
        quota_objects: int | None = None,
        reserve_bytes: int = RESERVE_BYTES,
        reserve_files: int = RESERVE_FILES,
    ) -> None:
        self._folder = folder
        self._usage = usage
        self._quota_bytes = quota_bytes
        self._quota_objects = quota_objects
        self._reserve_bytes = reserve_bytes
        self._reserve_files = reserve_files
        self._lock = threading.Lock()
        # What was admitted and is not yet counted by `usage`, or is counted already: an object that
        # is being adopted may count twice for a moment, but never not at all.
        self._claimed = Usage(0, 0)

    def limit(self) -> WriteLimit:
        """Return what a writer that starts now may use."""
        left = None
        if self._quota_bytes is not None:
            left = max(0, self._quota_bytes - self._usage().bytes - self._claimed.bytes)
        return WriteLimit(self._reserve_bytes, self._reserve_files, left)

    def check(self, what: str, coming: int = 0) -> None:
        """Refuse a writer that has no room for the bytes to come on the disk, or no quota left.

        Raises:
            StorageFull: See `WriteLimit.check`.
        """
        self._check_quota(what, Usage(0, 1))
        WriteLimit(self._reserve_bytes, self._reserve_files).check(self._folder, 0, coming, what)

    def check_disk(self, what: str, coming: int) -> None:
        """As `check`, without the quota: for bytes that do not become objects."""
        WriteLimit(self._reserve_bytes, self._reserve_files).check(self._folder, 0, coming, what)

    @contextmanager
    def admit(self, what: str, size: int, count: int) -> Iterator[None]:
        """Reserve quota for new objects while they are stored.

        Args:
            what: The writer, for the error.
            size: Their bytes.
            count: Their number.

        Raises:
            StorageFull: They exceed a quota.
        """
        with self._lock:
            self._check_quota(what, Usage(size, count))
            self._claimed = Usage(self._claimed.bytes + size, self._claimed.objects + count)
        try:
            yield
        finally:
            with self._lock:
                self._claimed = Usage(self._claimed.bytes - size, self._claimed.objects - count)

    def to_json(self) -> dict[str, Any]:
        """Return the form of /api/stats."""
        disk = os.statvfs(self._folder)
        used = self._usage()
        return {
            "objectBytes": used.bytes,
            "objects": used.objects,
            "quotaBytes": self._quota_bytes,
            "quotaObjects": self._quota_objects,
            "freeBytes": disk.f_bavail * disk.f_frsize,
            "freeFiles": disk.f_favail if disk.f_files else None,
            "reservedBytes": min(self._reserve_bytes, disk.f_blocks * disk.f_frsize // _SHARE),
        }

    def _check_quota(self, what: str, coming: Usage) -> None:
        if self._quota_bytes is None and self._quota_objects is None:
            return
        used = self._usage()
        stored = used.bytes + self._claimed.bytes
        if self._quota_bytes is not None and (
            stored + coming.bytes > self._quota_bytes or stored >= self._quota_bytes
        ):
            raise _full(
                f"{what} needs {format_bytes(coming.bytes)}; the lake holds {format_bytes(stored)} "
                f"of its quota of {format_bytes(self._quota_bytes)}",
                coming.bytes,
                max(0, self._quota_bytes - stored),
                _HINT_QUOTA.format("quota_bytes"),
            )
        count = used.objects + self._claimed.objects
        if self._quota_objects is not None and count + coming.objects > self._quota_objects:
            raise _full(
                f"{what} needs {coming.objects:,} more objects; the lake holds {count:,} of its "
                f"quota of {self._quota_objects:,}",
                coming.bytes,
                None,
                _HINT_QUOTA.format("quota_objects"),
            )


def _full(message: str, needed: int, free: int | None, hint: str) -> StorageFull:
    return StorageFull(PLACE, needed, free, message=message, hint=hint)
