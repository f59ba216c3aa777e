"""A worker: a Ray actor with one executor, which runs tasks as a node's executors do.

All that enters or leaves it is text or bytes, which Ray sends as they are, without pickle.

A task's output is a stream of frames: a letter, then the content.

    P  progress, JSON           C  rows of a small result, for the report
    D  bytes of the result      R  the manifest, JSON: the end        E  an error, JSON: the end
    K  a sample of keys, of a stage whose rows stay here to be partitioned
"""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from queue import Empty, Full, Queue
from typing import TYPE_CHECKING, Any, TypeAlias

import ray
from ray.exceptions import RayError

from elytra.backends.ray.files import InputFile
from elytra.backends.ray.partitions import (
    Ranges,
    ipc_of,
    keys_of,
    read_sample,
    split_file,
)
from elytra.backends.ray.received import ReceivedFiles
from elytra.backends.sql_task import SqlTask
from elytra.backends.task_spec import TaskSpec, bound_plan
from elytra.functions.operator import granted
from elytra.functions.step import OPERATOR
from elytra.service.work import PLAN_ENTRY, SHARDS_ENTRY
from emsqrt.executor import ExecutorPool
from emsqrt.plan import plan_to_json
from emsqrt.spill.area import RunFolder
from sennit_core.errors import Denied, InternalError, SennitError, Unavailable, UsageError
from sennit_core.records import Progress

if TYPE_CHECKING:
    from emsqrt.executor import Execution

__all__ = ["FRAME_BYTES_MAX", "PIECE_BYTES", "VERSIONED", "Pieces", "RayWorker"]

Pieces: TypeAlias = Mapping[str, Sequence[Any]]
"""Inputs in the object store: references to their bytes, in order, by the names of inputs."""
PIECE_BYTES = 8 << 20

VERSIONED = ("sennit-elytra", "duckdb")
"""Packages that a worker has in the node's version: DuckDB's states of aggregates are exchanged."""
FRAME_BYTES_MAX = 1 << 20
"""Bytes of a result in a frame: with four frames on their way, what a worker adds to the object store."""
SQL_ENTRY = "lake.sql"
_ID = re.compile(r"[a-z0-9][a-z0-9-]{0,127}")
_STOPPED_MAX = 1024
_QUEUED = 4
_DRAIN_SECONDS = 0.1


