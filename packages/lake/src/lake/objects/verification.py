"""Verify shards before they are read: at their first read in each process, or at every read.

An object's file is read whole and compared with its chunk hashes, which are compared with its id.
A process does that once for each file, and again if the file's inode, size or times have changed.
Hashing needs 256 KiB of memory and runs at SHA-256's speed; a verified file costs one `stat`.

Not detected is damage below the file system (a failing disk) that does not change the file's times,
after the file was verified. `lake.maintenance.scrub` reads from the disk and finds such damage. With the mode
`always` every statement hashes its files anew; what is left is damage between that and the engine's
own read. `docs/damage.md` describes both windows.
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lake.errors import damaged_shard
from lake.objects.store import LOST, ObjectStore, has_list, load_digest, quarantined_path
from sennit_core.errors import Corrupt, UsageError
from sennit_core.hashing import CHUNK_BYTES, ObjectDigest, object_id

if TYPE_CHECKING:
    from emsqrt.executor import EntryContext

__all__ = [
    "VERIFY_MODES",
    "Damage",
    "ShardFile",
    "Verifier",
    "check_mode",
    "examine_object",
    "find_damage",
    "verify_shards",
]

VERIFY_MODES = ("open", "always")
"""`open`: at the first read in each process, and when the file has changed. `always`: each time."""

_PIECE_BYTES = 256 << 10  # larger pieces are not faster, and this fits into small memory caps
_FILES_MAX = 16_384  # verified files per process: at most 8 MiB of memory for 1 TiB of shards

Checkpoint = Callable[[], object]
"""Called between pieces of a file; raises to stop."""

FileState = tuple[int, int, int, int, int]


@dataclass(frozen=True, slots=True)
class ShardFile:
    """A shard's file, with its dataset and index for errors.

    Args:
        dataset: The dataset's name.
        index: The shard's index in the snapshot.
        path: The object's file; its name is the object's id.
        always: Whether to verify it at every read (`VERIFY_MODES`).
    """

    dataset: str
    index: int
    path: str
    always: bool = False

    def to_json(self) -> list[Any]:
        """Return the shard in the form of executor requests."""
        return [self.dataset, self.index, self.path, self.always]

    @classmethod
    def from_json(cls, data: list[Any]) -> ShardFile:
        """Read the form of `to_json`."""
        return cls(*data)


@dataclass(frozen=True, slots=True)
class Damage:
    """Damage to an object's file.

    Args:
        part: `chunk N`, `the file`, or `the list of chunk hashes`.
        expected: The expected value.
        found: The value found.
        is_content: Whether the file's bytes are wrong, and not only unreadable at the moment.
    """

    part: str
    expected: str
    found: str
    is_content: bool = False


_MOVED_ASIDE = Damage("the file", "intact bytes", "damaged ones, which were moved aside")


class Verifier:
    """Verifies the files of one process; thread-safe; concurrent callers hash a file only once."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        # Invariant: an entry means that all bytes of the file were verified while it had this
        # state.
        self._verified: dict[str, FileState] = {}
        # Files that are being hashed; the event is set at the end, with any outcome.
        self._hashing: dict[str, threading.Event] = {}

    def check(self, shard: ShardFile, checkpoint: Checkpoint = lambda: None) -> None:
        """Verify a shard; return if its bytes match its object's hashes.

        Args:
            shard: The shard.
            checkpoint: Called after each piece.

        Raises:
            Corrupt: They differ, or the file cannot be read; names dataset, shard and chunk.
        """
        if shard.always:
            # Not shared with concurrent callers: another one's hashing began before this read.
            self._hash(shard, checkpoint)
            return
        while not self._is_verified(shard.path):
            with self._lock:
                # Another thread may have finished between the check above and this lock.
                if self._is_verified(shard.path):
                    return
                busy = self._hashing.get(shard.path)
                if busy is None:
                    done = self._hashing[shard.path] = threading.Event()
            if busy is not None:
                busy.wait()  # then check again: the other thread may have failed or been cancelled
                continue
            try:
                self._hash(shard, checkpoint)
            finally:
                with self._lock:
                    del self._hashing[shard.path]
                done.set()
            return

    def _is_verified(self, path: str) -> bool:
        try:
            # Called once per shard and query: creating a Path would cost more than the call.
            return self._verified.get(path) == _state(os.stat(path))  # noqa: PTH116
        except OSError:
            return False  # hashing will report the error

    def _hash(self, shard: ShardFile, checkpoint: Checkpoint) -> None:
        # Until the bytes are verified anew, the old entry must not count for the changed file.
        with self._lock:
            self._verified.pop(shard.path, None)
        path = Path(shard.path)
        # Before the first byte is read, and compared after the last one. ctime cannot be set by a
        # program, so every write is seen.
        before = _try_state(path)
        damage = find_damage(path, checkpoint)
        if damage is not None:
            raise damaged_shard(
                shard.dataset, shard.index, path.name, damage.part, damage.expected, damage.found
            )
        # A file that changed while it was hashed is hashed again on next use.
        if before is not None and before == _try_state(path):
            with self._lock:
                self._verified[shard.path] = before
                while len(self._verified) > _FILES_MAX:
                    # The oldest entry; its file is hashed once more on its next use.
                    del self._verified[next(iter(self._verified))]


