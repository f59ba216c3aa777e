"""One attempt at a task on a worker: send it what its machine lacks, run it, and write its result."""

from __future__ import annotations

import base64
import hashlib
import json
import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import ray
from ray.exceptions import GetTimeoutError, RayActorError, RayError

from elytra.backends import Report, TaskSpec
from elytra.backends.attempts import Bounded, Run, WorkerGone, check_size
from elytra.backends.ray.cluster import Cluster
from elytra.backends.ray.files import InputFile, with_sizes
from elytra.backends.ray.received import CHUNKS, DATA
from elytra.backends.ray.worker import Pieces
from elytra.backends.sql_task import SqlTask
from lake.objects.durable import NewFile
from lake.objects.store import chunks_path, has_list
from sennit_core.errors import InternalError, Unavailable, error_from_json
from sennit_core.records import Progress

__all__ = ["Attempt"]

_PIECE_BYTES = 8 << 20
_FRAMES_AHEAD = 4
_ANSWER_SECONDS = 60.0
"""A worker whose short calls take longer than this, or whose task does after its deadline, counts as lost."""


class _Stop:
    """Cancels a task at its worker."""

    def __init__(self, actor: Any, task: str) -> None:
        self._actor, self._task = actor, task

    def cancel(self) -> None:
        """Ask the worker to cancel it; the stream then ends with the error."""
        self._actor.stop.remote(self._task)


