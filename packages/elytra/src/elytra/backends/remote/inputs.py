"""The inputs of remote workers: shards as Arrow IPC streams with the columns that a plan reads.

An executor verifies the shard and writes the stream once; it is then sent to each worker that needs it,
and kept for later tasks within a budget of bytes. Files of another process are removed at the start.
"""

from __future__ import annotations

import hashlib
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from elytra.backends.task_spec import NodeFiles, TaskSpec
from emsqrt.plan import plan_to_json
from sennit_core.canonical import canonical_json
from sennit_core.hashing import sha256_hex
from sennit_core.ids import new_id
from sennit_core.private_files import make_private_folder

if TYPE_CHECKING:
    from elytra.backends.remote.local_runs import LocalRuns
    from elytra.backends.remote.plans import RemotePlan

__all__ = ["InputFile", "Inputs"]

_READ_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class InputFile:
    """A stream that can be sent.

    Args:
        path: The file.
        size_bytes: Its size.
        sha256: Its SHA-256.
        rows: Its rows.
    """

    path: Path
    size_bytes: int
    sha256: str
    rows: int


@dataclass(slots=True, eq=False)
class _Entry:
    # Held while the file is written: a second task with the same input waits for the first.
    lock: threading.Lock = field(default_factory=threading.Lock)
    # None until it is written.
    file: InputFile | None = None
    # Tasks that use it; it is removed only without users.
    users: int = 0


class Inputs:
    """Streams of shards, in a folder.

    Args:
        folder: Belongs to this object; emptied now.
        runs: Writes them.
        bytes_max: Bytes of the streams that no task uses.
    """

    def __init__(self, folder: Path, runs: LocalRuns, bytes_max: int) -> None:
        shutil.rmtree(folder, ignore_errors=True)
        self._folder = folder
        self._runs = runs
        self._bytes_max = bytes_max
        self._lock = threading.Lock()
        # The least recently used first.
        self._entries: dict[str, _Entry] = {}

    @contextmanager
    def open(self, task: TaskSpec, files: NodeFiles, plan: RemotePlan) -> Iterator[InputFile]:
        """Hold the stream of a task's input.

        Raises:
            TaskFailed: The shard cannot be read, or the disk is full.
        """
        key = _key(task, files, plan)
        with self._lock:
            entry = self._entries.pop(key, None) or _Entry()
            self._entries[key] = entry
            entry.users += 1
        try:
            with entry.lock:
                if entry.file is None:
                    entry.file = self._write(task, files, plan)
            yield entry.file
        finally:
            with self._lock:
                entry.users -= 1
                self._remove_oldest()

    def _write(self, task: TaskSpec, files: NodeFiles, plan: RemotePlan) -> InputFile:
        make_private_folder(self._folder)
        path = self._folder / f"{new_id()}.arrow"
        reading = replace(
            task, id=f"{task.id}-input", plan=plan.scan, output="arrow", copy_bytes_max=0,
            limits=replace(task.limits, output_bytes_max=None),
        )  # fmt: skip
        result = self._runs.run(reading, replace(files, output=path))
        rows = int(result["manifest"].get("rowsOut") or 0)
        return InputFile(path, path.stat().st_size, _sha256_of(path), rows)

    def _remove_oldest(self) -> None:
        idle = [(key, entry) for key, entry in self._entries.items() if not entry.users]
        over = sum(each.file.size_bytes for _, each in idle if each.file) - self._bytes_max
        for key, entry in idle:
            if entry.file is not None and over <= 0:
                break
            del self._entries[key]
            if entry.file is not None:
                over -= entry.file.size_bytes
                entry.file.path.unlink(missing_ok=True)


def _key(task: TaskSpec, files: NodeFiles, plan: RemotePlan) -> str:
    """Return what identifies a stream: the object, its file, and how it is read."""
    (source,) = (each for each in task.inputs if each.name == plan.name)
    return sha256_hex(
        canonical_json(
            {"object": source.id, "path": files.paths[plan.name], "scan": plan_to_json(plan.scan)}
        )
    )


def _sha256_of(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb", buffering=0) as file:
        while piece := file.read(_READ_BYTES):
            digest.update(piece)
    return digest.hexdigest()
