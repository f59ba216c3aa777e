"""A file that appears whole or not at all."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from sennit_core.errors import StorageFull
from sennit_core.ids import new_id


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
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StorageFull(
                path=str(path), free_bytes=shutil.disk_usage(path.parent).free
            ) from error
        raise
    finally:
        with suppress(FileNotFoundError):
            staged.unlink()


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
