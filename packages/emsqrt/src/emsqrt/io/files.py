"""A file that appears whole or not at all."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from sennit_core.errors import SennitError, StorageFull
from sennit_core.ids import new_id

_AT_FDCWD = -100
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_EXCHANGE = 2


@contextmanager
def open_whole(path: Path) -> Iterator[BinaryIO]:
    """Open `path` for writing: temp, fsync, rename, fsync the folder.

    An exception inside leaves what was at `path` before, and no temporary file.

    Raises:
        StorageFull: the disk is full.
    """
    staged = path.with_name(f".{path.name}.{new_id()}.tmp")
    try:
        with staged.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        staged.replace(path)
        _sync_folder(path.parent)
    except OSError as error:
        if error.errno in _FULL and not isinstance(error, SennitError):  # a spill's is its own
            raise StorageFull(
                path=str(path), free_bytes=shutil.disk_usage(path.parent).free
            ) from error
        raise
    finally:
        with suppress(FileNotFoundError):
            staged.unlink()


def replace_folder(staged: Path, folder: Path) -> None:
    """Give a whole folder its name, in the place of the one that has it now.

    The two change places in one step where the system can do that; what was there is then removed.

    Raises:
        OSError: the system refused.
    """
    for path in sorted(staged.rglob("*"), reverse=True):
        if path.is_dir():
            _sync_folder(path)
    _sync_folder(staged)
    if not folder.exists():
        staged.rename(folder)
    elif _exchange(staged, folder):
        shutil.rmtree(staged)
    else:
        old = staged.with_name(f"{staged.name}.old")
        folder.rename(old)
        staged.rename(folder)
        shutil.rmtree(old)
    _sync_folder(folder.parent)


def _exchange(one: Path, other: Path) -> bool:
    """Swap two names by Linux's `renameat2`; False where there is none."""
    import ctypes

    try:
        renameat2 = ctypes.CDLL(None, use_errno=True).renameat2
    except (AttributeError, OSError):
        return False
    result: int = renameat2(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _EXCHANGE)
    return result == 0


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
