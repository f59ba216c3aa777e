"""The upload of one result of a remote worker."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from lake.durable import storage_errors
from sennit_core.errors import BadInput, Conflict, TooLarge
from sennit_core.ids import new_id

__all__ = ["Upload"]


class Upload:
    """A file that is received; it gets its name when it is complete.

    Args:
        path: Its name.
        bytes_max: Its largest size.
        alive: Renews the attempt's lease; returns False if the attempt has ended.
        done: Called at the end.
    """

    def __init__(
        self,
        path: Path,
        bytes_max: int,
        *,
        alive: Callable[[], bool],
        done: Callable[[], None],
    ) -> None:
        self._path = path
        self._bytes_max = bytes_max
        self._alive = alive
        self._done = done
        self._digest = hashlib.sha256()
        self._size = 0
        # A new name: an aborted upload may still be writing.
        self._staged = path.with_name(f"{new_id()}.part")
        with storage_errors(path.parent, 0):
            self._file = self._staged.open("xb", buffering=0)

    def write(self, data: bytes) -> None:
        """Append bytes.

        Raises:
            TooLarge: It is longer than a result may be.
            Conflict: The attempt has ended.
            StorageFull: The disk is full.
        """
        self._size += len(data)
        if self._size > self._bytes_max:
            raise TooLarge("the result of a worker", self._bytes_max, self._size)
        if not self._alive():
            raise Conflict("the attempt has ended", hint="drop its result")
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
        self._done()
