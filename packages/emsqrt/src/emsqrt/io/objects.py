"""Objects of a store as sources and outputs: `s3://`, `gs://` and `az://`.

The clients are those of `emsqrt.spill`; credentials, region and endpoint come from the environment.
Reads are range requests with retries. An output is one multipart upload, or on Google Cloud Storage
an object of another name that is renamed, so it appears whole or not at all.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from typing import Any, TypeVar

from emsqrt.io.codecs import RawStream
from emsqrt.io.locations import Location
from emsqrt.io.sources import ByteSource
from emsqrt.spill.clients import ObjectClient, RequestFailed, open_client, scrubbed
from emsqrt.spill.retry import Retry
from sennit_core.errors import NotFound, Unavailable
from sennit_core.ids import new_id

T = TypeVar("T")

_RANGE_BYTES = 1 << 20
_PART_BYTES = 8 << 20
_RETRY_MS = 30_000
UPLOAD_BYTES = 2 * _PART_BYTES
"""Memory of an upload: the part being filled and the one being sent."""


class ObjectSource(ByteSource):
    """One object, read in ranges.

    Args:
        place: its location.

    Raises:
        NotFound: there is no such object.
        Unavailable: the store does not respond, or refuses.
    """

    def __init__(self, place: Location) -> None:
        super().__init__(str(place))
        bucket, _, self._key = place.path.partition("/")
        self._client = open_bucket(place.scheme, bucket)
        self._size = _size_of(self._client, place)

    @property
    def stored_bytes(self) -> int:
        """The object's length when the source was opened."""
        return self._size

    @property
    def need_bytes(self) -> int:
        """Memory for reading: a range as received and as kept, and the decompressor."""
        return super().need_bytes + 2 * _RANGE_BYTES

    def open_raw(self) -> RawStream:
        """Read it from the beginning."""
        return _RangeStream(self)

    def read_at(self, offset: int, size: int) -> bytes:
        """Return a part of it."""
        size = min(size, self._size - offset)
        if size <= 0:
            return b""
        return _asked(self.name, lambda: bytes(self._client.get(self._key, offset, size)))


class _RangeStream:
    """An object read from start to end, a range at a time."""

    def __init__(self, source: ObjectSource) -> None:
        self._source = source
        self._offset = 0
        self._held = memoryview(b"")

    def readinto(self, buffer: memoryview, /) -> int:
        if not self._held:
            self._held = memoryview(self._source.read_at(self._offset, _RANGE_BYTES))
            self._offset += len(self._held)
        part = self._held[: len(buffer)]
        buffer[: len(part)] = part
        self._held = self._held[len(part) :]
        return len(part)

    def close(self) -> None:
        """Do nothing: no connection is open between requests."""


def _size_of(client: Any, place: Location) -> int:
    """Return an object's length; a listing cannot be used: it treats the key as a folder."""
    _, _, key = place.path.partition("/")
    if place.scheme == "gs":
        return _size_by_arrow(client, place)
    import obstore

    try:
        size: int = obstore.head(client._store, key)["size"]  # noqa: SLF001 - as `_multipart`
    except FileNotFoundError:
        raise NotFound("object", str(place)) from None
    except obstore.exceptions.BaseError as error:
        raise _unavailable(str(place), scrubbed(error, ())) from None
    return size


def _size_by_arrow(client: Any, place: Location) -> int:
    try:
        info = client._files.get_file_info(place.path)  # noqa: SLF001 - as `_renamed`
    except OSError as error:
        raise _unavailable(str(place), scrubbed(error, ())) from None
    if not info.is_file:
        raise NotFound("object", str(place))
    return int(info.size)


@lru_cache(maxsize=16)
def open_bucket(scheme: str, bucket: str) -> ObjectClient:
    """Return the client of a bucket.

    Raises:
        Unsupported: the package for this kind of store is not installed.
    """
    emulated = scheme == "gs" and "STORAGE_EMULATOR_HOST" in os.environ  # it needs no account
    options = {"anonymous": "true"} if emulated else {}
    client, _ = open_client(f"{scheme}://{bucket}", options)
    return client


def list_objects(scheme: str, prefix: str) -> list[str]:
    """Return `bucket/key` of every object below the folder `prefix`, which includes the bucket."""
    bucket, _, folder = prefix.strip("/").partition("/")
    client = open_bucket(scheme, bucket)
    below = f"{folder}/" if folder else ""
    return _asked(
        f"{scheme}://{prefix}", lambda: [f"{bucket}/{facts.key}" for facts in client.list(below)]
    )


@contextmanager
def open_object(place: Location) -> Iterator[Any]:
    """Open an object for writing; it appears when the context is left without an error.

    Raises:
        Unavailable: the store refuses it.
    """
    bucket, _, key = place.path.partition("/")
    client: Any = open_bucket(place.scheme, bucket)
    opener = _renamed if place.scheme == "gs" else _multipart
    try:
        with opener(client, bucket, key) as upload:
            yield upload
    except OSError as error:
        raise _unavailable(str(place), str(error)) from error


@contextmanager
def _multipart(client: Any, bucket: str, key: str) -> Iterator[Any]:
    """Upload with obstore: only `close` completes it; without that no object appears."""
    import obstore

    del bucket  # the client's store knows it
    writer = obstore.open_writer(
        client._store,  # noqa: SLF001 - the client has no uploads of its own
        key,
        buffer_size=_PART_BYTES,
        max_concurrency=1,
    )
    try:
        yield _Copied(writer)
        writer.close()
    except obstore.exceptions.BaseError as error:
        raise _unavailable(f"{client.place}/{key}", str(error)) from error


class _Copied:
    """Copies buffers, because obstore keeps them until they are sent, and ours are reused."""

    def __init__(self, writer: Any) -> None:
        self._writer = writer

    def write(self, data: Any) -> None:
        self._writer.write(bytes(data))


@contextmanager
def _renamed(client: Any, bucket: str, key: str) -> Iterator[Any]:
    """Upload with pyarrow to another name: its streams complete even when they are dropped."""
    files = client._files  # noqa: SLF001 - the client has no uploads of its own
    staged, final = f"{bucket}/{key}.{new_id()}.tmp", f"{bucket}/{key}"
    try:
        with files.open_output_stream(staged, compression=None) as out:
            yield out
        files.move(staged, final)
    except BaseException:
        with suppress(OSError):
            files.delete_file(staged)
        raise


def _asked(what: str, request: Callable[[], T]) -> T:
    try:
        return Retry(_RETRY_MS).run(request)
    except RequestFailed as error:
        if error.is_missing:
            raise NotFound("object", what) from None
        raise _unavailable(what, error.reason) from None


def _unavailable(what: str, reason: str) -> Unavailable:
    return Unavailable(
        f"{what} ({reason})",
        hint="check the endpoint, region and credentials in the environment",
    )