class RayWorker:
    """The actor's class; its methods run on threads of their own.

    Args:
        options: `RayOptions` as JSON.
    """

    def __init__(self, options: str) -> None:
        found = json.loads(options)
        root = found["scratch"] or f"{tempfile.gettempdir()}/sennit-ray-{os.geteuid()}"
        self._area = RunFolder(Path(root))
        self._pool = ExecutorPool(
            1, memory_bytes=found["worker_bytes"], spill_dir=self._area.folder / "spill"
        )
        self._functions: dict[str, Any] | None = found["functions"]
        self._received = ReceivedFiles(self._area.folder / "received", found["worker_bytes"])
        self._lock = threading.Lock()
        # Guarded by the lock: what `stop` cancels, by task; and the tasks that were stopped before
        # they began, of which the oldest are forgotten.
        self._running: dict[str, Execution] = {}
        self._stopped: dict[str, None] = {}

    def about(self) -> str:
        """Return what the driver must know of the worker's process."""
        from importlib.metadata import version

        versions = {name: version(name) for name in VERSIONED}
        return json.dumps({"pid": os.getpid(), "versions": versions})

    def hold(self) -> None:
        """Never return: the call fails when the process ends, which the driver waits for."""
        threading.Event().wait()

    def close(self) -> None:
        """End the executor, and remove all files; no other method is called after it."""
        self._pool.close()
        self._area.close()

    def missing(self, inputs: str) -> str:
        """Return the names of the inputs that this machine has not, as JSON.

        Args:
            inputs: Those of a task (`InputFile.to_json`).
        """
        files = map(InputFile.from_json, json.loads(inputs))
        return json.dumps([each.name for each in files if self._received.find(each) is None])

    def receive(self, task: str, part: str, offset: int, data: bytes) -> None:
        """Write bytes of a file that is sent to this machine.

        Args:
            task: The task that it is sent for.
            part: What it is, without folders.
            offset: Where they start.
            data: The bytes.
        """
        self._received.write(task, part, offset, data)

    def received(self, task: str, file: str) -> str:
        """Verify a file that was sent; the task can read it then.

        Args:
            task: The task that it was sent for.
            file: The input (`InputFile.to_json`), with the SHA-256 of its bytes after it.

        Returns:
            "" or the error, as JSON.
        """
        *data, digest = json.loads(file)
        try:
            self._received.accept(task, InputFile.from_json(data), digest)
        except SennitError as error:
            return json.dumps(error.to_json())
        return ""

    def stop(self, task: str) -> None:
        """Cancel a task, or one that has not begun yet; its stream still ends."""
        with self._lock:
            execution = self._running.get(task)
            if execution is None:
                self._stopped[task] = None
                while len(self._stopped) > _STOPPED_MAX:
                    del self._stopped[next(iter(self._stopped))]
        if execution is not None:
            execution.cancel()

    def run(self, task: str, inputs: str, pieces: Pieces) -> Iterator[bytes]:
        """Run a task; yield its frames.

        Args:
            task: The spec, as JSON.
            inputs: Its inputs that are files, as JSON.
            pieces: Its other inputs by name: objects whose bytes are an Arrow IPC stream together.
        """
        spec = TaskSpec.from_json
        yield from _guarded(lambda: self._run(spec(task), _files(inputs), pieces))

    def query(self, task: str, inputs: str, pieces: Pieces) -> Iterator[bytes]:
        """Run a fragment of a query; yield its frames.

        Args:
            task: The `SqlTask`, as JSON.
            inputs: Its inputs, as JSON.
            pieces: None.
        """
        del pieces
        yield from _guarded(lambda: self._query(SqlTask.from_json(task), _files(inputs)))

    def spool(self, task: str, inputs: str, pieces: Pieces) -> Iterator[bytes]:
        """Run a task whose rows have the column `KEY`, and keep them here for `split`.

        As `run`, with a frame K, a sample of the keys, in place of the rows.
        """
        spec = TaskSpec.from_json
        yield from _guarded(lambda: self._spool(spec(task), _files(inputs), pieces))

    def split(self, task: str, ranges: bytes, options: str) -> Iterator[bytes]:
        """Yield the rows that `spool` has kept, by ranges of keys, and remove them.

        Args:
            task: The id of the task.
            ranges: The boundaries, as an Arrow IPC stream.
            options: `descending`, `nullsFirst` and `position` (see `split_file`), as JSON.

        Yields:
            JSON: the number of pieces of each range; then these pieces, of at most 8 MiB.
        """
        found = json.loads(options)
        kept = self._kept(task)
        boundaries = keys_of(ranges)
        try:
            paths = split_file(
                kept,
                kept.with_suffix(".ranges"),
                Ranges(boundaries, found["descending"], found["nullsFirst"]),
                position=found["position"],
            )
            kept.unlink()
            counts = [-(-path.stat().st_size // PIECE_BYTES) for path in paths]
            yield json.dumps(counts).encode()
            for path in paths:
                with path.open("rb") as file:
                    while piece := file.read(PIECE_BYTES):
                        yield piece
        finally:
            kept.unlink(missing_ok=True)
            shutil.rmtree(kept.with_suffix(".ranges"), ignore_errors=True)

    def forget(self, task: str) -> None:
        """Remove the rows that `spool` has kept, if it has any."""
        self._kept(task).unlink(missing_ok=True)

    def _kept(self, task: str) -> Path:
        """Return the file of a task's rows that are kept for `split`."""
        if _ID.fullmatch(task) is None:
            raise UsageError(f"{task[:100]!r} is no id of a task")
        return self._area.folder / f"{task}.kept"

    def _spool(self, spec: TaskSpec, files: list[InputFile], pieces: Pieces) -> Iterator[bytes]:
        kept = self._kept(spec.id)
        with kept.open("wb") as file:
            for frame in self._run(spec, files, pieces):
                if frame[:1] == b"D":
                    file.write(memoryview(frame)[1:])
                elif frame[:1] == b"R":
                    file.flush()
                    yield b"K" + ipc_of(read_sample(kept))
                    manifest = json.loads(frame[1:])
                    yield _json_frame(b"R", {**manifest, "keptBytes": file.tell()})
                else:
                    yield frame

    def _query(self, task: SqlTask, files: list[InputFile]) -> Iterator[bytes]:
        with self._received.held(files) as here:
            yield from self._frames(SQL_ENTRY, task, task.bound(here), b"D")

    @contextmanager
    def _copied(self, task: str, pieces: Pieces) -> Iterator[dict[str, str]]:
        """Yield files with the bytes of objects, by the names of inputs."""
        folder = self._area.folder / f"{task}.pieces"
        folder.mkdir(mode=0o700)
        try:
            paths = {name: str(folder / f"{name}.arrow") for name in pieces}
            for name, references in pieces.items():
                with Path(paths[name]).open("wb") as file:
                    file.writelines(ray.get(reference) for reference in references)
            yield paths
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _run(self, spec: TaskSpec, files: list[InputFile], pieces: Pieces) -> Iterator[bytes]:
        output = self._area.folder / f"{spec.id}.{spec.output}"
        with self._received.held(files) as here, self._copied(spec.id, pieces) as copied:
            paths = {**here, **copied}
            plan = bound_plan(spec, paths.__getitem__, output)
            shards = [shard for each in files if (shard := each.shard_at(paths[each.name]))]
            request: dict[str, Any] = {"plan": plan_to_json(plan)}
            if shards:
                request["shards"] = [shard.to_json() for shard in shards]
            if spec.has_functions:
                request["operators"] = {OPERATOR: granted(self._function_limits())}
            if spec.copy_bytes_max:
                request["copyBytesMax"] = spec.copy_bytes_max
            # A stream is the result; of a file it is the copy of its rows.
            letter = b"D" if spec.output == "arrow" else b"C"
            try:
                entry = SHARDS_ENTRY if shards else PLAN_ENTRY
                for frame in self._frames(entry, spec, request, letter):
                    if frame[:1] == b"R" and letter == b"C":
                        yield from _pieces(output)
                    yield frame
            finally:
                output.unlink(missing_ok=True)

    def _function_limits(self) -> dict[str, Any]:
        if self._functions is None:  # a plan is refused long before its tasks are sent
            raise Denied("Python functions of pipelines on this node")
        return self._functions

    def _frames(
        self, entry: str, spec: TaskSpec | SqlTask, request: dict[str, Any], letter: bytes
    ) -> Iterator[bytes]:
        frames: Queue[bytes] = Queue(_QUEUED)

        def on_progress(progress: Progress) -> None:
            with suppress(Full):  # the next one says more
                frames.put_nowait(_json_frame(b"P", progress.to_json()))

        with (
            self._pool.submit(
                entry,
                request,
                mem_cap_bytes=spec.limits.mem_cap_bytes,
                deadline_seconds=spec.limits.seconds,
                on_progress=on_progress,
                user=spec.user,
                restartable=True,
                bounded=False,
            ) as execution,
            self._stoppable(spec.id, execution),
        ):
            yield _json_frame(b"P", Progress().to_json())  # it has started
            # A thread of its own: this one also passes on progress, before there are rows.
            reader = threading.Thread(target=_read, args=(execution, letter, frames), daemon=True)
            reader.start()
            try:
                last = b""
                while last[:1] not in (b"R", b"E"):
                    last = frames.get()
                    yield last
            finally:
                execution.cancel()  # no effect after its end; else the frames have no reader any more
                while reader.is_alive():
                    with suppress(Empty):
                        frames.get(timeout=_DRAIN_SECONDS)

    @contextmanager
    def _stoppable(self, task: str, execution: Execution) -> Iterator[None]:
        """Let `stop` cancel the execution, and cancel it now if that was called before."""
        with self._lock:
            self._running[task] = execution
            stopped = self._stopped.pop(task, "") is None
        if stopped:
            execution.cancel()
        try:
            yield
        finally:
            with self._lock:
                del self._running[task]


def _read(execution: Execution, letter: bytes, frames: Queue[bytes]) -> None:
    try:
        for payload in execution.payloads():
            for start in range(0, len(payload), FRAME_BYTES_MAX):
                frames.put(letter + payload[start : start + FRAME_BYTES_MAX])
        end = _json_frame(b"R", execution.result())
    except SennitError as error:
        end = _json_frame(b"E", error.to_json())
    except Exception as problem:  # noqa: BLE001 - a stream without an end would be waited for
        end = _json_frame(b"E", InternalError(f"a worker failed: {problem!r}").to_json())
    frames.put(end)


def _files(inputs: str) -> list[InputFile]:
    return [InputFile.from_json(each) for each in json.loads(inputs)]


def _guarded(run: Callable[[], Iterator[bytes]]) -> Iterator[bytes]:
    """Yield the frames of a task, and a frame for any error."""
    try:
        yield from run()
    except SennitError as error:
        yield _json_frame(b"E", error.to_json())
    except RayError as problem:  # such as an object that was lost with its machine
        lost = Unavailable(f"Ray ({type(problem).__name__})")
        yield _json_frame(b"E", lost.to_json())
    except Exception as problem:  # noqa: BLE001 - the driver reads errors from frames alone
        yield _json_frame(b"E", InternalError(f"a worker failed: {problem!r}").to_json())


def _json_frame(letter: bytes, content: dict[str, Any]) -> bytes:
    return letter + json.dumps(content).encode()


def _pieces(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while piece := file.read(FRAME_BYTES_MAX):
            yield b"D" + piece
