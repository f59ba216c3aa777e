"""The object store of the lake: immutable, content-addressed files.

An object's id is the root hash over the SHA-256 of its chunks (1 MiB each), so any byte range can
be verified without reading the rest: the chunk hashes are stored next to the object as
`<id>.chunks`. The list of chunks is durable before the object gets its name, so every visible
object is complete and verifiable. An object of one chunk has no list, because its bytes prove
themselves. Objects are read-only files; only `lake.maintenance.retention` deletes them.

A file is durable before it gets its name. The names of all new objects of a commit become durable
together, by `sync_names`, which the catalog calls before it writes a row that needs them.

An object that is found to be damaged is moved to `quarantine/`, where nothing reads it. Storing the
same object again puts an intact file in its place: what is stored already is never trusted.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from lake.objects.disk_space import DiskSpace, Usage, WriteLimit
from lake.objects.durable import (
    NewFile,
    fsync_folder,
    fsync_folders,
    storage_errors,
    sweep_incoming,
    write_whole,
)
from sennit_core.errors import Corrupt, NotFound, SennitError, UsageError
from sennit_core.hashing import (
    CHUNK_BYTES,
    ObjectDigest,
    ObjectHasher,
    canonical_json,
    hash_file,
    object_id,
)
from sennit_core.private_files import READ_ONLY_MODE, make_private_folder

_ID = re.compile(r"[0-9a-f]{64}")
_CHUNKS_SUFFIX = ".chunks"
_QUARANTINE = "quarantine"
LOST = frozenset(
    (errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EACCES, errno.EPERM, errno.EIO, errno.ELOOP)
)
"""Errors of system calls that mean that an object's file is permanently unreadable.

