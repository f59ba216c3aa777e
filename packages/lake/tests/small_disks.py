"""Real file systems of limited size, mounted for a test; only root may mount them."""

from __future__ import annotations

import ctypes
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

__all__ = ["image_disk", "mounted_tmpfs"]

_LIBC = ctypes.CDLL(None)
_MNT_DETACH = 2


@contextmanager
def mounted_tmpfs(folder: Path, options: str) -> Iterator[Path]:
    """Mount a tmpfs on the folder; skip the test where that is not permitted."""
    folder.mkdir(parents=True, exist_ok=True)
    place = os.fsencode(folder)
    if _LIBC.mount(b"tmpfs", place, b"tmpfs", 0, options.encode()) != 0:
        pytest.skip("no tmpfs can be mounted here")
    try:
        yield folder
    finally:
        _LIBC.umount2(place, _MNT_DETACH)


@contextmanager
def image_disk(folder: Path, size: str = "128M") -> Iterator[tuple[Path, Path]]:
    """Mount a new ext4 file system; yield its folder and the image that is its disk."""
    image, place = folder / "disk.img", folder / "disk"
    place.mkdir(parents=True)
    try:
        subprocess.run(["truncate", "-s", size, image], check=True)
        subprocess.run(["mkfs.ext4", "-q", image], check=True, capture_output=True)
        subprocess.run(["mount", "-o", "loop", image, place], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("no image can be mounted here")
    try:
        yield place, image
    finally:
        subprocess.run(["umount", "-l", place], check=False)


def damage_below(image: Path, file: Path, at: int) -> None:
    """Flip a bit of a file on the image's disk, unseen by the file system."""
    content = file.read_bytes()
    descriptor = os.open(file, os.O_RDONLY)
    try:
        os.fsync(descriptor)
        disk = image.read_bytes()
        # The block is found by its content, so it must be the only one with it.
        start = at // 4096 * 4096
        block = content[start : start + 4096]
        place = disk.find(block)
        assert place >= 0
        assert disk.find(block, place + 1) < 0
        with image.open("r+b") as raw:
            raw.seek(place + at - start)
            raw.write(bytes((content[at] ^ 1,)))
            raw.flush()
            os.fsync(raw.fileno())
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(descriptor)
