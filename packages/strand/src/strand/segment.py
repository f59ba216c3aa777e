"""The memory behind a ring: a sealed memfd, or a file of our own in /dev/shm when it has a name.

Pages are allocated when the segment is created (`posix_fallocate`), so that a full /dev/shm raises an
error here instead of killing a writer by SIGBUS.
"""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sennit_core.errors import BadInput, Closed, Conflict, NotFound, StorageFull, UsageError
from strand.header import StrandMap, init_header
from strand.layout import EXTENSION_AT
from strand.owners import Lock, RoleLock, WordLock, identify, is_held, is_word_held, reopen

if TYPE_CHECKING:
    from typing_extensions import Buffer

__all__ = [
    "FOLDER",
    "PREFIX",
    "BufferSegment",
    "Segment",
    "allocate_segment",
    "create_segment",
    "open_segment",
    "segment_path",
]

_MADV_POPULATE_WRITE = 23  # Linux 5.14; the mmap module has no name for it

FOLDER = Path("/dev/shm")
PREFIX = "strand-"
_NAME = re.compile(r"[A-Za-z0-9._-]{1,200}")


class Segment:
    """Open, mapped memory of a ring.

    `fd` is an open file description of its own, which never holds a lock; `creator_lock` shows other
    processes that the creator is alive; `path` is None for a memfd.
    """

    def __init__(
        self,
        fd: int,
        memory: mmap.mmap,
        path: Path | None = None,
        creator_lock: Lock | None = None,
    ) -> None:
        """Own `fd`, `memory` and the lock; `close` unlinks `path`."""
        self.fd = fd
        self.path = path
        self.creator_lock = creator_lock
        self._memory = memory

    @property
    def memory(self) -> Any:
        """The bytes, as an object with the buffer protocol.

        Raises:
            Closed: after `close`.
        """
        if self.closed:
            raise Closed("the ring")
        return self._memory

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self.fd < 0

    @property
    def size(self) -> int:
        """Bytes mapped."""
        return len(self.memory)

    def lock(self, at: int) -> Lock:
        """Return the lock of the role whose byte is `at`, not acquired yet."""
        return RoleLock(self.fileno(), at)

    def is_held(self, at: int) -> bool:
        """Whether a process holds the role whose byte is `at`."""
        return is_held(self.fileno(), at)

    @property
    def is_of_another_user(self) -> bool:
        """Whether another user owns the memory."""
        return os.fstat(self.fileno()).st_uid != os.geteuid()

    def fileno(self) -> int:
        """The descriptor to pass to another process."""
        if self.closed:
            raise Closed("the ring")
        return self.fd

    def prefault(self) -> None:
        """Map every page now, so that no write causes a page fault."""
        try:
            self._memory.madvise(_MADV_POPULATE_WRITE)
        except OSError:  # before Linux 5.14
            for at in range(0, self.size, mmap.PAGESIZE):
                self._memory[at] = self._memory[at]

    def seal(self) -> None:
        """Seal an anonymous segment's size: access to a truncated mapping would raise SIGBUS."""
        if self.path is None:
            seals = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
            fcntl.fcntl(self.fd, fcntl.F_ADD_SEALS, seals)

    def forget_in_child(self) -> None:
        """Leave the segment's file to the parent process."""
        if self.creator_lock is not None:
            self.creator_lock.forget()
            self.creator_lock = None  # the parent unlinks the file

    def close(self) -> None:
        """Unmap and close; a mapping that is still referenced is unmapped with its last reference."""
        fd, self.fd = self.fd, -1
        if fd < 0:
            return
        # Unlink before the lock is released: a file whose lock is free counts as abandoned, and
        # another process may unlink it and create a ring of the same name.
        if self.creator_lock is not None:
            if self.path is not None:
                self.path.unlink(missing_ok=True)
            self.creator_lock.release()
        os.close(fd)
        with suppress(BufferError):  # a payload is still leased: unmapped with the lease
            self._memory.close()
        del self._memory


