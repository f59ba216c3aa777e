"""The uploads of results of remote workers."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from lake.objects.durable import storage_errors
from sennit_core.errors import BadInput, Busy, Conflict, TooLarge
from sennit_core.ids import new_id

__all__ = ["Upload", "UploadBudget"]


class UploadBudget:
    """The disk that uploads of all workers may use together, until their results were checked.

    Args:
        bytes_max: The most bytes.
    """

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self._lock = threading.Lock()
        self._used_bytes = 0
        # Sizes of the complete files, which are part of `_used_bytes`.
        self._files: dict[Path, int] = {}

    def reserve(self, size_bytes: int) -> None:
        """Reserve bytes; raises Busy if there are not so many left."""
        with self._lock:
            if self._used_bytes + size_bytes > self._bytes_max:
                raise Busy("workers upload more than the node can check; try again in a second")
            self._used_bytes += size_bytes

    def release(self, size_bytes: int) -> None:
        """Release bytes of a file that was not completed."""
        with self._lock:
            self._used_bytes -= size_bytes

    def complete(self, path: Path, size_bytes: int) -> None:
        """Note that a file of so many reserved bytes has replaced any before it."""
        with self._lock:
            self._used_bytes -= self._files.pop(path, 0)
            self._files[path] = size_bytes

    def remove(self, path: Path) -> None:
        """Note that a complete file was removed; no effect if there was none."""
        with self._lock:
            self._used_bytes -= self._files.pop(path, 0)


class Upload:
    """A file that is received; it gets its name when it is complete.

    Args:
        path: Its name.
        bytes_max: Its largest size.
        budget: Has its bytes.
        alive: Renews the attempt's lease; returns False if the attempt has ended.
        done: Called at the end.
    """

    def __init__(
        self,
        path: Path,
        bytes_max: int,
        budget: UploadBudget,
        *,
        alive: Callable[[], bool],
        done: Callable[[], None],
    ) -> None:
        self._path = path
        self._bytes_max = bytes_max
        self._budget = budget
        self._alive = alive
        self._done = done
        self._digest = hashlib.sha256()
        self._size = 0
        # Reserved in the budget, and not yet those of a complete file.
        self._reserved = 0
        # A new name: an aborted upload may still be writing.
        self._staged = path.with_name(f"{new_id()}.part")
        with storage_errors(path.parent, 0):
            self._file = self._staged.open("xb", buffering=0)

    def write(self, data: bytes) -> None:
        """Append bytes.

        Raises:
            TooLarge: It is longer than a result may be.
            Conflict: The attempt has ended.
            Busy: All uploads together are too large.
            StorageFull: The disk is full.
        """
        self._size += len(data)
        if self._size > self._bytes_max:
            raise TooLarge("the result of a worker", self._bytes_max, self._size)
        if not self._alive():
            raise Conflict("the attempt has ended", hint="drop its result")
        self._budget.reserve(len(data))
        self._reserved += len(data)
        self._digest.update(data)
        with storage_errors(self._staged, len(data)):
            self._file.write(data)

    def finish(self, sha256: str) -> int:
        """Complete the file; return its size.

        Raises:
            BadInput: Its bytes do not have this hash.
        """
        if self._digest.hexdigest() != sha256:
            raise BadInput("the result of a worker", reason="its bytes do not match X-Sha256")
        self._staged.replace(self._path)
        self._budget.complete(self._path, self._reserved)
        self._reserved = 0
        return self._size

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()
        with suppress(OSError):
            self._staged.unlink(missing_ok=True)
        self._budget.release(self._reserved)
        self._done()
