"""Reserved disk space, so that deleting, stopping and starting work on a full disk.

Removing a dataset from the catalog writes before it frees space: the tree's storage copies the
pages it changes, and the log gets an entry. An allocated file reserves space for that; it is
deleted when a deletion meets a full disk, and allocated again when there is space.
"""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from sennit_core.errors import StorageFull
from sennit_core.units import KIB, MIB

__all__ = ["RESERVE_BYTES", "Reserve"]

# A deletion copies about twenty pages of 4 KiB in a catalog of 3,000 datasets, and a start writes
# a run file, log lines and folders; the rest is for concurrent writers.
RESERVE_BYTES = 4 * MIB
_LEAST_BYTES = 64 * KIB
_NAME = "disk-full.reserve"

T = TypeVar("T")


class Reserve:
    """The reserve of one data folder; thread-safe.

    Args:
        folder: The data folder.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / _NAME
        self._lock = threading.Lock()

    def fill(self) -> int:
        """Allocate the reserve, or as much of it as fits; return its bytes."""
        with self._lock:
            wanted = RESERVE_BYTES
            while wanted >= _LEAST_BYTES:
                if self._allocate(wanted):
                    return wanted
                # As much as fits: on a nearly full disk a smaller reserve is better than none.
                wanted //= 2
            return 0

    def release(self) -> bool:
        """Free the reserved space; return whether there was any."""
        with self._lock:
            try:
                self._path.unlink()
            except FileNotFoundError:
                return False
            return True

    def spend(self, action: Callable[[], T]) -> T:
        """Run an action that frees space; on a full disk, release the reserve and run it again.

        Raises:
            StorageFull: the reserve was too small or already released.
        """
        try:
            return action()
        except StorageFull:
            # Another thread has released it, and the disk is full all the same.
            if not self.release():
                raise
        try:
            return action()
        finally:
            self.fill()

    def _allocate(self, size: int) -> bool:
        flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC
        try:
            descriptor = os.open(self._path, flags, 0o600)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                return False
            raise
        try:
            # Allocates the blocks; a file that is only extended would reserve nothing.
            os.posix_fallocate(descriptor, 0, size)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            os.ftruncate(descriptor, 0)
            return False
        finally:
            os.close(descriptor)
        return True
