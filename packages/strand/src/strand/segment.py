"""The memory behind a ring: a sealed memfd, or a file of our own in /dev/shm when it has a name.

Pages are allocated when the segment is made (`posix_fallocate`), so a full /dev/shm is an error
here and not a SIGBUS in the middle of a write.
"""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from sennit_core.errors import BadInput, Conflict, NotFound, StorageFull, UsageError
from strand import _native
from strand.layout import EXTENSION_AT, MAGIC, Header, write_header
from strand.owners import RoleLock, reopen

__all__ = ["FOLDER", "PREFIX", "Segment", "create_segment", "open_segment", "segment_path"]

FOLDER = Path("/dev/shm")
PREFIX = "strand-"
_NAME = re.compile(r"[A-Za-z0-9._-]{1,200}")


@dataclass
class Segment:
    """An open, mapped segment.

    `fd` is an open file description of our own that never holds a lock; `creator_lock` says that
    its creator lives; `path` is None for a memfd.
    """

    fd: int
    memory: mmap.mmap
    path: Path | None = None
    creator_lock: RoleLock | None = None

    @property
    def size(self) -> int:
        """Bytes mapped."""
        return len(self.memory)

    def close(self) -> None:
        """Unmap and close; a mapping somebody still looks at goes when they let go of it."""
        fd, self.fd = self.fd, -1
        if fd < 0:
            return
        if self.creator_lock is not None:
            if self.path is not None:
                self.path.unlink(missing_ok=True)
            self.creator_lock.release()
        os.close(fd)
        try:
            self.memory.close()
        except BufferError:
            return  # a payload is still leased: its lease holds the mapping and ends it


def segment_path(name: str) -> Path:
    """Return the file of the ring called `name`."""
    if not _NAME.fullmatch(name):
        raise UsageError(f"a ring's name has 1-200 letters, digits, '.', '_' or '-', not {name!r}")
    return FOLDER / (PREFIX + name)


def create_segment(header: Header, name: str | None = None) -> Segment:
    """Make a segment for `header` and publish it.

    Args:
        header: what to write; its geometry gives the size.
        name: None for a memfd (nothing to leak), else a file of ours in /dev/shm.

    Raises:
        Conflict: a ring of that name exists.
        StorageFull: no room in shared memory.
    """
    fd, path, lock = _create_memfd() if name is None else _create_file(name)
    try:
        _allocate(fd, header.total_bytes, path)
        memory = mmap.mmap(fd, header.total_bytes)
    except BaseException:
        os.close(fd)
        if path is not None:
            path.unlink(missing_ok=True)
        lock.release()
        raise
    with memoryview(memory) as view:
        write_header(view, header)
    _native.store_release(memory, 0, MAGIC)  # last: who sees the magic sees the header
    if path is None:
        seals = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, seals)
    return Segment(fd, memory, path, lock)


def open_segment(fd: int | None = None, name: str | None = None) -> Segment:
    """Map an existing segment by descriptor (which stays the caller's) or by name.

    Raises:
        NotFound: no ring of that name.
        BadInput: not a regular file, or one too small to map.
    """
    own = reopen(fd) if fd is not None else _open_file(segment_path(name or ""))
    try:
        facts = os.fstat(own)
        if not stat.S_ISREG(facts.st_mode) or facts.st_size == 0:
            raise BadInput(name or f"descriptor {fd}", reason="not a shared-memory segment")
        return Segment(own, mmap.mmap(own, facts.st_size))
    except BaseException:
        os.close(own)
        raise


@contextmanager
def borrowed_segment(path: Path) -> Iterator[Segment]:
    """Map the segment file at `path` for a look at it."""
    fd = _open_file(path)
    try:
        segment = open_segment(fd)
    finally:
        os.close(fd)
    try:
        yield segment
    finally:
        segment.close()


def _create_memfd() -> tuple[int, None, RoleLock]:
    fd = os.memfd_create("strand", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.fchmod(fd, 0o600)
    lock = RoleLock(fd, EXTENSION_AT)
    lock.try_acquire()
    return fd, None, lock


def _create_file(name: str) -> tuple[int, Path, RoleLock]:
    path = segment_path(name)
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
    while True:
        try:
            fd = os.open(path, flags, 0o600)
        except FileExistsError:
            raise Conflict(
                f"there is a ring named {name!r} already",
                hint="`strand ls` shows its owners, `strand cleanup` removes abandoned rings",
            ) from None
        lock = RoleLock(fd, EXTENSION_AT)
        if lock.try_acquire() and os.fstat(fd).st_nlink > 0:
            return fd, path, lock
        lock.release()  # a cleanup came between creating and locking
        os.close(fd)


def _open_file(path: Path) -> int:
    nofollow = os.O_NOFOLLOW if path.parent == FOLDER else 0  # a path of your own may be a link
    try:
        return os.open(path, os.O_RDWR | os.O_CLOEXEC | nofollow)
    except FileNotFoundError:
        raise NotFound("ring", path.name.removeprefix(PREFIX)) from None


def _allocate(fd: int, size: int, path: Path | None) -> None:
    try:
        os.posix_fallocate(fd, 0, size)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.ENOMEM, errno.EFBIG):
            raise
        raise StorageFull(str(path or "shared memory"), needed_bytes=size) from error
