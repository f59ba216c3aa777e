"""Where executors may spill: one folder for each pool, one below it for each attempt.

A pool holds a kernel lock on its folder for as long as it lives, so whoever comes later can tell a
living pool's folder from one that a killed process left behind, and sweep the latter.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from pathlib import Path

from sennit_core.ids import new_id

_LOCK = "lock"


def default_spill_dir() -> Path:
    """Return this user's spill folder below the machine's temporary folder."""
    return Path(tempfile.gettempdir()) / f"emsqrt-spill-{os.getuid()}"


class SpillArea:
    """The folder of one pool; made and locked by `__init__`, removed by `close`.

    Args:
        root: shared by pools; made when missing. What dead pools left there is removed.
    """

    def __init__(self, root: Path) -> None:
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        with _locked(root / ".sweep"):
            _sweep(root)
            self.folder = root / new_id()
            self.folder.mkdir(mode=0o700)
            self._lock = _try_lock(self.folder / _LOCK)
        assert self._lock is not None, "nobody else knows this folder's name"

    def attempt_dir(self, attempt: str) -> Path:
        """Return the folder that the attempt's executor makes when it needs one."""
        return self.folder / attempt

    def remove(self, attempt: str) -> None:
        """Remove what an attempt left."""
        shutil.rmtree(self.attempt_dir(attempt), ignore_errors=True)

    def close(self) -> None:
        """Remove the folder and let its lock go."""
        shutil.rmtree(self.folder, ignore_errors=True)
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


class _locked:  # noqa: N801 - used as a statement
    """Holds a lock file for the length of a `with`."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> None:
        self._file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._file, fcntl.LOCK_EX)

    def __exit__(self, *_: object) -> None:
        os.close(self._file)


def _sweep(root: Path) -> None:
    for folder in root.iterdir():
        if not folder.is_dir() or folder.is_symlink():
            continue
        lock = _try_lock(folder / _LOCK)
        if lock is not None:
            shutil.rmtree(folder, ignore_errors=True)
            os.close(lock)


def _try_lock(path: Path) -> int | None:
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(file)
        return None
    return file
