"""The folder of a store: its lock, and the folder of an in-memory store."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path as FilePath

from elkyn.errors import StoreInUse
from elkyn.storage.durability import BOOT_UNKNOWN, boot_id
from sennit_core.private_files import FILE_MODE, FOLDER_MODE

__all__ = ["discard_other_boot", "lock_folder", "memory_folder"]

_SHM = FilePath("/dev/shm")
_SHM_FREE_MIN = 64 * 1024 * 1024


def memory_folder() -> FilePath:
    """Create a folder in `/dev/shm`, or on the disk when too little memory is free."""
    roomy = _SHM.is_dir() and os.access(_SHM, os.W_OK)
    if roomy and shutil.disk_usage(_SHM).free >= _SHM_FREE_MIN:
        return FilePath(tempfile.mkdtemp(prefix="elkyn-", dir=_SHM))
    return FilePath(tempfile.mkdtemp(prefix="elkyn-"))


def lock_folder(folder: FilePath) -> int:
    """Lock `folder` for this store; closing the returned file descriptor releases the lock.

    Raises:
        StoreInUse: another store holds the lock.
    """
    file = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        # The kernel releases the lock when the process ends, however it ends. The pid inside is for
        # messages.
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        text = os.pread(file, 32, 0).decode(errors="replace").strip()
        os.close(file)
        pid = int(text) if text.isdecimal() else None
        hint = (
            "one store at a time may open a folder: share that store, or use its server over HTTP"
        )
        raise StoreInUse(str(folder), pid, hint=hint) from None
    os.pwrite(file, f"{os.getpid():<15}\n".encode(), 0)  # padded: a truncate can block on the disk
    return file


def discard_other_boot(folder: FilePath) -> None:
    """Empty `folder` and write this boot's id, unless it was written under this boot."""
    boot = boot_id()
    stamp = folder / "boot"
    known = ""
    with suppress(FileNotFoundError):
        known = stamp.read_text().strip()
    # The same boot: the page cache holds every commit, also after a kill.
    if known == boot != BOOT_UNKNOWN:
        return
    # The stamp is written last: a folder without one is emptied again.
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(mode=FOLDER_MODE)
    stamp.touch(mode=FILE_MODE)
    stamp.write_text(f"{boot}\n")
