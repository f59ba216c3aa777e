"""Temporary names of outputs: `.NAME.ID.tmp` beside the output, locked while its writer lives.

The kernel drops the lock with the process, however it ended. So whoever writes the same output
next can tell what a killed run left from what another run still writes, and removes the former.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from sennit_core.ids import is_id, new_id

_SUFFIX = ".tmp"
_NAME_BYTES_MAX = 200
"""What is kept of a name in that of the temporary file, which is longer."""


def staged_name(path: Path) -> Path:
    """Return a new temporary name for an output."""
    return path.with_name(f"{_prefix(path)}{new_id()}{_SUFFIX}")


@contextmanager
def locked(staged: Path) -> Iterator[None]:
    """Mark a temporary file or folder as being written, for the length of a `with`.

    On a file system without locks nothing is marked, and nothing is ever swept.
    """
    descriptor = os.open(staged, os.O_RDONLY | os.O_CLOEXEC)
    try:
        with suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def sweep_staged(path: Path) -> None:
    """Remove what killed runs left of an output; what cannot be removed is left alone."""
    prefix = _prefix(path)
    with suppress(OSError), os.scandir(path.parent) as entries:
        for entry in entries:
            name = entry.name
            if name.startswith(prefix) and is_id(name[len(prefix) :].removesuffix(_SUFFIX)):
                _remove_abandoned(Path(entry.path))


def _remove_abandoned(staged: Path) -> None:
    """Remove a temporary file or folder if no process holds its lock."""
    with suppress(OSError):  # another user's, or one that its writer renames just now
        descriptor = os.open(staged, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if staged.is_dir():
                shutil.rmtree(staged)
            else:
                staged.unlink()
        finally:
            os.close(descriptor)


def _prefix(path: Path) -> str:
    start = os.fsencode(path.name)[:_NAME_BYTES_MAX].decode(errors="ignore")
    return f".{start}."
