"""Locks of roles: which process holds a role, and whether it is alive.

A role is a kernel lock on one byte of the segment, held through an open file description of its own
(`F_OFD_SETLK`, Linux 3.15), so that two roles in one process exclude each other as well. The kernel
releases the lock when the process ends for any reason. A stopped or swapped-out process keeps it,
which a timeout could not distinguish from death. The identity stored with the role names the holder.

A ring in a caller's buffer has no file to lock. There a word of the role holds the pid, set by
compare-and-exchange; a process that finds the word set checks whether that pid is alive.
"""

from __future__ import annotations

import fcntl
import os
import struct
import sys
import weakref
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any, Protocol

from sennit_core.errors import Unsupported
from strand import _native
from strand.header import Identity
from strand.layout import CONSUMERS_AT, EXTENSION_AT, PRODUCER_AT, holder_of

__all__ = [
    "Lock",
    "RoleLock",
    "WordLock",
    "forget_in_child",
    "identify",
    "is_held",
    "is_word_held",
    "reopen",
]

_FLOCK = struct.Struct("hhqqi4x")  # struct flock: type, whence, start, length, pid


def reopen(fd: int) -> int:
    """Open the file behind `fd` once more: a new open file description, close-on-exec."""
    return os.open(f"/proc/self/fd/{fd}", os.O_RDWR | os.O_CLOEXEC)


class Lock(Protocol):
    """The lock that a role holds until it is released or its process ends."""

    def try_acquire(self) -> bool:
        """Acquire the role without waiting; False when it is held already."""

    def release(self) -> None:
        """Release the role."""

    def forget(self) -> None:
        """Drop this object without releasing the role: for a forked child, whose parent holds it."""


class RoleLock:
    """An exclusive lock on one byte of a segment, held by this process until closed."""

    def __init__(self, segment_fd: int, at: int) -> None:
        """Open the segment once more for byte `at`; nothing is locked yet."""
        self._at = at
        self._fd = reopen(segment_fd)

    def try_acquire(self) -> bool:
        """Acquire the lock without waiting; False when it is held already."""
        try:
            self._set(fcntl.F_WRLCK)
        except (BlockingIOError, PermissionError):  # EAGAIN or EACCES: either says "held"
            return False
        return True

    def release(self) -> None:
        """Unlock, then close: a child between fork and exec may still share the description."""
        if self._fd < 0:
            return
        try:
            self._set(fcntl.F_UNLCK)
        finally:
            self.forget()

    def forget(self) -> None:
        """Close without unlocking: for a forked child, whose parent holds the lock."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def _set(self, kind: int) -> None:
        fcntl.fcntl(self._fd, fcntl.F_OFD_SETLK, _FLOCK.pack(kind, os.SEEK_SET, self._at, 1, 0))


def is_held(segment_fd: int, at: int) -> bool:
    """Return whether the lock on byte `at` is held, checked by a description without locks."""
    asked = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, at, 1, 0)
    answer = fcntl.fcntl(segment_fd, fcntl.F_OFD_GETLK, asked)
    return bool(_FLOCK.unpack(answer)[0] != fcntl.F_UNLCK)


class WordLock:
    """A role of a ring in a plain buffer: held by the process whose pid is in its word."""

    def __init__(self, memory: Any, at: int) -> None:
        """Prepare the lock of the role whose byte is `at`; it is not acquired yet."""
        self._memory = memory
        self._at = at
        self._held = False

    def try_acquire(self) -> bool:
        """Set the word, also if a dead process holds it; False when a live one does."""
        word = _lock_word_at(self._at)
        while True:
            holder = struct.unpack_from("<I", self._memory, word)[0]
            if holder and is_word_held(self._memory, self._at):
                return False
            if _native.compare_exchange(self._memory, word, holder, os.getpid()):
                self._held = True
                return True
            # another process was faster: check whether that one lives

    def release(self) -> None:
        """Clear the word."""
        if self._held:
            self._held = False
            # an exchange, so that a word that is not this process's is left alone
            _native.compare_exchange(self._memory, _lock_word_at(self._at), os.getpid(), 0)

    def forget(self) -> None:
        """Leave the word to the parent process."""
        self._held = False


def is_word_held(memory: Any, at: int) -> bool:
    """Return whether a live process holds the role whose byte is `at` in a plain buffer."""
    holder = struct.unpack_from("<I", memory, _lock_word_at(at))[0]
    if not holder:
        return False
    found = identify(holder)
    # A pid may be reused, so the start time must match too. A holder writes its identity after the
    # word: until then the identity is the last holder's, and a live pid is enough.
    named, start_ticks = holder_of(memory, at)
    return found.pid == holder and (named != holder or found.start_ticks == start_ticks)


def _lock_word_at(at: int) -> int:
    """Return the byte offset of a role's lock word (spec/strand-wire.md)."""
    if at == EXTENSION_AT:
        return EXTENSION_AT + 28
    return at + 36 if at >= CONSUMERS_AT or at == PRODUCER_AT else at


def identify(pid: int | None = None) -> Identity:
    """Return the identity of a process, by default this one; pid 0 when it has ended."""
    pid = os.getpid() if pid is None else pid
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    except OSError:
        return Identity()
    fields = stat.rpartition(")")[2].split()  # from field 3 on, see proc(5)
    if fields[0] in "ZX":
        return Identity()  # a zombie
    return Identity(pid, int(fields[19]), _boot())


@cache
def _boot() -> int:
    text = Path("/proc/sys/kernel/random/boot_id").read_bytes().strip()
    return int.from_bytes(sha256(text).digest()[:8], "little")


def require_platform() -> None:
    """Raise Unsupported on platforms without the needed system calls."""
    if not sys.platform.startswith("linux") or not hasattr(fcntl, "F_OFD_SETLK"):
        raise Unsupported(
            f"rings need Linux (open-file-description locks, memfd), this is {sys.platform}",
            hint="use a Linux machine or WSL2",
        )
    if sys.byteorder != "little":
        raise Unsupported("rings are little-endian and this machine is not")


class Forkable(Protocol):
    """An object that must drop its parent's role in a forked child."""

    def _forget_in_child(self) -> None: ...


# The parent's roles, which a forked child must not release. Weak, so that this list keeps no closed
# ring mapped.
_live: weakref.WeakSet[Forkable] = weakref.WeakSet()


def forget_in_child(holder: Forkable) -> None:
    """Register `holder._forget_in_child()` to run in every child forked from this process."""
    _live.add(holder)


def _after_fork() -> None:
    for holder in list(_live):  # a copy: a holder may be collected during the loop
        holder._forget_in_child()  # noqa: SLF001 - the protocol above
    _live.clear()


os.register_at_fork(after_in_child=_after_fork)
