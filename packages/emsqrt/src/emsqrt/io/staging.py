"""Temporary names of outputs: `.NAME.ID.tmp` next to the output, locked while its writer is alive.

The kernel releases the lock when the process ends for any reason. So the next writer of the same
output can distinguish files of killed runs from files that other runs still write, and removes the
former.
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
"""The most bytes of an output's name that the name of its temporary file includes."""


def staged_name(path: Path) -> Path:
    """Return a new temporary name for an output."""
    return path.with_name(f"{_prefix(path)}{new_id()}{_SUFFIX}")


@contextmanager
def locked(staged: Path) -> Iterator[None]:
    """Lock a temporary file or folder for the duration of a `with`.

    On a file system without locks nothing is locked, and nothing is ever swept.
    """
    descriptor = os.open(staged, os.O_RDONLY | os.O_CLOEXEC)
    try:
        with suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def sweep_staged(path: Path) -> None:
    """Remove temporary files that killed runs left of an output; errors are ignored."""
    prefix = _prefix(path)
    with suppress(OSError), os.scandir(path.parent) as entries:
        for entry in entries:
            name = entry.name
            if name.startswith(prefix) and is_id(name[len(prefix) :].removesuffix(_SUFFIX)):
                _remove_abandoned(Path(entry.path))


def _remove_abandoned(staged: Path) -> None:
    """Remove a temporary file or folder if no process holds its lock."""
    with suppress(OSError):  # another user's file, or one that its writer is renaming
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
