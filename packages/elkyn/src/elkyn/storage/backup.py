"""Online backups of a store and archives of its log, for point-in-time recovery.

A backup is a store folder. An archive is a folder of files, each with consecutive log entries:

    <first>-<last>.oplog     `elkyn log 2` and a line end, SHA-256 of the rest, MessagePack [[position, row], …]

Both are written under a temporary name, synced, and renamed.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path as FilePath
from typing import Self

import ormsgpack

from elkyn import _failpoints
from elkyn.errors import OtherFormat, PositionGone
from elkyn.storage.durability import sync_folder
from elkyn.storage.environment import Environment, copy_in_use
from sennit_core.errors import Corrupt, NotFound, UsageError
from sennit_core.private_files import FILE_MODE, make_private_folder

__all__ = ["Archive", "copy_environment", "copy_folder"]

_MAGIC = b"elkyn log 2\n"  # version 1: entries without idempotency keys
_VERSIONS = (1, 2)
_FIRST_LINE = re.compile(rb"elkyn log ([0-9]{1,9})\n")
_FILE = "data.mdb"


def copy_environment(env: Environment, target: FilePath) -> None:
    """Write a consistent copy of `env` to the folder `target`, which must not exist."""
    with _Appearing(target) as partial:
        env.copy(partial.folder)
        partial.keep()


def copy_folder(source: FilePath, target: FilePath) -> None:
    """Copy a store or a backup, in use or not, to the folder `target`, which must not exist."""
    if not (source / _FILE).is_file():
        raise NotFound("store", str(source))
    with _Appearing(target) as partial:
        copy_in_use(source, partial.folder)
        partial.keep()


class _Appearing:
    """A temporary folder that `keep` renames to `target`; without `keep` it is deleted."""

    def __init__(self, target: FilePath) -> None:
        if target.exists():
            raise UsageError(f"{target} exists already", hint="choose a folder that does not exist")
        self._target = target
        self.folder = target.with_name(f".{target.name}.{os.getpid()}.partial")

    def __enter__(self) -> Self:
        shutil.rmtree(self.folder, ignore_errors=True)
        make_private_folder(self.folder)
        return self

    def keep(self) -> None:
        """Sync the folder's files and rename it to `target`."""
        _failpoints.reached("copied")
        # Contents, then the folder's entry, then the rename, then the parent's entry: after a crash
        # the target is missing or whole. What is left of an interrupted copy has another name.
        (self.folder / _FILE).chmod(FILE_MODE)
        _sync_file(self.folder / _FILE)
        sync_folder(self.folder)
        self.folder.rename(self._target)
        sync_folder(self._target.parent)

    def __exit__(self, *_error: object) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)


class Archive:
    """Log entries in files; see the module docstring.

    Args:
        folder: the folder of the files; created when missing.
    """

    def __init__(self, folder: FilePath) -> None:
        self.folder = folder
        make_private_folder(folder)

    def _files(self) -> list[tuple[int, int, FilePath]]:
        found: list[tuple[int, int, FilePath]] = []
        for file in sorted(self.folder.glob("*.oplog")):
            first, _dash, last = file.stem.partition("-")
            found.append((int(first), int(last), file))
        return found

    @property
    def last(self) -> int:
        """The position of the newest entry, 0 when there is none."""
        files = self._files()
        return files[-1][1] if files else 0

    def add(self, rows: Sequence[tuple[int, bytes]]) -> None:
        """Write a file of entries, which must follow the archived ones."""
        if not rows:
            return
        # Written whole or not at all (temporary name, sync, rename), so the archive never ends in
        # half a file.
        body: bytes = ormsgpack.packb([list(row) for row in rows])
        name = f"{rows[0][0]:020}-{rows[-1][0]:020}.oplog"
        partial = self.folder / f".{name}.partial"
        partial.touch(mode=FILE_MODE)
        with partial.open("wb") as stream:
            stream.write(_MAGIC + hashlib.sha256(body).digest() + body)
            stream.flush()
            os.fsync(stream.fileno())
        partial.rename(self.folder / name)
        sync_folder(self.folder)

    def read(self, after: int) -> Iterator[tuple[int, bytes]]:
        """Yield position and row of every entry after `after`, in order and without gap.

        Raises:
            PositionGone: the archive starts after `after`, or has a gap.
            Corrupt: a file's checksum does not match.
        """
        expected = after + 1
        for first, last, file in self._files():
            if last < expected:
                continue
            if first > expected:
                raise PositionGone(expected - 1, first, self.last)
            for position, row in _read_file(file):
                if position >= expected:
                    yield position, row
            # From the name of the file; `_read_file` has checked its contents against the checksum.
            expected = last + 1


def _read_file(file: FilePath) -> list[tuple[int, bytes]]:
    data = file.read_bytes()
    line = _FIRST_LINE.match(data)
    # The version first: a newer program's file may have another layout.
    if line is not None and int(line[1]) not in _VERSIONS:
        raise OtherFormat(str(file), int(line[1]), *_VERSIONS)
    start = 0 if line is None else line.end()
    digest, body = data[start : start + 32], data[start + 32 :]
    if line is None or hashlib.sha256(body).digest() != digest:
        raise Corrupt(f"the log file {file}", expected=digest.hex()[:16], found="other bytes")
    return [(position, row) for position, row in ormsgpack.unpackb(body)]


def _sync_file(file: FilePath) -> None:
    with file.open("rb") as stream:
        os.fsync(stream.fileno())
