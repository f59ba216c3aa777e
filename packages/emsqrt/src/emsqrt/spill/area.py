"""The folder of one run: locked while its process is alive, removed by other runs after that.

A kernel lock shows whether the run that owns a folder is alive, even if its process id has been
reused since.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
from pathlib import Path

from sennit_core.ids import is_id, new_id

#     root/.sweep            held while folders of dead runs are looked for and removed
#     root/<run id>/lock     held by the run; the kernel releases it with the process
#     root/<run id>/<name>   segments
#     root/<tenant>/         the same again for each tenant
_LOCK = "lock"
_LOCK_FLAGS = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
"""O_NOFOLLOW: in a folder that other users may write to, a lock must not follow their link."""


class RunFolder:
    """A run's own folder below `root`, mode 0700; created and locked here, removed by `close`.

    Args:
        root: the folder shared by runs; created if missing. Folders of dead runs are removed.
    """

    def __init__(self, root: Path) -> None:
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        with _locked(root / ".sweep"):
            _sweep(root)
            self.folder = root / new_id()
            self.folder.mkdir(mode=0o700)
            # Still under the sweep lock: another run must not find the new folder before it is
            # locked.
            self._lock = try_lock(self.folder / _LOCK)
        assert self._lock is not None, "no other process knows the name of the new folder"

    def close(self) -> None:
        """Remove the folder and release its lock."""
        # Removed before the lock is released, or another run would sweep the same files at the same
        # time.
        shutil.rmtree(self.folder, ignore_errors=True)
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


def sweep(root: Path) -> int:
    """Remove the folders of dead runs below `root`; return their number."""
    if not root.is_dir():
        return 0
    with _locked(root / ".sweep"):
        return _sweep(root)


def stored_bytes(root: Path) -> dict[str, int]:
    """Return the bytes stored below `root` by all processes, by tenant; "" for runs without one.

    Files that are removed while they are counted are ignored.
    """
    found: dict[str, int] = {}
    for folder, _, names in os.walk(root):
        # The folder of a run is named by an id, any other one by its tenant.
        first = Path(folder).relative_to(root).parts[:1]
        tenant = "" if not first or is_id(first[0]) else first[0]
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                size = Path(folder, name).lstat().st_size
                found[tenant] = found.get(tenant, 0) + size
    return {tenant: size for tenant, size in found.items() if size}


class _locked:  # noqa: N801 - used as a statement
    """Holds a lock file for the duration of a `with`."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> None:
        self._file = os.open(self._path, _LOCK_FLAGS, 0o600)
        fcntl.flock(self._file, fcntl.LOCK_EX)

    def __exit__(self, *_: object) -> None:
        os.close(self._file)


def _sweep(root: Path) -> int:
    removed = 0
    for folder in root.iterdir():
        if not is_id(folder.name) or not folder.is_dir() or folder.is_symlink():
            continue  # a tenant's folder, or not the folder of a run
        try:
            lock = try_lock(folder / _LOCK)
        except OSError:  # another user's folder, or one that another process is removing
            continue
        if lock is not None:
            shutil.rmtree(folder, ignore_errors=True)
            os.close(lock)
            removed += 1
    return removed


def try_lock(path: Path) -> int | None:
    """Lock a file and return its descriptor; None if it is locked already. Follows no link."""
    file = os.open(path, _LOCK_FLAGS, 0o600)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(file)
        return None
    return file
