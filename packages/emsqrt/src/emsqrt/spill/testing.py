"""Fault injection: a disk and an object client of which the n-th call fails.

A test counts the calls of an undisturbed round trip, then repeats it once for every call and every
kind of fault, and checks that it ends with the correct result or with a `SpillError`.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from emsqrt.spill.clients import ObjectClient, ObjectFacts, RequestFailed
from emsqrt.spill.local import Disk

if TYPE_CHECKING:
    from typing_extensions import Buffer

DiskFault = Literal["full", "broken", "short", "flipped"]
DISK_FAULTS: tuple[DiskFault, ...] = ("full", "broken", "short", "flipped")
ClientFault = Literal["lost once", "lost", "refused", "short", "flipped"]
CLIENT_FAULTS: tuple[ClientFault, ...] = ("lost once", "lost", "refused", "short", "flipped")


class FaultyDisk(Disk):
    """A disk of which call number `at` (from 1) fails; 0 for none.

    Args:
        at: the number of the call; `calls` is the number of calls so far.
        fault: `full` (ENOSPC), `broken` (EIO), `short` (one byte less is written or read than
            requested, as after a signal or at a quota), `flipped` (one bit that is read).
    """

    def __init__(self, at: int = 0, fault: DiskFault = "broken") -> None:
        self.calls = 0
        self.names: list[str] = []
        self._at = at
        self._fault = fault

    def create(self, path: Path) -> int:
        """Fail, or create a file."""
        self._count("create")
        return super().create(path)

    def open(self, path: Path) -> int:
        """Fail, or open a file."""
        self._count("open")
        return super().open(path)

    def write(self, file: int, parts: Sequence[memoryview]) -> int:
        """Fail, write a byte less, or write."""
        if self._count("write") and self._fault == "short":
            return os.writev(file, [parts[0][:1]])
        return super().write(file, parts)

    def read(self, file: int, target: memoryview, offset: int) -> int:
        """Fail, read a byte, flip a bit, or read."""
        wrong = self._count("read")
        came = super().read(
            file, target[:1] if wrong and self._fault == "short" else target, offset
        )
        if wrong and self._fault == "flipped":
            target[came // 2] ^= 4
        return came

    def flush(self, file: int, start: int, size: int, *, wait: bool) -> None:
        """Fail, or flush to the disk."""
        self._count("flush")
        super().flush(file, start, size, wait=wait)

    def forget(self, file: int, start: int, size: int) -> None:
        """Fail, or drop from the cache."""
        self._count("forget")
        super().forget(file, start, size)

    def unlink(self, path: Path) -> None:
        """Fail, or remove."""
        self._count("unlink")
        super().unlink(path)

    def _count(self, name: str) -> bool:
        self.calls += 1
        self.names.append(name)
        if self.calls != self._at:
            return False
        code = {"full": errno.ENOSPC, "broken": errno.EIO}.get(self._fault)
        if code is not None:
            raise OSError(code, os.strerror(code))
        return True


class FaultyClient:
    """An object client of which request number `at` (from 1) fails; 0 for none.

    Args:
        client: the client for all other requests.
        at: the number of the request; `requests` is the number of requests so far.
        fault: `lost once` (no response, although the request may have been executed), `lost` (no
            response from there on), `refused` (an error response), `short` (fewer bytes than
            requested), `flipped` (one bit that is read).
    """

    def __init__(self, client: ObjectClient, at: int = 0, fault: ClientFault = "lost once") -> None:
        self.place = client.place
        self.requests = 0
        self._client = client
        self._at = at
        self._fault = fault

    def put(self, key: str, data: Buffer) -> None:
        """Store an object, or fail after it was stored."""
        wrong = self._count()
        self._client.put(key, data)
        self._fail(wrong)

    def get(self, key: str, start: int, length: int) -> Buffer:
        """Read a range, or some of it, or none."""
        wrong = self._count()
        self._fail(wrong)
        data = bytearray(self._client.get(key, start, length))
        if wrong and self._fault == "short":
            del data[-1:]
        if wrong and self._fault == "flipped":
            data[len(data) // 2] ^= 4
        return data

    def delete(self, keys: Sequence[str]) -> None:
        """Remove objects, or fail after they were removed."""
        wrong = self._count()
        self._client.delete(keys)
        self._fail(wrong)

    def list(self, prefix: str) -> Iterator[ObjectFacts]:
        """List objects, or fail."""
        self._fail(self._count())
        return self._client.list(prefix)

    def _count(self) -> bool:
        self.requests += 1
        return self.requests == self._at or (self._fault == "lost" and 0 < self._at < self.requests)

    def _fail(self, wrong: bool) -> None:
        if wrong and self._fault in ("lost once", "lost"):
            raise RequestFailed("connection reset", retryable=True)
        if wrong and self._fault == "refused":
            raise RequestFailed("403 Forbidden", retryable=False)


class MemoryClient:
    """A client that stores objects in a dictionary."""

    place = "memory"

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}

    def put(self, key: str, data: Buffer) -> None:
        """Store an object."""
        self.objects[key] = bytes(data)

    def get(self, key: str, start: int, length: int) -> Buffer:
        """Read a range."""
        if key not in self.objects:
            raise RequestFailed("404 Not Found", retryable=False, is_missing=True)
        return self.objects[key][start : start + length]

    def delete(self, keys: Sequence[str]) -> None:
        """Remove objects; missing objects are no error."""
        for key in keys:
            self.objects.pop(key, None)

    def list(self, prefix: str) -> Iterator[ObjectFacts]:
        """List objects."""
        for key, data in sorted(self.objects.items()):
            if key.startswith(prefix):
                yield ObjectFacts(key, len(data), 0.0)
