"""Files that a worker reads: the node's own, where it is on the same machine, else copies sent to it."""

from __future__ import annotations

import hashlib
import os
import threading
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from elytra.backends.ray.files import InputFile
from lake.errors import damaged_shard
from lake.objects.store import chunks_path
from lake.objects.verification import find_damage
from sennit_core.errors import Corrupt, UsageError
from sennit_core.private_files import make_private_folder

__all__ = ["CHUNKS", "DATA", "ReceivedFiles"]

DATA = "data"
CHUNKS = "chunks"
"""The parts of a file that are sent: its bytes, and the list of a shard's chunk hashes."""


class ReceivedFiles:
    """The copies of files that were sent to a worker, up to a size; thread-safe.

    Args:
        folder: For the copies, which no other process uses.
        bytes_max: Bytes of all copies; those that no task reads are removed beyond it.
    """

    def __init__(self, folder: Path, bytes_max: int) -> None:
        self._folder = make_private_folder(folder)
        self._bytes_max = bytes_max
        self._lock = threading.Lock()
        # Guarded by the lock: the verified copies with their sizes, the longest unused first; and
        # how many tasks read each.
        self._kept: dict[Path, int] = {}
        self._readers: Counter[Path] = Counter()

    def find(self, file: InputFile) -> Path | None:
        """Return where a file is on this machine; None if it must be sent."""
        path = Path(file.path)
        # One that the node cannot read has an error that the executor reports best. Another file of
        # this name and size fails its shard's verification.
        if file.size is None or _has_size(path, file.size):
            return path
        copy = self._place(file)
        return copy if copy in self._kept else None

    @contextmanager
    def held(self, files: Sequence[InputFile]) -> Iterator[Mapping[str, str]]:
        """Yield the paths of a task's inputs by name, and keep the copies until the end.

        Raises:
            Corrupt: A file is not here.
        """
        with self._lock:
            paths = {each.name: self.find(each) for each in files}
            copies = [path for path in paths.values() if path in self._kept]
            self._readers.update(copies)
            for path in copies:  # now the one that was used last
                self._kept[path] = self._kept.pop(path)
        try:
            for file in files:
                if paths[file.name] is None:
                    what = f"input {file.name} of a task"
                    raise Corrupt(what, expected="a file", found="none on this machine")
            yield {name: str(path) for name, path in paths.items()}
        finally:
            with self._lock:
                self._readers.subtract(copies)

    def write(self, task: str, part: str, offset: int, data: bytes) -> None:
        """Write bytes of a file that is being sent for a task."""
        place = self._incoming(task, part)
        make_private_folder(place.parent)
        descriptor = os.open(place, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.pwrite(descriptor, data, offset)
        finally:
            os.close(descriptor)

    def accept(self, task: str, file: InputFile, digest: str) -> None:
        """Verify a file that was sent, and make it readable.

        Args:
            task: The task that it was sent for.
            file: The file.
            digest: SHA-256 of its bytes; a shard is compared with its object's hashes instead.

        Raises:
            Corrupt: The bytes are others.
        """
        # Under the name that the hashes are of, but not yet where tasks read it.
        sent = self._incoming(task, DATA).with_name(Path(file.path).name)
        self._incoming(task, DATA).replace(sent)
        with suppress(FileNotFoundError):  # a small object has no list
            self._incoming(task, CHUNKS).replace(chunks_path(sent))
        final = self._place(file)
        make_private_folder(final.parent)
        try:
            _verify(file, sent, digest)
            with suppress(FileNotFoundError):
                chunks_path(sent).replace(chunks_path(final))
            sent.replace(final)
        finally:
            _remove(sent)
        with self._lock:
            self._kept[final] = final.stat().st_size
            self._make_room()

    def _make_room(self) -> None:
        left = sum(self._kept.values()) - self._bytes_max
        for path, size in list(self._kept.items())[:-1]:  # never what was just received
            if left <= 0:
                return
            if not self._readers[path]:
                _remove(path)
                del self._kept[path], self._readers[path]
                left -= size

    def _place(self, file: InputFile) -> Path:
        """Return the path of a copy: its name is the original's, as a shard's is its object's id."""
        folder = hashlib.sha256(file.path.encode()).hexdigest()[:16]
        return self._folder / folder / Path(file.path).name

    def _incoming(self, task: str, part: str) -> Path:
        if part not in (DATA, CHUNKS) or "/" in task:
            raise UsageError(f"no part {part!r} of a file is received")
        return self._folder / "incoming" / task / part


def _verify(file: InputFile, path: Path, digest: str) -> None:
    shard = file.shard_at(str(path))
    if shard is None:
        with path.open("rb") as opened:
            found = hashlib.file_digest(opened, "sha256").hexdigest()
        if found != digest:
            raise Corrupt(f"input {file.name} of a task", expected=digest, found=found)
        return
    damage = find_damage(path)
    if damage is not None:
        raise damaged_shard(
            shard.dataset, shard.index, path.name, damage.part, damage.expected, damage.found
        )


def _remove(path: Path) -> None:
    path.unlink(missing_ok=True)
    chunks_path(path).unlink(missing_ok=True)


def _has_size(path: Path, size: int) -> bool:
    try:
        return path.stat().st_size == size
    except OSError:
        return False
