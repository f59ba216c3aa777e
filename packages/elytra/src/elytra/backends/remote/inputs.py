"""The inputs of remote workers: shards as Arrow IPC streams with the columns that a plan reads.

An executor verifies the shard and writes the stream once; it is then sent to each worker that needs it,
and kept for later tasks within a budget of bytes. Files of another process are removed at the start.

The streams of the small sides of joins are written once for all tasks, and follow that of the shard in its file:
a worker reads one file with one hash. The splitter limits what all tasks together read of small sides.
"""

from __future__ import annotations

import hashlib
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from elytra.backends.remote.plans import side_name
from elytra.backends.task_spec import NodeFiles, TaskSpec
from emsqrt.plan import Files, Join, Plan, plan_to_json, scans_of, walk
from lake.objects.durable import storage_errors
from sennit_core.canonical import canonical_json
from sennit_core.hashing import sha256_hex
from sennit_core.ids import new_id
from sennit_core.private_files import make_private_folder

if TYPE_CHECKING:
    from elytra.backends.remote.local_runs import LocalRuns
    from elytra.backends.remote.plans import RemotePlan

__all__ = ["InputFile", "Inputs"]

_READ_BYTES = 1 << 20
SIDE_BYTES_MAX = 128 << 20
"""Of the stream of a small side. It is small as it is stored, and goes to a worker with each shard."""


@dataclass(frozen=True, slots=True)
class InputFile:
    """A stream that can be sent.

    Args:
        path: The file.
        size_bytes: Its size.
        sha256: Its SHA-256.
        rows: Rows of the shard.
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
            TaskFailed: The shard cannot be read, the disk is full, or a small side is `too-large`.
        """
        key = _key(task, files, plan.scan, *plan.sides)
        with self._held(key, lambda: self._write(task, files, plan)) as file:
            yield file

    def stop(self, task: TaskSpec) -> None:
        """Stop what is written for a task."""
        self._runs.stop(f"{task.id}-input")
        for number in range(sum(isinstance(node, Join) for node in walk(task.plan))):
            self._runs.stop(f"{task.id}-{side_name(number)}")

    @contextmanager
    def _held(self, key: str, write: Callable[[], InputFile]) -> Iterator[InputFile]:
        """Hold the file of a key, which is written if it is not there."""
        with self._lock:
            entry = self._entries.pop(key, None) or _Entry()
            self._entries[key] = entry
            entry.users += 1
        try:
            with entry.lock:
                if entry.file is None:
                    entry.file = write()
            yield entry.file
        finally:
            with self._lock:
                entry.users -= 1
                self._remove_oldest()

    def _write(self, task: TaskSpec, files: NodeFiles, plan: RemotePlan) -> InputFile:
        with ExitStack() as held:
            sides = []
            for number, side in enumerate(plan.sides):
                name = side_name(number)
                write = partial(self._stream, task, files, side, name, bytes_max=SIDE_BYTES_MAX)
                sides.append(held.enter_context(self._held(_key(task, files, side), write)))
            file = self._stream(task, files, plan.scan, "input")
            return _with_sides(file, sides) if sides else file

    def _stream(
        self, task: TaskSpec, files: NodeFiles, rows: Plan, name: str, bytes_max: int | None = None
    ) -> InputFile:
        """Write the rows of a plan over a task's inputs."""
        make_private_folder(self._folder)
        path = self._folder / f"{new_id()}.arrow"
        reading = replace(
            task, id=f"{task.id}-{name}", plan=rows, output="arrow", copy_bytes_max=0,
            limits=replace(task.limits, output_bytes_max=bytes_max),
        )  # fmt: skip
        result = self._runs.run(reading, replace(files, output=path))
        count = int(result["manifest"].get("rowsOut") or 0)
        return InputFile(path, path.stat().st_size, _sha256_of(path), count)

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


def _with_sides(file: InputFile, sides: list[InputFile]) -> InputFile:
    """Append streams to a file."""
    more = sum(side.size_bytes for side in sides)
    try:
        with storage_errors(file.path.parent, more), file.path.open("ab") as joint:
            for side in sides:
                with side.path.open("rb") as stream:
                    shutil.copyfileobj(stream, joint, _READ_BYTES)
    except BaseException:
        file.path.unlink(missing_ok=True)
        raise
    return replace(file, size_bytes=file.path.stat().st_size, sha256=_sha256_of(file.path))


def _key(task: TaskSpec, files: NodeFiles, *plans: Plan) -> str:
    """Return what identifies streams: the objects, their files, and how they are read."""
    sources = (scan.source for plan in plans for scan in scans_of(plan))
    names = {path for source in sources if isinstance(source, Files) for path in source.paths}
    inputs = {each.name: [each.id, files.paths[each.name]] for each in task.inputs}
    read = {name: inputs[name] for name in sorted(names)}
    return sha256_hex(canonical_json({"inputs": read, "plans": [*map(plan_to_json, plans)]}))


def _sha256_of(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb", buffering=0) as file:
        while piece := file.read(_READ_BYTES):
            digest.update(piece)
    return digest.hexdigest()