Other errors, such as EMFILE, are not about the file.
"""


class ObjectWriter:
    """Writes one object, which does not exist before `commit`."""

    def __init__(self, store: ObjectStore, limit: WriteLimit | None) -> None:
        self._store = store
        self._limit = limit
        self._new = NewFile(store.root / "incoming")
        self._hasher = ObjectHasher(CHUNK_BYTES)

    def write(self, data: bytes | memoryview) -> None:
        """Append bytes; a full disk raises `StorageFull` and leaves other objects intact."""
        if self._limit is not None:
            size = memoryview(data).nbytes
            self._limit.check(self._store.root, self._new.size, size, "a new object")
        self._hasher.update(data)
        self._new.write(data)

    def commit(self, expected: str | None = None) -> ObjectDigest:
        """Give the object its name; it is durable after `ObjectStore.sync_names`.

        Args:
            expected: The id that it is to have; None for any.

        Raises:
            Corrupt: It has another one, and is not stored.
        """
        digest = self._hasher.finish()
        if expected not in (None, digest.object):
            raise Corrupt(f"object {expected}", expected=expected, found=digest.object)
        # The rename is the commit: whatever has an object's name can be verified.
        final = self._store.place(digest.object)
        self._store.prepare(digest)
        is_new = not final.exists()
        self._new.commit(final, mode=READ_ONLY_MODE, sync_folder=False)
        self._store.stored(digest, is_new=is_new)
        return digest

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._new.__exit__(kind, error, trace)


class ObjectStore:
    """The objects of one node, in a folder.

    Args:
        root: Folder of the objects; created if missing. Unfinished files that a crash left in it
            are removed.
        space: Knows the quota; None for no limit but the disk.
        on_restored: Called with the id of an object in quarantine that was stored again.
    """

    def __init__(
        self,
        root: Path | str,
        *,
        space: DiskSpace | None = None,
        on_restored: Callable[[str], object] = lambda name: None,
    ) -> None:
        self.root = Path(root)
        self._on_restored = on_restored
        self.on_changed: Callable[[str], object] = lambda name: None
        """Called with the id of an object that was stored, deleted or found to be damaged."""
        self._space = space
        # Held while folders are synced: who finds `_unsynced` empty has waited for those who
        # took its folders. Taken before `_names_lock`, which is never held during a system call.
        self._sync_lock = threading.Lock()
        self._names_lock = threading.Lock()
        # Folders with a new name that is not durable yet.
        self._unsynced: set[Path] = set()
        self._usage_lock = threading.Lock()
        self._usage: Usage | None = None  # counted at its first use, then kept up to date
        with storage_errors(self.root, 0):
            make_private_folder(self.root / "incoming")
        sweep_incoming(self.root / "incoming")

    def open_writer(self, *, bounded: bool = False) -> ObjectWriter:
        """Return a context manager that writes one object.

        Args:
            bounded: Whether the quota and the disk's reserve apply; not to metadata.
        """
        limit = self._space.limit() if bounded and self._space is not None else None
        return ObjectWriter(self, limit)

    def put_bytes(self, data: bytes) -> ObjectDigest:
        """Store a small object in one call."""
        with self.open_writer() as writer:
            writer.write(data)
            return writer.commit()

    def adopt(self, path: Path, digest: ObjectDigest | None = None) -> ObjectDigest:
        """Move a finished file on the same file system into the store; durable after `sync_names`.

        Args:
            path: The file; it is moved.
            digest: The digest computed by its writer; None computes it here.

        Raises:
            StorageFull: The disk is full, or the object exceeds the quota.
        """
        found = hash_file(path) if digest is None else digest
        # Cheap, and catches a file that was cut off after its writer hashed it; readers verify the
        # bytes.
        if path.stat().st_size != found.size:
            raise Corrupt(what=path.name, expected=f"{found.size} bytes", found=_size_text(path))
        final = self.place(found.object)
        with self._admitted(found, final), storage_errors(final, found.size):
            self.prepare(found)
            path.chmod(READ_ONLY_MODE)
            # Its writer need not have synced it, and the rename must not be durable before the data.
            descriptor = os.open(path, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            is_new = not final.exists()
            path.replace(final)
            self.stored(found, is_new=is_new)
        return found

    def path(self, name: str) -> Path:
        """Return the path of the object's file; raise `NotFound` if there is none."""
        path = self.place(name)
        if not path.exists():
            raise NotFound(kind="object", name=name, suggestion=None)
        return path

    def digest(self, name: str) -> ObjectDigest:
        """Return the object's size and chunk hashes, verified against its id."""
        return load_digest(self.path(name))

    def read(self, name: str, start: int = 0, stop: int | None = None) -> Iterator[bytes]:
        """Yield the bytes [start, stop) in order; each chunk is verified before it is yielded."""
        digest = self.digest(name)
        end = digest.size if stop is None else min(stop, digest.size)
        size = digest.chunk_bytes
        with _reading(name), self.path(name).open("rb", buffering=0) as file:
            # Whole chunks, since a hash covers one: a range costs at most a chunk more at each end.
            for index in range(max(start, 0) // size, -(-end // size)):
                file.seek(index * size)
                chunk = file.read(size)
                _check_chunk(name, index, chunk, digest.chunks[index])
                yield chunk[max(start - index * size, 0) : end - index * size]

    def read_chunk(self, name: str, start: int) -> bytes:
        """Return the chunk at an offset, not verified: for a receiver that does that.

        It is b"" if the file has no such bytes.
        """
        with _reading(name), self.path(name).open("rb", buffering=0) as file:
            if not 0 <= start < os.fstat(file.fileno()).st_size:
                return b""
            return os.pread(file.fileno(), CHUNK_BYTES, start)

    def verify(self, name: str) -> ObjectDigest:
        """Verify the whole object; raise `Corrupt` that names the first damaged chunk."""
        digest = self.digest(name)
        found = self.path(name).stat().st_size
        if found != digest.size:
            raise Corrupt(
                what=f"object {name}", expected=f"{digest.size} bytes", found=f"{found} bytes"
            )
        for _ in self.read(name):
            pass
        return digest

    def delete(self, *names: str) -> int:
        """Delete objects; return how many existed. Open readers can continue to read."""
        folders: dict[Path, None] = {}
        deleted = 0
        for name in names:
            path = self.place(name)
            existed = path.exists()
            size = path.stat().st_size if existed else 0
            # The object first: a crash in between leaves an unused list, not an unverifiable object.
            path.unlink(missing_ok=True)
            chunks_path(path).unlink(missing_ok=True)
            self.drop_quarantined(name)
            if existed:
                folders[path.parent] = None
                deleted += 1
                self._count(-size, -1)
                self.on_changed(name)
        # Each folder once, after all: a deletion that a power cut undoes leaves an object that
        # nothing references, which a sweep finds.
        fsync_folders(folders)
        return deleted

    def quarantine(self, name: str) -> bool:
        """Move a damaged object aside, so that nothing reads it; return whether that was done.

        It is hashed once more in its new place, and moved back if it is intact: it may have been
        stored again since the damage was found.
        """
        path, aside = self.place(name), quarantined_path(self.place(name))
        try:
            size = path.stat().st_size
            make_private_folder(aside.parent)
            path.replace(aside)
        except FileNotFoundError:
            return False
        if hash_file(aside).object == name:
            aside.replace(path)
            return False
        self._count(-size, -1)
        self.on_changed(name)
        with suppress(FileNotFoundError):
            chunks_path(path).replace(chunks_path(aside))
        fsync_folder(path.parent)
        fsync_folder(aside.parent)
        return True

    def quarantined(self) -> list[str]:
        """Return the ids of the objects in quarantine."""
        folder = self.root / _QUARANTINE
        names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
        return sorted(name for name in names if _ID.fullmatch(name))

    def mend_chunks(self, name: str) -> bool:
        """Write a damaged list of chunk hashes anew if the object itself is intact."""
        try:
            found = hash_file(self.place(name))
        except OSError:
            return False
        if found.object == name:
            self.keep_chunks(found)
        return found.object == name

    def __contains__(self, name: str) -> bool:
        return self.place(name).exists()

    def __iter__(self) -> Iterator[str]:
        for folder in sorted(self.root.iterdir()):
            if len(folder.name) == 2:
                yield from self.names(folder.name)

    def names(self, prefix: str) -> list[str]:
        """Return the ids that begin with two digits, in order."""
        folder = self.root / prefix
        if not folder.is_dir():
            return []
        return sorted(path.name for path in folder.iterdir() if _ID.fullmatch(path.name))

    def stored_bytes(self) -> int:
        """Return the total bytes of all objects."""
        return self.usage().bytes

    def usage(self) -> Usage:
        """Return the bytes and the number of all objects; reads the folder at the first call."""
        with self._usage_lock:
            if self._usage is None:
                size = count = 0
                for name in self:
                    with suppress(FileNotFoundError):
                        size += self.place(name).stat().st_size
                        count += 1
                self._usage = Usage(size, count)
            return self._usage

    def sync_names(self) -> None:
        """Make the names of all objects durable that were stored before this call."""
        with self._sync_lock:
            with self._names_lock:
                folders, self._unsynced = self._unsynced, set()
            try:
                fsync_folders(folders)
            except BaseException:
                # Another commit may need them too.
                with self._names_lock:
                    self._unsynced |= folders
                raise

    def prepare(self, digest: ObjectDigest) -> None:
        """Make an object's folder, and its list of chunks if it needs one; for its writers."""
        folder = self.place(digest.object).parent
        if not folder.exists():
            with storage_errors(folder, 0):
                make_private_folder(folder)
            with self._names_lock:
                self._unsynced.add(self.root)
        self.keep_chunks(digest)

    def stored(self, digest: ObjectDigest, *, is_new: bool) -> None:
        """Note that an object has its name now; for its writers."""
        with self._names_lock:
            self._unsynced.add(self.place(digest.object).parent)
        if is_new:
            self._count(digest.size, 1)
            self.on_changed(digest.object)
        if self.drop_quarantined(digest.object):
            self._on_restored(digest.object)

    def drop_quarantined(self, name: str) -> bool:
        """Delete an object's damaged copy; return whether there was one."""
        aside = quarantined_path(self.place(name))
        existed = aside.exists()
        if existed:
            aside.unlink(missing_ok=True)
            chunks_path(aside).unlink(missing_ok=True)
        return existed

    def _count(self, size: int, objects: int) -> None:
        with self._usage_lock:
            if self._usage is not None:
                self._usage = Usage(self._usage.bytes + size, self._usage.objects + objects)

    def _admitted(self, digest: ObjectDigest, final: Path) -> AbstractContextManager[None]:
        if self._space is None or final.exists():
            return nullcontext()
        return self._space.admit("the new shard", digest.size, 1)

    def place(self, name: str) -> Path:
        """Return the path of an object, which need not exist; refuse an invalid object id."""
        if not _ID.fullmatch(name):
            raise UsageError(f"{name[:80]!r} is not an object id (64 hex digits)")
        return self.root / name[:2] / name

    def keep_chunks(self, digest: ObjectDigest) -> None:
        """Write the chunk hashes durably, always before the object gets its name.

        One chunk needs no list: it has no parts that could be verified alone.
        """
        if _is_one_chunk(digest):
            return
        kept = {
            "size": digest.size,
            "chunkBytes": digest.chunk_bytes,
            "chunks": list(digest.chunks),
        }
        path = chunks_path(self.place(digest.object))
        write_whole(path, canonical_json(kept), mode=READ_ONLY_MODE)


def quarantined_path(path: Path) -> Path:
    """Return where an object's file is while it is in quarantine."""
    return path.parent.parent / _QUARANTINE / path.name


def load_digest(path: Path) -> ObjectDigest:
    """Load the size and chunk hashes of the object at `path`, verified against its id (file name).

    An object without a list is read and hashed.

    Raises:
        Corrupt: The list, or the object of one chunk, is missing, unreadable, or does not match the
            object's id.
    """
    what = f"the list of chunk hashes of object {path.name}"
    if not has_list(path):
        return _one_chunk_digest(path)
    try:
        kept = json.loads(chunks_path(path).read_bytes())
        size, chunk_bytes = kept["size"], kept["chunkBytes"]
        chunks = tuple(kept["chunks"])
        root = object_id(size, chunk_bytes, chunks)
    except OSError as error:
        if error.errno not in LOST:
            raise
        raise Corrupt(what, expected="a readable file", found=str(error.strerror)) from error
    except (ValueError, KeyError, TypeError, struct.error) as error:
        raise Corrupt(what, expected="JSON as it was written", found=str(error)) from error
    # The list is checked against the object's id, so it needs no checksum of its own.
    if root != path.name:
        raise Corrupt(what, expected=path.name, found=root)
    return ObjectDigest(object=path.name, size=size, chunk_bytes=chunk_bytes, chunks=chunks)


def has_list(path: Path) -> bool:
    """Return whether the object at `path` has a list of chunk hashes, or must have one.

    One of at most a chunk has none, except those of earlier versions of Sennit.
    """
    try:
        if path.stat().st_size > CHUNK_BYTES:
            return True
    except OSError:
        pass  # the object is missing: reading it will say so
    return chunks_path(path).exists()


def _is_one_chunk(digest: ObjectDigest) -> bool:
    return digest.chunk_bytes == CHUNK_BYTES and digest.size <= CHUNK_BYTES


def _one_chunk_digest(path: Path) -> ObjectDigest:
    with _reading(path.name):
        found = hash_file(path)
    if found.object != path.name:
        # Named as a reader of any other object would name it.
        raise Corrupt(f"chunk 0 of object {path.name}", expected=path.name, found=found.object)
    return found


@contextmanager
def _reading(name: str) -> Iterator[None]:
    """Convert read errors of an object's file to Corrupt."""
    try:
        yield
    except OSError as error:
        if error.errno not in LOST or isinstance(error, SennitError):
            raise
        raise Corrupt(
            f"object {name}", expected="a readable file", found=str(error.strerror)
        ) from error


def chunks_path(path: Path) -> Path:
    """Return where the list of chunk hashes of the object at `path` is, if it has one."""
    return path.with_name(path.name + _CHUNKS_SUFFIX)


def _check_chunk(name: str, index: int, chunk: bytes, expected: str) -> None:
    found = hashlib.sha256(chunk).hexdigest()
    if found != expected:
        raise Corrupt(what=f"chunk {index} of object {name}", expected=expected, found=found)


def _size_text(path: Path) -> str:
    return f"{path.stat().st_size} bytes"
