"""Files of the node's own machine that a dataset reads where they are, and their state when linked.

A linked file belongs to its user, who may change it at any time. So each use compares its inode, size
and modification time with those of the link, before the first byte is read and after the last one.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from sennit_core.errors import Conflict, Denied

__all__ = ["LocalFile"]


@dataclass(frozen=True, slots=True)
class LocalFile:
    """A file in place.

    Args:
        path: Absolute path without symbolic links.
        inode: Its inode.
        size: Its bytes.
        mtime_ns: Time of its last modification, in nanoseconds.
    """

    path: str
    inode: int
    size: int
    mtime_ns: int

    @classmethod
    def find(cls, path: str, *, outside: Path) -> Self:
        """Return a regular file that this process may read.

        Args:
            path: An absolute path.
            outside: The node's data folder: files below it are refused.

        Raises:
            Denied: The file cannot be linked; the reason is in the message.
        """
        try:
            path.encode()  # it goes into JSON and SQL
            if not Path(path).is_absolute() or "\0" in path:
                raise _refused("linking a file by a relative path")
            found = Path(path).resolve(strict=True)
            # Opened, as access(2) ignores capabilities and some file systems' rules. O_NONBLOCK, as
            # opening a FIFO would wait for a writer.
            descriptor = os.open(found, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except (OSError, ValueError, RuntimeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "its path is not valid"
            raise _refused(f"linking a file that the node cannot open ({reason})") from None
        try:
            status = os.fstat(descriptor)
        finally:
            os.close(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise _refused("linking something that is not a regular file")
        # The data folder has other users' data, tokens and secrets.
        if found.is_relative_to(outside.resolve()):
            raise _refused("linking a file of the node's own data folder")
        return cls(str(found), status.st_ino, status.st_size, status.st_mtime_ns)

    @property
    def name(self) -> str:
        """The file's name without its folders, for messages."""
        return Path(self.path).name

    def check(self, dataset: str) -> None:
        """Compare the file with the state in which it was linked.

        Args:
            dataset: The dataset's name, for the error.

        Raises:
            Conflict: It has changed, or is no longer there.
        """
        try:
            status = os.stat(self.path)  # noqa: PTH116 - once for each query
        except OSError as error:
            raise _changed(dataset, self, f"cannot be read: {error.strerror}") from None
        found = (status.st_ino, status.st_size, status.st_mtime_ns)
        if found != (self.inode, self.size, self.mtime_ns):
            raise _changed(dataset, self, "has changed since then")

    def to_json(self) -> dict[str, Any]:
        """Return the file as JSON; numbers as text, as some are too large for JSON's."""
        return {"path": self.path, **self.state}

    @property
    def state(self) -> dict[str, str]:
        """What is compared: `inode`, `size` and `mtimeNs`."""
        return {
            "inode": str(self.inode),
            "size": str(self.size),
            "mtimeNs": str(self.mtime_ns),
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        """Read the form of `to_json`."""
        return cls(data["path"], int(data["inode"]), int(data["size"]), int(data["mtimeNs"]))


def _refused(action: str) -> Denied:
    return Denied(action, needed="a regular file", hint="upload it: `platform put FILE --copy`")


def _changed(dataset: str, file: LocalFile, what: str) -> Conflict:
    return Conflict(
        f'dataset "{dataset}" is linked to the file {file.name!r}, which {what}',
        hint=f"put it again: `platform put {file.name} --name {dataset} --mode replace`",
    )
