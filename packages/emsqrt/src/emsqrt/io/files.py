"""Write a file atomically: it appears whole or not at all."""

from __future__ import annotations

import errno
import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from emsqrt.io.staging import locked, staged_name, sweep_staged
from emsqrt.system_errors import system_error
from sennit_core.errors import SennitError, StorageFull, UsageError

_AT_FDCWD = -100
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_EXCHANGE = 2


@contextmanager
def open_whole(path: Path) -> Iterator[BinaryIO]:
    """Open `path` for writing: temp, fsync, rename, fsync the folder.

    An exception inside leaves the old file at `path`, and no temporary file. Temporary files of
    killed runs with the same output are removed first.

    Raises:
        StorageFull: the disk is full.
        UsageError: `path` is a folder, a device or a pipe.
        SennitError: the system refuses; the message names the operation and the reason.
    """
    sweep_staged(path)
    staged = staged_name(path)
    try:
        file = _begin(path, staged)
        with file, locked(staged):
            yield file
            file.flush()
            os.fsync(file.fileno())
        _finish(path, staged)
    except OSError as error:
        if error.errno in _FULL and not isinstance(error, SennitError):  # not of spilling
            raise StorageFull(
                path=str(path), free_bytes=shutil.disk_usage(path.parent).free
            ) from error
        raise
    finally:
        with suppress(OSError):
            staged.unlink()


def _begin(path: Path, staged: Path) -> BinaryIO:
    try:
        with suppress(FileNotFoundError):  # also for a dangling link, which is replaced
            _check_replaceable(path)
        return staged.open("xb")
    except OSError as error:
        raise system_error(error, str(path), "writing") from error


def _check_replaceable(path: Path) -> None:
    """Refuse to replace anything but a regular file."""
    mode = path.stat().st_mode
    if stat.S_ISDIR(mode):
        raise UsageError(f"writing {path}: it is a folder", hint="use the path of a file in it")
    if not stat.S_ISREG(mode):
        raise UsageError(
            f"writing {path}: it is a device, a pipe or a socket, which no file may replace",
            hint="write to standard output, which is -, and redirect that",
        )


def _finish(path: Path, staged: Path) -> None:
    try:
        staged.replace(path)
        _sync_folder(path.parent)
    except OSError as error:
        raise system_error(error, str(path), "writing") from error


def replace_folder(staged: Path, folder: Path) -> None:
    """Rename a finished folder to its final name, replacing the folder that has the name now.

    Both are exchanged atomically if the system supports it; the old folder is then removed.

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
    """Exchange two names with Linux's `renameat2`; return False if it is not supported."""
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