@dataclass(frozen=True, slots=True)
class Attempt:
    """One attempt.

    Args:
        cluster: Has the worker.
        worker: The worker.
        task: The task, or a fragment of a query.
        inputs: Its inputs.
        output: The file of its result, on this machine.
        pieces: Its inputs in the object store.
    """

    cluster: Cluster
    worker: str
    task: TaskSpec | SqlTask
    inputs: Sequence[InputFile]
    output: Path
    pieces: Pieces = field(default_factory=dict)

    def run(self, run: Run, report: Report) -> dict[str, Any]:
        """Run the task; return its result as a backend reports it.

        Raises:
            WorkerGone: The worker has left, or leaves soon, which the cluster reports.
            SennitError: The task's error.
        """
        method = "query" if isinstance(self.task, SqlTask) else "run"
        with self._calls() as actor, closing(self._stream(actor, method, run)) as frames:
            return self._write(frames, report)

    def spool(self, run: Run, report: Report) -> tuple[bytes, int]:
        """Run the task, and keep its rows at the worker; return a sample of their keys, and their bytes.

        Raises:
            WorkerGone, SennitError: As `run`.
        """
        sample = b""
        with self._calls() as actor, closing(self._stream(actor, "spool", run)) as frames:
            for frame in frames:
                self._note(frame, report)
                if frame[:1] == b"K":
                    sample = frame[1:]
                elif frame[:1] == b"R":
                    return sample, int(json.loads(frame[1:])["keptBytes"])
        raise InternalError("a worker's stream ended without its end")

    def split(self, ranges: bytes, options: str) -> list[list[Any]]:
        """Return the rows that `spool` has kept, as references to their pieces, by range.

        Raises:
            WorkerGone: The worker has left, and the rows with it.
        """
        with self._calls() as actor:
            call = actor.split.options(num_returns="streaming")
            stream = call.remote(self.task.id, ranges, options)
            counts = json.loads(ray.get(next(stream)))
            return [[next(stream) for _ in range(count)] for count in counts]

    def forget(self) -> None:
        """Let the worker remove what `spool` has kept, if it has not left."""
        with suppress(WorkerGone, RayError), self.cluster.using(self.worker) as actor:
            actor.forget.remote(self.task.id)

    @contextmanager
    def _calls(self) -> Iterator[Any]:
        """Yield the actor; calls that fail because it is lost raise WorkerGone."""
        try:
            with self.cluster.using(self.worker) as actor:
                yield actor
        except RayActorError:
            self._end_worker()
        except RayError as problem:
            what = str(problem).splitlines()[0]
            raise Unavailable(f"Ray ({type(problem).__name__}: {what})") from problem

    def _stream(self, actor: Any, method: str, run: Run) -> Generator[bytes, None, None]:
        """Call a method of the worker; yield its frames, and stop it if not all of them are read."""
        inputs = with_sizes(self.inputs)
        listed = json.dumps([each.to_json() for each in inputs])
        for name in json.loads(self._answer(actor.missing.remote(listed))):
            run.check()
            self._send(actor, next(each for each in inputs if each.name == name))
        run.check()
        call = getattr(actor, method).options(
            num_returns="streaming", _generator_backpressure_num_objects=_FRAMES_AHEAD
        )
        stream = call.remote(json.dumps(self._task_json()), listed, self.pieces)
        run.attach(_Stop(actor, self.task.id))
        frames = self._frames(stream)
        has_ended = False
        try:
            for frame in frames:
                has_ended = frame[:1] in (b"R", b"E")
                yield frame
        finally:
            run.detach()
            if not has_ended:
                # Such as a full disk here. The worker waits for its frames to be read.
                actor.stop.remote(self.task.id)
                with suppress(RayError, WorkerGone):
                    for _ in frames:
                        pass

    def _task_json(self) -> dict[str, Any]:
        """Return the task for the worker, which runs its functions only if the node has allowed them."""
        task = self.task
        return task.to_json() if isinstance(task, SqlTask) else task.to_json(functions=True)

    @staticmethod
    def _note(frame: bytes, report: Report) -> None:
        """Report progress, or raise the error of a task."""
        if frame[:1] == b"P":
            report.progressed(Progress.from_json(json.loads(frame[1:])))
        elif frame[:1] == b"E":
            raise error_from_json(json.loads(frame[1:]))

    def _write(self, frames: Iterator[bytes], report: Report) -> dict[str, Any]:
        """Write the result as it comes; return it."""
        rows: list[bytes] = []
        with NewFile(self.output.parent) as file:
            write = Bounded(self.task, file.write).write
            for frame in frames:
                letter, content = frame[:1], memoryview(frame)[1:]
                if letter == b"D":
                    write(content)
                elif letter == b"C":
                    rows.append(bytes(content))
                elif letter == b"R":
                    manifest = json.loads(bytes(content))
                else:
                    self._note(frame, report)
            check_size(self.task, file.size)
            file.commit(self.output)
        result = {"file": self.output.name, "bytes": file.size, "manifest": manifest}
        return {**result, "rows": base64.b64encode(b"".join(rows)).decode()} if rows else result

    def _frames(self, stream: Any) -> Iterator[bytes]:
        """Yield the frames of the task; the last one is its end."""
        seconds = self.task.limits.seconds
        # The worker's executor keeps the deadline; a worker that says nothing then is stuck.
        latest = None if seconds is None else time.monotonic() + seconds + _ANSWER_SECONDS
        while True:
            left = None if latest is None else max(latest - time.monotonic(), 0.0)
            ready, _ = ray.wait([stream], timeout=left, fetch_local=False)
            if not ready:
                self._end_worker()
            frame = ray.get(next(stream))
            yield frame
            if frame[:1] in (b"R", b"E"):
                return

    def _answer(self, call: Any) -> Any:
        try:
            return ray.get(call, timeout=_ANSWER_SECONDS)
        except GetTimeoutError:
            self._end_worker()

    def _end_worker(self) -> NoReturn:
        self.cluster.end(self.worker)  # if it has not ended; the cluster then reports that it left
        raise WorkerGone(self.worker)

    def _send(self, actor: Any, file: InputFile) -> None:
        """Send a file through the object store, which has a piece of it at a time."""
        digest = self._send_part(actor, DATA, Path(file.path))
        if file.shard is not None and has_list(Path(file.path)):
            self._send_part(actor, CHUNKS, chunks_path(Path(file.path)))
        about = json.dumps([*file.to_json(), digest])
        problem = self._answer(actor.received.remote(self.task.id, about))
        if problem:
            raise error_from_json(json.loads(problem))

    def _send_part(self, actor: Any, part: str, path: Path) -> str:
        hasher, offset = hashlib.sha256(), 0
        with path.open("rb") as file:
            while (piece := file.read(_PIECE_BYTES)) or offset == 0:
                hasher.update(piece)
                self._answer(actor.receive.remote(self.task.id, part, offset, piece))
                offset += len(piece)
                if not piece:
                    break
        return hasher.hexdigest()
