"""Who holds a role, and whether that process lives.

The truth is a kernel lock: one byte of the segment for each role, locked through an open file
description of its own (`F_OFD_SETLK`, Linux 3.15), so that two roles in one process exclude each
other as well. The kernel drops it when the process ends, however it ends; a stopped or swapped-out
process keeps it, which no timeout can tell apart. The identity beside it names the holder.
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
from typing import Protocol

from sennit_core.errors import Unsupported
from strand.layout import Identity

__all__ = ["RoleLock", "forget_in_child", "identify", "is_held", "reopen"]

_FLOCK = struct.Struct("hhqqi4x")


def reopen(fd: int) -> int:
    """Open the file behind `fd` once more: a new open file description, close-on-exec."""
    return os.open(f"/proc/self/fd/{fd}", os.O_RDWR | os.O_CLOEXEC)


class RoleLock:
    """An exclusive lock on one byte of a segment, held by this process until closed."""

    def __init__(self, segment_fd: int, at: int) -> None:
        """Open the segment once more for byte `at`; nothing is locked yet."""
        self._at = at
        self._fd = reopen(segment_fd)

    def try_acquire(self) -> bool:
        """Take the lock; False when another holds it. Never waits."""
        try:
            self._set(fcntl.F_WRLCK)
        except (BlockingIOError, PermissionError):
            return False
        return True

    def release(self) -> None:
        """Unlock, then close: a fork between its fork and exec may still share the description."""
        if self._fd < 0:
            return
        try:
            self._set(fcntl.F_UNLCK)
        finally:
            self.forget()

    def forget(self) -> None:
        """Close without unlocking: what a forked child does with its parent's lock."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def _set(self, kind: int) -> None:
        fcntl.fcntl(self._fd, fcntl.F_OFD_SETLK, _FLOCK.pack(kind, os.SEEK_SET, self._at, 1, 0))


def is_held(segment_fd: int, at: int) -> bool:
    """Tell whether anybody holds the lock on byte `at`, through a description that holds none."""
    asked = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, at, 1, 0)
    answer = fcntl.fcntl(segment_fd, fcntl.F_OFD_GETLK, asked)
    return bool(_FLOCK.unpack(answer)[0] != fcntl.F_UNLCK)


def identify(pid: int | None = None) -> Identity:
    """Return the identity of a process, this one by default; pid 0 when it is gone."""
    pid = os.getpid() if pid is None else pid
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    except OSError:
        return Identity()
    start_ticks = int(stat.rpartition(")")[2].split()[19])  # field 22, see proc(5)
    return Identity(pid, start_ticks, _boot())


@cache
def _boot() -> int:
    text = Path("/proc/sys/kernel/random/boot_id").read_bytes().strip()
    return int.from_bytes(sha256(text).digest()[:8], "little")


def require_platform() -> None:
    """Raise Unsupported where rings cannot work yet."""
    if not sys.platform.startswith("linux") or not hasattr(fcntl, "F_OFD_SETLK"):
        raise Unsupported(
            f"rings need Linux (open-file-description locks, memfd), this is {sys.platform}",
            hint="use a Linux machine or WSL2",
        )
    if sys.byteorder != "little":
        raise Unsupported("rings are little-endian and this machine is not")


class Forkable(Protocol):
    """What must let go of its parent's role in a forked child."""

    def _forget_in_child(self) -> None: ...


_live: weakref.WeakSet[Forkable] = weakref.WeakSet()


def forget_in_child(holder: Forkable) -> None:
    """Have `holder._forget_in_child()` called in every child forked from this process."""
    _live.add(holder)


def _after_fork() -> None:
    for holder in list(_live):
        holder._forget_in_child()  # noqa: SLF001 - the protocol above
    _live.clear()


os.register_at_fork(after_in_child=_after_fork)