class BufferSegment(Segment):
    """A ring in a buffer that the caller provides and shares between processes."""

    def __init__(self, buffer: Buffer) -> None:
        """Use `buffer`, which must be writable and contiguous."""
        try:
            memory = memoryview(buffer).cast("B")
        except (TypeError, ValueError) as error:
            raise UsageError(f"a ring needs a contiguous buffer: {error}") from None
        if memory.readonly:
            raise UsageError("a ring needs a writable buffer")
        if not _is_aligned(memory):
            raise UsageError("a ring needs a buffer that starts at a multiple of 8 bytes")
        super().__init__(-1, memory)  # type: ignore[arg-type]
        self._closed = False

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._closed

    def lock(self, at: int) -> Lock:
        """Return the lock of the role whose byte is `at`, not acquired yet."""
        return WordLock(self.memory, at)

    def is_held(self, at: int) -> bool:
        """Whether a live process holds the role whose byte is `at`."""
        return is_word_held(self.memory, at)

    @property
    def is_of_another_user(self) -> bool:
        """Whether another user owns the memory: never, the buffer belongs to the caller."""
        return False

    def fileno(self) -> int:
        """Raise UsageError: a buffer has no descriptor."""
        raise UsageError("this ring is in a buffer of your own, which has no descriptor")

    def prefault(self) -> None:
        """Do nothing: the buffer's pages belong to the caller."""

    def close(self) -> None:
        """Release the buffer."""
        if not self._closed:
            self._closed = True
            with suppress(BufferError):  # still leased; released with the last lease
                self._memory.release()  # type: ignore[attr-defined]
            del self._memory


def segment_path(name: str) -> Path:
    """Return the file of the ring called `name`."""
    if not _NAME.fullmatch(name):
        raise UsageError(f"a ring's name has 1-200 letters, digits, '.', '_' or '-', not {name!r}")
    return FOLDER / (PREFIX + name)


def create_segment(header: StrandMap, name: str | None = None) -> Segment:
    """Create a segment for one ring and write its header.

    Args:
        header: the header to write; its geometry determines the size.
        name: None for a memfd (leaves no file), else a file in /dev/shm.

    Raises:
        Conflict: a ring of that name exists.
        StorageFull: no room in shared memory.
    """
    segment = allocate_segment(header.total_bytes, name)
    init_header(segment.memory, header, identify())
    segment.seal()
    return segment


def allocate_segment(size: int, name: str | None = None) -> Segment:
    """Create an empty segment of `size` bytes with all pages allocated.

    Raises:
        Conflict, StorageFull: see `create_segment`.
    """
    fd, path, lock = _create_memfd() if name is None else _create_file(name)
    try:
        _allocate(fd, size, path)
        return Segment(fd, mmap.mmap(fd, size), path, lock)
    except BaseException:
        os.close(fd)
        if path is not None:
            path.unlink(missing_ok=True)
        lock.release()
        raise


def open_segment(fd: int | None = None, name: str | None = None) -> Segment:
    """Map an existing segment by descriptor (which stays the caller's) or by name.

    Raises:
        NotFound: no ring of that name.
        BadInput: not a regular file, or one too small to map.
    """
    own = _open_again(fd) if fd is not None else _open_file(segment_path(name or ""))
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
    """Map the segment file at `path` for the duration of a `with`."""
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
                f"a ring named {name!r} exists already",
                hint="`strand ls` shows its owners, `strand cleanup` removes abandoned rings",
            ) from None
        lock = RoleLock(fd, EXTENSION_AT)
        if lock.try_acquire() and os.fstat(fd).st_nlink > 0:
            return fd, path, lock
        lock.release()  # a cleanup unlinked it between creating and locking
        os.close(fd)


def _open_again(fd: int) -> int:
    try:
        return reopen(fd)
    except OSError as error:  # a closed descriptor, a folder, a socket
        raise BadInput(f"descriptor {fd}", reason=error.strerror or str(error)) from error


def _open_file(path: Path) -> int:
    nofollow = os.O_NOFOLLOW if path.parent == FOLDER else 0  # other paths may be links
    try:
        return os.open(path, os.O_RDWR | os.O_CLOEXEC | nofollow)
    except FileNotFoundError:
        raise NotFound("ring", path.name.removeprefix(PREFIX)) from None
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        raise BadInput(str(path), reason="a symbolic link, not a ring") from error


def _is_aligned(memory: memoryview) -> bool:
    """Whether `memory` starts at a multiple of 8 bytes, so that the counters are aligned."""
    if len(memory) == 0:
        return True
    from ctypes import addressof, c_char

    return addressof(c_char.from_buffer(memory)) % 8 == 0


def _allocate(fd: int, size: int, path: Path | None) -> None:
    free = _free_memory_bytes()
    if size > free:  # otherwise the kernel would allocate until the OOM killer runs
        place = str(path or "shared memory")
        raise StorageFull(place, needed_bytes=size, free_bytes=free)
    try:
        os.posix_fallocate(fd, 0, size)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.ENOMEM, errno.EFBIG):
            raise
        raise StorageFull(str(path or "shared memory"), needed_bytes=size) from error


def _free_memory_bytes() -> int:
    """Return the memory that is available on the machine or in the container."""
    facts = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
    free = sum(int(facts[name].split()[0]) for name in ("MemAvailable", "SwapFree")) * 1024
    try:
        limit = int(Path("/sys/fs/cgroup/memory.max").read_text())
    except (OSError, ValueError):  # cgroups version 1, or "max"
        return free
    return min(free, limit)
