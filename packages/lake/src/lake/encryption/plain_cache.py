"""Decrypted shards in memory: files of a tmpfs that only this account can read.

DuckDB and the Parquet readers open files by path, so an encrypted shard is decrypted into a folder of
mode 0700 on a tmpfs, for as long as statements read it and then until its room is needed. The folder
also has the temporary files of those statements. It is removed at `close`, and at the next start after
a crash. A tmpfs may be swapped out: encrypt the machine's swap, or have none.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import stat
import threading
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from lake.encryption.sealed import unseal_file
from lake.errors import damaged_shard
from lake.objects.store import ObjectStore
from lake.objects.verification import find_damage
from sennit_core.errors import Corrupt, Denied, StorageFull, Unsupported
from sennit_core.ids import new_id
from sennit_core.private_files import FOLDER_MODE
from sennit_core.units import MIB, format_bytes

__all__ = ["PLAIN_BYTES", "PlainCache", "SealedShard"]

PLAIN_BYTES = 512 * MIB
_SHM = Path("/dev/shm")
_IN_MEMORY = frozenset(("tmpfs", "ramfs"))


@dataclass(frozen=True, slots=True)
class SealedShard:
    """An encrypted shard to be read.

    Args:
        object: Its object.
        dataset: The dataset's id.
        name: The dataset's name, for errors.
        index: The shard's index in the snapshot, for errors.
        path: Its file, if it is no object yet.
    """

    object: str
    dataset: str
    name: str
    index: int
    path: Path | None = None


class PlainCache:
    """The decrypted shards of one lake; thread-safe.

    Args:
        data: The data folder, by which the folder in memory is named.
        objects: The encrypted shards.
        budget_bytes: Most bytes of decrypted shards and temporary files together.
        keep: Whether shards stay after their last reader.
        root: A folder on a tmpfs.
    """

    def __init__(
        self,
        data: Path,
        objects: ObjectStore,
        *,
        budget_bytes: int = PLAIN_BYTES,
        keep: bool = True,
        root: Path = _SHM,
    ) -> None:
        name = hashlib.sha256(os.fsencode(data.resolve())).hexdigest()[:16]
        self.folder = root / f"sennit-{os.geteuid()}-{name}"
        self.budget_bytes = budget_bytes
        self._root = root
        self._objects = objects
        self._keep = keep
        self._lock = threading.Lock()
        # Sizes of the decrypted files, the least recently used first, and how many statements read
        # each; a file with readers is never removed.
        self._sizes: OrderedDict[str, int] = OrderedDict()
        self._readers: dict[str, int] = {}
        # Those with readers that go although there is room; a subset of the readers' keys.
        self._unwanted: set[str] = set()
        # Of copies that are not shards, as of results; their owners hold the files.
        self._reserved_bytes = 0
        self._is_open = False
        self.close()  # what a crash has left

    def acquire(self, shards: Sequence[SealedShard], keys: dict[str, bytes]) -> list[str]:
        """Decrypt the shards that are not here; return their paths, valid until `release`.

        Args:
            shards: The shards.
            keys: The data keys by dataset.

        Raises:
            StorageFull: They exceed the budget.
            Corrupt: A shard is damaged.
        """
        done: list[str] = []
        try:
            with self._lock:
                self._open()
                self._check_fits(shards)
                for shard in shards:
                    self._acquire(shard, keys[shard.dataset])
                    done.append(shard.object)
        except BaseException:
            self.release(done)
            raise
        return [str(self.folder / name) for name in done]

    def release(self, names: Sequence[str]) -> None:
        """End the use of shards."""
        with self._lock:
            for name in names:
                self._readers[name] -= 1
                if not self._readers[name]:
                    del self._readers[name]
                    if not self._keep or name in self._unwanted:
                        self._unwanted.discard(name)
                        self._remove(name)

    def forget(self, names: Iterable[str]) -> None:
        """Remove decrypted shards, each when its last reader has ended."""
        with self._lock:
            for name in self._sizes.keys() & set(names):
                if name in self._readers:
                    self._unwanted.add(name)
                else:
                    self._remove(name)

    def new_folder(self) -> Path:
        """Return a new folder in memory for the temporary files of a statement or ingest."""
        with self._lock:
            self._open()
        folder = self.folder / f"run-{new_id()}"
        folder.mkdir(mode=FOLDER_MODE)
        return folder

    @property
    def free_bytes(self) -> int:
        """What decrypted shards that are in use leave of the budget."""
        with self._lock:
            return self._free_bytes()

    @contextmanager
    def reserve(self, size: int, what: str) -> Iterator[None]:
        """Take a part of the budget, for decrypted files of a `new_folder`, for the duration of a `with`.

        Raises:
            StorageFull: Shards that are in use, and others' parts, leave less than that.
        """
        with self._lock:
            free = self._free_bytes()
            if size > free:
                raise StorageFull(
                    "the memory for decrypted data",
                    size,
                    message=f"reading {what} needs {format_bytes(size)} of memory, and "
                    f"security.plain_bytes leaves {format_bytes(free)}",
                    hint="raise security.plain_bytes",
                )
            self._reserved_bytes += size
            self._make_room(0, what)
        try:
            yield
        finally:
            with self._lock:
                self._reserved_bytes -= size

    def _free_bytes(self) -> int:
        used = sum(self._sizes[name] for name in self._readers)
        return max(0, self.budget_bytes - used - self._reserved_bytes)

    def close(self) -> None:
        """Remove the folder."""
        with self._lock:
            self._sizes.clear()
            self._readers.clear()
            self._unwanted.clear()
            self._is_open = False
            if self.folder.is_symlink() or not self.folder.exists():
                return
            if self.folder.stat().st_uid == os.geteuid():
                shutil.rmtree(self.folder, ignore_errors=True)

    def _open(self) -> None:
        if self._is_open:
            return
        if _file_system(self._root) not in _IN_MEMORY:
            raise Unsupported(
                f"encrypted datasets: {self._root} is not in memory",
                hint="mount a tmpfs there: decrypted data is never written to a disk",
            )
        self.folder.mkdir(mode=FOLDER_MODE, exist_ok=True)
        found = self.folder.lstat()
        # Another account could have made it, or a link, since anyone can write to /dev/shm.
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o077:
            raise Denied(f"use {self.folder}, which is not a private folder of this account")
        self._is_open = True

    def _acquire(self, shard: SealedShard, key: bytes) -> None:
        name = shard.object
        if name not in self._sizes:
            self._decrypt(shard, key)
        self._sizes.move_to_end(name)
        self._readers[name] = self._readers.get(name, 0) + 1

    def _decrypt(self, shard: SealedShard, key: bytes) -> None:
        path = shard.path or self._objects.place(shard.object)
        try:
            self._make_room(path.stat().st_size, shard.name)
            target = self.folder / shard.object
            partial = target.with_suffix(".incoming")
            try:
                size = unseal_file(path, partial, key, shard.dataset)
                partial.replace(target)
            finally:
                partial.unlink(missing_ok=True)
        except (Corrupt, FileNotFoundError) as error:
            raise self._damage(shard, path, error) from None
        except OSError as error:
            if error.errno != errno.ENOSPC or isinstance(error, StorageFull):
                raise
            raise StorageFull(
                "the memory for decrypted data",
                message=f"{self._root} is full, although security.plain_bytes is not used up",
                hint="mount a larger tmpfs there, or lower security.plain_bytes",
            ) from None
        self._sizes[shard.object] = size

    def _check_fits(self, shards: Sequence[SealedShard]) -> None:
        """Refuse a statement that could not succeed before anything is decrypted for it."""
        needed = 0
        paths = {each.object: each.path or self._objects.place(each.object) for each in shards}
        for path in paths.values():
            with suppress(FileNotFoundError):  # which decrypting it reports as damage
                needed += path.stat().st_size
        if needed > self.budget_bytes:
            raise StorageFull(
                "the memory for decrypted data",
                needed,
                message=f"reading {shards[0].name!r}, which is encrypted, needs "
                f"{format_bytes(needed)} of memory for {len(shards)} decrypted shards, and "
                f"security.plain_bytes is {format_bytes(self.budget_bytes)}",
                hint="raise security.plain_bytes (a tmpfs of that size at /dev/shm is needed too)",
            )

    def _make_room(self, coming: int, name: str) -> None:
        idle = [each for each in self._sizes if each not in self._readers]
        coming_or_held = coming + self._reserved_bytes
        while sum(self._sizes.values()) + coming_or_held > self.budget_bytes:
            if not idle:
                raise StorageFull(
                    "the memory for decrypted data",
                    coming,
                    message=f"reading {name!r}, which is encrypted, needs {format_bytes(coming)} "
                    f"more of the {format_bytes(self.budget_bytes)} for decrypted data",
                    hint="raise security.plain_bytes, or read fewer encrypted datasets at once",
                )
            self._remove(idle.pop(0))

    def _damage(self, shard: SealedShard, path: Path, error: Exception) -> Corrupt:
        """Return the damage as for other shards: by the chunk of the stored file, if it is there."""
        damage = find_damage(path)
        if damage is None:
            part, expected, found = "the encryption", "what was written", str(error)
        else:
            part, expected, found = damage.part, damage.expected, damage.found
        return damaged_shard(shard.name, shard.index, shard.object, part, expected, found)

    def _remove(self, name: str) -> None:
        del self._sizes[name]
        (self.folder / name).unlink(missing_ok=True)


def _file_system(folder: Path) -> str:
    """Return the type of the file system of a folder, from proc(5)."""
    place, found = folder.resolve(), ("", "")
    try:
        lines = Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return ""
    for line in lines:
        before, _, after = line.partition(" - ")
        mount = before.split()[4].replace("\\040", " ")
        if place.is_relative_to(mount) and len(mount) >= len(found[0]):
            found = (mount, after.split()[0])
    return found[1]
