"""The default spill folder, and folders that are refused.

A file system in memory (tmpfs, ramfs) is not useful for spilling: files there are memory, which the
cap must count. It is refused unless forced, and then its bytes count against the cap.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from emsqrt.spill.local import LocalStore
from sennit_core.errors import Unsupported

IN_MEMORY = frozenset({"tmpfs", "ramfs", "devtmpfs", "hugetlbfs"})
_FOLDER = "emsqrt-spill"
_MOUNTS = Path("/proc/self/mountinfo")


def default_spill_dir() -> Path:
    """Return the default spill folder: below `$TMPDIR` (`/tmp` if unset), or below `/var/tmp`.

    It is the first that is on a disk, writable and accessible to this user only. Creates no folder.
    """
    named = f"{_FOLDER}-{os.getuid()}"
    # In many distributions `/tmp` is in memory, and `/var/tmp` on a disk.
    candidates = [Path(os.environ.get("TMPDIR") or "/tmp") / _FOLDER, Path("/var/tmp") / named]
    for candidate in candidates:
        if is_ours(candidate) and not is_in_memory(candidate):
            return candidate
    return candidates[-1]


def open_local_store(root: Path, *, force: bool = False) -> tuple[LocalStore, bool]:
    """Open a folder for spilling; also return whether it is in memory.

    Args:
        root: the folder; created if missing.
        force: use it even if it is in memory.
    """
    in_memory = is_in_memory(root)
    if in_memory and not force:
        raise Unsupported(
            f"{root} is on {file_system(root)}, which is memory: spilling there frees no memory",
            hint="use a folder on a disk (spill_dir, EMSQRT_SPILL_DIR), or force it",
        )
    return LocalStore(root), in_memory


def is_in_memory(path: Path) -> bool:
    """Return whether files at `path` would be in memory."""
    return file_system(path) in IN_MEMORY


def file_system(path: Path, mounts: Path = _MOUNTS) -> str:
    """Return the kind of file system at `path`, which need not exist; "" when unknown."""
    target = os.path.realpath(path)
    found, found_length = "", -1
    try:
        lines = mounts.read_text("utf-8", "surrogateescape").splitlines()
    except OSError:
        return ""
    for line in lines:
        fields, _, tail = line.partition(" - ")
        point = _unescaped(fields.split(" ")[4])
        below = target == point or target.startswith(point.rstrip("/") + "/")
        if below and len(point) >= found_length:  # the last mount at the same path is on top
            found, found_length = tail.split(" ")[0], len(point)
    return found


def is_ours(folder: Path) -> bool:
    """Return whether the folder is accessible to this user only, or could be created so."""
    try:
        status = os.lstat(folder)
    except FileNotFoundError:
        parent = folder.parent
        return parent.is_dir() and os.access(parent, os.W_OK | os.X_OK)
    except OSError:
        return False
    # 0o022: in a folder that others may write to, they could replace files. `lstat`: no link is
    # followed.
    private = stat.S_ISDIR(status.st_mode) and not status.st_mode & 0o022
    return private and status.st_uid == os.getuid() and os.access(folder, os.W_OK | os.X_OK)


def _unescaped(text: str) -> str:
    """Undo the octal escapes that mountinfo uses for blanks and backslashes."""
    parts = text.split("\\")
    return parts[0] + "".join(chr(int(part[:3], 8)) + part[3:] for part in parts[1:])