def find_damage(
    path: Path, checkpoint: Checkpoint = lambda: None, *, from_disk: bool = False
) -> Damage | None:
    """Compare an object's file with its id; return None if every byte is correct.

    Args:
        path: The file, with its chunk hashes next to it.
        checkpoint: Called after each piece.
        from_disk: Drop the file from the page cache before and after reading, as far as the
            kernel allows (not pages that are mapped).
    """
    try:
        digest = load_digest(path) if has_list(path) else None
    except Corrupt as problem:
        if quarantined_path(path).exists():
            return _MOVED_ASIDE
        return Damage("the list of chunk hashes", problem.expected or "", problem.found or "")
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            if from_disk:
                # Else the bytes would come from the page cache, and damage on the disk would not be
                # seen. O_DIRECT was rejected: it fails on some file systems and needs aligned
                # buffers.
                os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_SEQUENTIAL)
            if digest is None:
                return _damage_in_one_chunk(descriptor, path.name, checkpoint)
            return _damage_in(descriptor, digest, checkpoint)
        finally:
            if from_disk:
                os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(descriptor)
    except OSError as error:
        if error.errno not in LOST:
            raise
        if quarantined_path(path).exists():
            return _MOVED_ASIDE
        return Damage("the file", "a readable file", str(error.strerror))


def examine_object(
    objects: ObjectStore, name: str, checkpoint: Checkpoint = lambda: None
) -> Damage | None:
    """Verify a stored object from the disk; mend its list of hashes, or move a damaged file aside.

    Args:
        objects: The store.
        name: The object; it is leased, as a deletion meanwhile would look like damage.
        checkpoint: Called after each piece.

    Returns:
        The damage that is left; None if the object is intact now.
    """
    path = objects.place(name)
    damage = find_damage(path, checkpoint, from_disk=True)
    if damage is None:
        objects.drop_quarantined(name)  # somebody has put the file back
        return None
    if not damage.is_content and path.exists() and objects.mend_chunks(name):
        # The list was damaged and not the object; it proves itself by the id.
        damage = find_damage(path, checkpoint, from_disk=True)
    if damage is not None and damage.is_content and not objects.quarantine(name):
        damage = find_damage(path, checkpoint, from_disk=True)
    return damage


def check_mode(mode: str) -> bool:
    """Return whether the mode is `always`; raise UsageError if there is no such mode."""
    if mode not in VERIFY_MODES:
        raise UsageError(f"verify is {mode!r}", hint=f"set it to {' or '.join(VERIFY_MODES)}")
    return mode == "always"


def verify_shards(shards: Iterable[ShardFile], context: EntryContext) -> None:
    """Verify the shards that an executor is about to read; call it before opening them.

    Raises:
        Corrupt: A shard is damaged.
        Cancelled, DeadlineExceeded: As `context.check`.
    """
    for shard in shards:
        context.check()
        _EXECUTOR.check(shard, context.check)


_EXECUTOR = Verifier()
"""The verifier of this process, if it is an executor."""


def _damage_in(descriptor: int, digest: ObjectDigest, checkpoint: Checkpoint) -> Damage | None:
    size = os.fstat(descriptor).st_size
    if size != digest.size:
        return Damage("the file", f"{digest.size} bytes", f"{size} bytes", is_content=True)
    buffer = bytearray(min(_PIECE_BYTES, max(size, 1)))
    with memoryview(buffer) as view:
        for index, expected in enumerate(digest.chunks):
            hasher = hashlib.sha256()
            left = min(digest.chunk_bytes, size - index * digest.chunk_bytes)
            while left > 0:
                count = os.readv(descriptor, [view[: min(left, len(view))]])
                if count == 0:  # the file was truncated in the meantime
                    break
                hasher.update(view[:count])
                left -= count
                checkpoint()
            if hasher.hexdigest() != expected:
                return Damage(
                    f"chunk {index}", f"SHA-256 {expected}", hasher.hexdigest(), is_content=True
                )
    return None


def _damage_in_one_chunk(descriptor: int, name: str, checkpoint: Checkpoint) -> Damage | None:
    """As `_damage_in`, for an object that has no list of chunk hashes."""
    hasher, size = hashlib.sha256(), 0
    piece = bytearray(min(_PIECE_BYTES, max(os.fstat(descriptor).st_size, 1)))
    with memoryview(piece) as view:
        while (count := os.readv(descriptor, [view])) and size <= CHUNK_BYTES:
            hasher.update(view[:count])
            size += count
            checkpoint()
    chunks = (hasher.hexdigest(),) if size else ()
    # A file that has grown meanwhile is not one chunk any more.
    found = object_id(size, CHUNK_BYTES, chunks) if size <= CHUNK_BYTES else "more bytes"
    if found != name:
        return Damage("chunk 0", f"object {name}", found, is_content=True)
    return None


def _state(status: os.stat_result) -> FileState:
    return (
        status.st_dev,
        status.st_ino,
        status.st_size,
        status.st_mtime_ns,
        status.st_ctime_ns,
    )


def _try_state(path: Path) -> FileState | None:
    try:
        return _state(path.stat())
    except OSError:
        return None
