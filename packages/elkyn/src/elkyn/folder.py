"""The folder of a store: who has it open, and where a store in memory puts its files."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path as FilePath

from elkyn.durability import BOOT_UNKNOWN, boot_id
from elkyn.errors import StoreInUse
from sennit_core.private_files import FILE_MODE, FOLDER_MODE

__all__ = ["discard_other_boot", "lock_folder", "memory_folder"]

_SHM = FilePath("/dev/shm")
_SHM_FREE_MIN = 64 * 1024 * 1024


def memory_folder() -> FilePath:
    """Make a folder in memory; on the disk when there is little of it."""
    roomy = _SHM.is_dir() and os.access(_SHM, os.W_OK)
    if roomy and shutil.disk_usage(_SHM).free >= _SHM_FREE_MIN:
        return FilePath(tempfile.mkdtemp(prefix="elkyn-", dir=_SHM))
    return FilePath(tempfile.mkdtemp(prefix="elkyn-"))


def lock_folder(folder: FilePath) -> int:
    """Become the one who has `folder` open; closing the returned file ends that.

    Raises:
        StoreInUse: somebody else has.
    """
    file = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        text = os.pread(file, 32, 0).decode(errors="replace").strip()
        os.close(file)
        pid = int(text) if text.isdecimal() else None
        hint = "one store at a time owns a folder: share that one, or ask its server over HTTP"
        raise StoreInUse(str(folder), pid, hint=hint) from None
    os.pwrite(file, f"{os.getpid():<15}\n".encode(), 0)  # truncating first can wait for the disk
    return file


def discard_other_boot(folder: FilePath) -> None:
    """Empty `folder`, and stamp it, when it was not written in this boot of the machine."""
    boot = boot_id()
    stamp = folder / "boot"
    known = ""
    with suppress(FileNotFoundError):
        known = stamp.read_text().strip()
    if known == boot != BOOT_UNKNOWN:
        return
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(mode=FOLDER_MODE)
    stamp.touch(mode=FILE_MODE)
    stamp.write_text(f"{boot}\n")
