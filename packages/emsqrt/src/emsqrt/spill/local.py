"""Segments as files on a local disk, kept out of the page cache.

Written bytes are flushed to the disk one step behind the writer and then dropped from the cache. So
spilling gigabytes does not fill the cache with dirty pages, and write errors are found early.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from pathlib import Path

from emsqrt._kernel import sync_range
from emsqrt.spill.area import RunFolder
from emsqrt.spill.errors import SpillDamaged, spill_error

# At most two steps, 16 MiB, of a file are dirty at a time (design/0035):
#
#     | flushed, dropped from the cache | being flushed | not begun |
#                                _pushed - STEP_BYTES   _pushed     _size
STEP_BYTES = 8 << 20
_READ_STEP_BYTES = 1 << 20


class Disk:
    """The system calls of spilling; tests make any of them fail."""

    def create(self, path: Path) -> int:
        """Create a new file, mode 0600."""
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)

    def open(self, path: Path) -> int:
        """Open a file for reading."""
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def write(self, file: int, parts: Sequence[memoryview]) -> int:
        """Append; return how many bytes were written."""
        # Head and block in one call, without copying them into one buffer.
        return os.writev(file, parts)

    def read(self, file: int, target: memoryview, offset: int) -> int:
        """Read at an offset; return how many bytes were read."""
        return os.preadv(file, [target], offset)

    def flush(self, file: int, start: int, size: int, *, wait: bool) -> None:
        """Flush a range to the disk; size 0 means up to the end."""
        sync_range(file, start, size, wait)

    def forget(self, file: int, start: int, size: int) -> None:
        """Drop a range from the page cache; size 0 means up to the end."""
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(file, start, size, os.POSIX_FADV_DONTNEED)

    def unlink(self, path: Path) -> None:
        """Remove a file."""
        path.unlink(missing_ok=True)


class LocalStore:
    """The files of one run in a folder of its own; `RunFolder` says when it is removed.

    Args:
        root: the folder shared by runs.
        disk: the system calls.
    """

    is_remote = False
    buffer_bytes = 0

    def __init__(self, root: Path, *, disk: Disk | None = None) -> None:
        self.place = os.fspath(root)
        self._disk = disk or Disk()
        try:
            self._area = RunFolder(root)
        except OSError as error:
            raise spill_error(error, self.place) from error

    @property
    def folder(self) -> Path:
        """The folder of this run's files."""
        return self._area.folder

    def create(self, name: str) -> LocalSink:
        """Begin a file."""
        return LocalSink(self._area.folder / name, self._disk)

    def open(self, name: str, size_bytes: int) -> LocalSource:
        """Open a finished file."""
        return LocalSource(self._area.folder / name, size_bytes, self._disk)

    def remove(self, name: str) -> None:
        """Remove a file."""
        path = self._area.folder / name
        try:
            self._disk.unlink(path)
        except OSError as error:
            raise spill_error(error, self.place) from error

    def close(self) -> None:
        """Remove the run's folder."""
        self._area.close()


class LocalSink:
    """A file being written; it is flushed one step behind the writer."""

    def __init__(self, path: Path, disk: Disk) -> None:
        self._path = path
        self._disk = disk
        self._size = 0
        # Bytes whose flush has begun, a multiple of STEP_BYTES.
        self._pushed = 0
        try:
            self._file = disk.create(path)
        except OSError as error:
            raise spill_error(error, os.fspath(path.parent)) from error

    def write(self, parts: Sequence[memoryview]) -> None:
        """Append all parts, in as many calls as needed."""
        left = [part for part in parts if len(part)]
        try:
            while left:
                went = self._disk.write(self._file, left)
                self._size += went
                # A write may be short: drop the parts that were written, and cut the one in which
                # it stopped.
                while left and went >= len(left[0]):
                    went -= len(left.pop(0))
                if left and went:
                    left[0] = left[0][went:]
            while self._size - self._pushed >= STEP_BYTES:
                self._push()
        except OSError as error:
            needed = sum(map(len, left)) or None
            raise spill_error(error, os.fspath(self._path.parent), needed) from error

    def finish(self) -> None:
        """Wait until the disk has the whole file, drop it from the cache and close it."""
        try:
            # From the step that may not have been waited for. Errors of the disk appear here,
            # before the segment counts as finished. There is no fsync: spill need not outlive a
            # power failure.
            self._disk.flush(self._file, max(0, self._pushed - STEP_BYTES), 0, wait=True)
            self._disk.forget(self._file, 0, 0)
        except OSError as error:
            raise spill_error(error, os.fspath(self._path.parent)) from error
        self._close()

    def abort(self) -> None:
        """Close and remove it."""
        self._close()
        with contextlib.suppress(OSError):
            self._disk.unlink(self._path)

    def _push(self) -> None:
        """Start flushing the newest step; wait for the step before it and drop that one."""
        self._disk.flush(self._file, self._pushed, STEP_BYTES, wait=False)
        # Waiting for the step before, which had a whole step's time, and not for the newest one.
        before = self._pushed - STEP_BYTES
        if before >= 0:
            self._disk.flush(self._file, before, STEP_BYTES, wait=True)
            self._disk.forget(self._file, before, STEP_BYTES)
        self._pushed += STEP_BYTES

    def _close(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


class LocalSource:
    """A finished file being read; bytes that were read are dropped from the cache."""

    def __init__(self, path: Path, size_bytes: int, disk: Disk) -> None:
        self._path = path
        self._disk = disk
        # Bytes from `_kept` to `_end` were read and are still in the page cache.
        self._kept = self._end = 0
        try:
            self._file = disk.open(path)
        except FileNotFoundError as error:
            raise SpillDamaged(f"spilled file {path}", found="nothing") from error
        except OSError as error:
            raise spill_error(error, os.fspath(path.parent)) from error
        found = os.fstat(self._file).st_size
        # A file that was cut or has grown is found here, before any block is read.
        if found != size_bytes:
            self.close()
            raise SpillDamaged(f"spilled file {path}", f"{size_bytes} bytes", f"{found} bytes")

    def read_into(self, offset: int, target: memoryview) -> None:
        """Fill the target, in as many calls as needed."""
        filled = 0
        try:
            while filled < len(target):
                came = self._disk.read(self._file, target[filled:], offset + filled)
                if came == 0:
                    raise SpillDamaged(
                        f"spilled file {self._path}",
                        f"{len(target)} bytes at {offset}",
                        f"{filled} bytes",
                    )
                filled += came
            self._drop(offset, offset + filled)
        except OSError as error:
            raise spill_error(error, os.fspath(self._path.parent)) from error

    def _drop(self, start: int, end: int) -> None:
        """Drop bytes that were read from the cache, in steps; a seek begins a new step."""
        if start != self._end:
            self._disk.forget(self._file, self._kept, self._end - self._kept)
            self._kept = start
        self._end = end
        if end - self._kept >= _READ_STEP_BYTES:
            self._disk.forget(self._file, self._kept, end - self._kept)
            self._kept = end

    def close(self) -> None:
        """Close the file."""
        if self._file >= 0:
            with contextlib.suppress(OSError):
                self._disk.forget(self._file, 0, 0)
            os.close(self._file)
            self._file = -1
