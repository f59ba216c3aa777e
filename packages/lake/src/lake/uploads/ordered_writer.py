"""Appends to an upload whose bytes arrive in order: what was received stays if the client breaks off.

A request's bytes become parts of up to `part_bytes` each. A part is durable before it gets its name, so
the offset that clients see is that of durable bytes, and an interruption costs at most one part.

    request   |................................|..........x     x: the connection breaks
    parts     | full | full | full | full | short|  short |     both short parts are kept

With an announced checksum no part gets its name before the whole body was verified.
"""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Self

from lake.uploads.tus_headers import Checksum, ChecksumMismatch
from sennit_core.errors import TooLarge
from sennit_core.units import MIB

if TYPE_CHECKING:
    from lake.uploads.part_writer import PartWriter
    from lake.uploads.parts import PartStore
    from lake.uploads.upload import UploadInfo

__all__ = ["OrderedWriter"]

CHECKED_BYTES_MAX = 256 * MIB
"""The longest body with a checksum: its parts are open files until it was verified."""


class OrderedWriter:
    """Appends one request's body to an upload; a context manager.

    Only one may exist for an upload at a time.

    Args:
        parts: The part store.
        upload: The upload, whose size is known.
        checksum: The announced checksum of the body.
        is_whole: Whether the client sent the whole body; called by `commit`.
    """

    def __init__(
        self,
        parts: PartStore,
        upload: UploadInfo,
        checksum: Checksum | None = None,
        *,
        is_whole: Callable[[], bool] = lambda: True,
    ) -> None:
        assert upload.size is not None
        self._parts = parts
        self._upload = upload
        self._size: int = upload.size
        self._checksum = checksum
        self._hash = None if checksum is None else checksum.new_hash()
        self._is_whole = is_whole
        self._index, self._start = parts.position(upload.id)
        self._received = 0
        # Bytes of the current part, the last of `_open`; the others wait for the checksum.
        self._part_bytes = 0
        self._open: list[PartWriter] = []

    def write(self, data: bytes | memoryview) -> None:
        """Append bytes.

        Raises:
            TooLarge: The upload would exceed its size, or a body with a checksum its limit.
        """
        rest = memoryview(data)
        self._check_room(len(rest))
        if self._hash is not None:
            self._hash.update(rest)
        while rest:
            if not self._open or self._part_bytes == self._upload.part_bytes:
                self._open_part()
            room = self._upload.part_bytes - self._part_bytes
            piece, rest = rest[:room], rest[room:]
            self._open[-1].write(piece)
            self._part_bytes += len(piece)
            self._received += len(piece)
            if self._hash is None and self._part_bytes == self._upload.part_bytes:
                self._keep_parts()

    def commit(self) -> None:
        """Keep the bytes, also those of a body that broke off, unless they are unverified then.

        Raises:
            ChecksumMismatch: They do not have the announced checksum; none is kept.
        """
        if self._checksum is not None and self._hash is not None:
            if not self._is_whole():
                return
            if self._hash.digest() != self._checksum.digest:
                raise ChecksumMismatch(
                    what=f"the request to upload {self._upload.id}",
                    reason=f"its {self._checksum.algorithm} checksum differs from the announced one",
                    hint="send the same bytes again",
                )
        self._keep_parts()

    def _check_room(self, coming: int) -> None:
        end = self._start + self._received + coming
        if end > self._size:
            raise TooLarge(f"upload {self._upload.id}", self._size, end)
        if self._hash is not None and self._received + coming > CHECKED_BYTES_MAX:
            raise TooLarge(
                "a request with a checksum",
                CHECKED_BYTES_MAX,
                hint="send the file in several requests, or without Upload-Checksum",
            )

    def _open_part(self) -> None:
        index = self._index + len(self._open)
        start = self._start + self._received
        self._open.append(self._parts.open_next(self._upload, index, start))
        self._part_bytes = 0

    def _keep_parts(self) -> None:
        # In order, so that a crash in between leaves a prefix.
        while self._open:
            with self._open[0] as part:
                part.commit()
            del self._open[0]
            self._index += 1
        self._part_bytes = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for part in self._open:
            part.__exit__(kind, error, trace)
        self._open.clear()
