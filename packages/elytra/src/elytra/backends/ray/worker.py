"""A worker: a Ray actor with one executor, which runs tasks as a node's executors do.

All that enters or leaves it is text or bytes, which Ray sends as they are, without pickle.

A task's output is a stream of frames: a letter, then the content.

    P  progress, JSON           C  rows of a small result, for the report
    D  bytes of the result      R  the manifest, JSON: the end        E  an error, JSON: the end
"""

from __future__ import annotations

import json
import os
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from queue import Empty, Full, Queue
from typing import TYPE_CHECKING, Any

from elytra.backends.ray.files import InputFile
from elytra.backends.ray.received import ReceivedFiles
from elytra.backends.task_spec import TaskSpec, bound_plan
from elytra.service.work import PLAN_ENTRY, SHARDS_ENTRY
from emsqrt.executor import ExecutorPool
from emsqrt.plan import plan_to_json
from emsqrt.spill.area import RunFolder
from sennit_core.errors import InternalError, SennitError
from sennit_core.records import Progress

if TYPE_CHECKING:
    from emsqrt.executor import Execution

__all__ = ["FRAME_BYTES_MAX", "RayWorker"]

FRAME_BYTES_MAX = 1 << 20
"""Bytes of a result in a frame: with four frames on their way, what a worker adds to the object store."""
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
        self._received = ReceivedFiles(self._area.folder / "received", found["worker_bytes"])
        self._lock = threading.Lock()
        # Guarded by the lock: what `stop` cancels, by task; and the tasks that were stopped before
        # they began, of which the oldest are forgotten.
        self._running: dict[str, Execution] = {}
        self._stopped: dict[str, None] = {}

    def about(self) -> str:
        """Return what the driver must know of the worker's process."""
        from importlib.metadata import version

        return json.dumps({"pid": os.getpid(), "version": version("sennit-elytra")})

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

    def run(self, task: str, inputs: str) -> Iterator[bytes]:
        """Run a task; yield its frames.

        Args:
            task: The spec, as JSON.
            inputs: Its inputs, as JSON.
        """
        try:
            spec = TaskSpec.from_json(task)
            files = [InputFile.from_json(each) for each in json.loads(inputs)]
            yield from self._run(spec, files)
        except SennitError as error:
            yield _json_frame(b"E", error.to_json())
        except Exception as problem:  # noqa: BLE001 - the driver reads errors from frames alone
            yield _json_frame(b"E", InternalError(f"a worker failed: {problem!r}").to_json())

    def _run(self, spec: TaskSpec, files: list[InputFile]) -> Iterator[bytes]:
        output = self._area.folder / f"{spec.id}.{spec.output}"
        with self._received.held(files) as paths:
            plan = bound_plan(spec, paths.__getitem__, output)
            shards = [shard for each in files if (shard := each.shard_at(paths[each.name]))]
            request: dict[str, Any] = {"plan": plan_to_json(plan)}
            if shards:
                request["shards"] = [shard.to_json() for shard in shards]
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

    def _frames(
        self, entry: str, spec: TaskSpec, request: dict[str, Any], letter: bytes
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


def _json_frame(letter: bytes, content: dict[str, Any]) -> bytes:
    return letter + json.dumps(content).encode()


def _pieces(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while piece := file.read(FRAME_BYTES_MAX):
            yield b"D" + piece
