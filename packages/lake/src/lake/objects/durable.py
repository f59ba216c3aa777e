"""Atomic file writes: temp file, fsync, rename, fsync of the folder.

All data of the lake that must survive a crash is written through `open_new` or `write_whole`.
A full disk raises `StorageFull`, and the unfinished file is removed.

Why in this order: a file must not have its final name before its bytes are on the disk, or a crash
would leave a name with missing bytes; and the rename itself is durable only after the folder was
synced.

    write .incoming -> fsync file -> rename -> fsync folder -> answer
                    crash: removed at   crash: the old file, or the new one whole
                    the next start
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import shutil
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Self

from sennit_core.errors import StorageFull
from sennit_core.private_files import FILE_MODE, make_private_folder

PLACE = "the lake's disk"
TEMP_SUFFIX = ".incoming"
# `O_EXCL`: a temporary name is never shared, and an existing file or link is not followed.
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
_SYNCS_MAX = 8
_FULL = (errno.ENOSPC, errno.EDQUOT)


@contextlib.contextmanager
def storage_errors(path: Path, needed_bytes: int) -> Iterator[None]:
    """Convert "no space left" and "quota exceeded" errors to `StorageFull`.

    The error says what is free at `path`, and not where that is: it may be shown to any client.
    """
    try:
        yield
    except OSError as error:
        # One of ours says more than this one would.
        if error.errno not in _FULL or isinstance(error, StorageFull):
            raise
        raise StorageFull(
            path=PLACE, needed_bytes=needed_bytes, free_bytes=free_bytes(path)
        ) from error


def free_bytes(path: Path) -> int:
    """Return the free bytes on the file system of `path`, or of its nearest existing parent."""
    folder = path
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free


def fsync_file(path: Path) -> None:
    """Make the bytes of a file durable that another writer has written."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def fsync_folder(folder: Path) -> None:
    """Make renames and unlinks in `folder` durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def fsync_folders(folders: Iterable[Path]) -> None:
    """As `fsync_folder` for several, at the same time: a journal then commits once for all."""
    folders = tuple(folders)
    if len(folders) < 2:
        for folder in folders:
            fsync_folder(folder)
        return
    with ThreadPoolExecutor(min(len(folders), _SYNCS_MAX)) as pool:
        for _ in pool.map(fsync_folder, folders):
            pass  # raises the first error


class NewFile:
    """A temporary file that gets its final name on `commit`.

    Leaving the context without a commit removes the file.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / f"{secrets.token_hex(12)}{TEMP_SUFFIX}"
        self.size = 0
        # True once the file has its final name: leaving the context then removes nothing.
        self._committed = False
        self._synced_bytes = -1  # the size when the bytes were last made durable
        with storage_errors(folder, 0):
            make_private_folder(folder)
            # Unbuffered: callers write large pieces, and `size` is what the system has accepted.
            self._file = os.fdopen(os.open(self.path, _NEW, FILE_MODE), "wb", buffering=0)

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Append `data`; raise `StorageFull` if the disk is full."""
        rest = memoryview(data).cast("B")
        with storage_errors(self.path, len(rest)):
            while rest:
                # An unbuffered write may write a part only.
                written = self._file.write(rest)
                self.size += written
                rest = rest[written:]

    def sync(self) -> None:
        """Make the bytes durable, so that a `commit` under a lock has only the name to write."""
        with storage_errors(self.path, self.size):
            os.fsync(self._file.fileno())
        self._synced_bytes = self.size

    def commit(
        self, final: Path, *, mode: int = FILE_MODE, sync_folder: bool = True, sync: bool = True
    ) -> None:
        """Make the file durable and rename it to its final name, replacing any existing file.

        Args:
            final: The name.
            mode: Permissions.
            sync_folder: Whether the name is to be durable too; else the caller syncs the folder.
            sync: Whether the bytes are to be durable; else the caller syncs the file and its folder.
        """
        with storage_errors(final, self.size):
            # Before the sync, so that the file has its mode when it gets its name.
            os.fchmod(self._file.fileno(), mode)
            if sync and (self._synced_bytes != self.size or mode != FILE_MODE):
                os.fsync(self._file.fileno())
            self._file.close()
            self.path.replace(final)
            self._committed = True
            if sync and sync_folder:
                fsync_folder(final.parent)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()
        if not self._committed:
            self.path.unlink(missing_ok=True)


def write_whole(path: Path, data: bytes, *, mode: int = FILE_MODE) -> None:
    """Write a small file atomically: after a crash there is the old file, the new one, or none."""
    with NewFile(path.parent) as new:
        new.write(data)
        new.commit(path, mode=mode)


def sweep_incoming(root: Path) -> int:
    """Remove unfinished files that a crash left below `root`; return their number."""
    swept = 0
    for path in root.rglob(f"*{TEMP_SUFFIX}"):
        path.unlink(missing_ok=True)
        swept += 1
    return swept
