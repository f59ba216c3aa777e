"""A running statement that changes a dataset: it runs again if another change came first.

`lake.writes.writes` commits what its executor has written.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from lake._failpoints import reached
from lake.catalog.origins import Origin
from lake.peers.transport.stop import Stop
from lake.writes.writes import Writer
from sennit_core.errors import Cancelled, Conflict, SennitError
from sennit_core.records import Progress

if TYPE_CHECKING:
    import pyarrow as pa

    from emsqrt.executor import Execution
    from lake.distributed.read_repair import Repair

__all__ = ["StartWrite", "WriteExecution"]

_ATTEMPTS = 4
_PIECE_BYTES = 1 << 20
_COUNT = {"rows": 1, "columns": [{"name": "Count", "type": "Int64"}], "truncated": False}

StartWrite = Callable[[Path], "tuple[Execution, Callable[[], object]]"]
"""Starts a statement that writes into the folder; returns it, and what ends its lease."""


class WriteExecution:
    """A running statement that changes a dataset; a context manager.

    Its result, the number of rows, is available when the change is committed.

    Args:
        start: Starts it, with the current state of its datasets.
        writer: Commits it.
        origin: The statement and the user; `start` adds what it may read.
        complete: Called with an error before it is raised; returns the error to raise.
        attempts: How often to run it if other changes come first.
        repair: Called with an error of the executor; True runs the statement again.
    """

    engine = "duckdb"

    def __init__(
        self,
        start: StartWrite,
        writer: Writer,
        origin: Origin,
        complete: Callable[[SennitError], SennitError],
        attempts: int = _ATTEMPTS,
        repair: Repair = lambda _error, _stop: False,
    ) -> None:
        self._repair = repair
        self._stop = Stop()  # of repairs
        self._attempts = attempts
        self._start = start
        self._writer = writer
        self._origin = origin
        self._complete = complete
        self._lock = threading.Lock()
        self._cancelled = False
        self._answer: dict[str, Any] | None = None
        self._result = b""
        # None once the lease has ended, so that `close` may be called twice.
        self._release: Callable[[], object] | None = None
        self._begin()

    @property
    def pid(self) -> int:
        """The process id of the executor."""
        return self._execution.pid

    @property
    def progress(self) -> Progress:
        """The current progress."""
        return self._execution.progress

    @property
    def done(self) -> bool:
        """Whether the change is committed."""
        return self._answer is not None

    def payloads(self) -> Iterator[memoryview]:
        """Commit the change, then yield the result's bytes."""
        self.result()
        returned = self._returned
        if returned is None:
            yield memoryview(self._result)
            return
        # The executor's file, in the statement's folder, which is there until `close`.
        with Path(returned["file"]).open("rb", buffering=0) as file:
            while piece := file.read(_PIECE_BYTES):
                yield memoryview(piece)

    def batches(self) -> Iterator[pa.RecordBatch]:
        """Commit the change, then yield the result (format `arrow` only)."""
        import pyarrow as pa

        from sennit_core.arrow_ipc import open_arrow

        self.result()
        returned = self._returned
        with (
            (
                pa.BufferReader(self._result) if returned is None else pa.OSFile(returned["file"])
            ) as source,
            open_arrow(source, "the result") as reader,
        ):
            yield from reader

    def result(self, timeout: float | None = None) -> dict[str, Any]:
        """Commit the change; return `count`, `columns`, `engine` and `inputs`; blocks.

        Args:
            timeout: Has no effect, as a change cannot be left half done.

        Raises:
            Conflict: Others changed the same rows again and again.
        """
        del timeout
        for attempt in range(1, self._attempts + 1):
            if self._answer is not None:
                break
            answer = self._run_repaired()
            try:
                if self._cancelled:
                    raise Cancelled("the statement")
                self._answer = self._commit(answer)
                reached("write-committed")
            except Conflict:
                if attempt == self._attempts:
                    raise
                self._end()
                self._begin()
        assert self._answer is not None, "committed, or raised"
        shown = self._returned or _COUNT
        return {
            "rows": shown["rows"],
            "count": self._answer["count"],
            "columns": shown["columns"],
            "truncated": shown["truncated"],
            "engine": self.engine,
            "inputs": self._answer["inputs"],
        }

    @property
    def _returned(self) -> dict[str, Any] | None:
        """What RETURNING has written; None if the result is the number of rows."""
        assert self._answer is not None, "committed"
        found: dict[str, Any] | None = self._answer.get("returned")
        return found

    def cancel(self) -> None:
        """Request cancellation; a change that is committed stays."""
        with self._lock:
            self._cancelled = True
            self._execution.cancel()
        self._stop.stop()

    def close(self) -> None:
        """Cancel the statement if it is running; may be called twice."""
        self.cancel()
        self._end()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _begin(self) -> None:
        folder = self._writer.open_folder()
        self._purges = self._writer.purges  # before the statement reads
        try:
            execution, release = self._start(folder)
        except BaseException:
            self._writer.remove_folder(folder)
            raise
        self._folder, self._release = folder, release
        self._attach(execution)

    def _attach(self, execution: Execution) -> None:
        """Set the execution that `cancel` cancels."""
        with self._lock:
            self._execution = execution
            cancelled = self._cancelled
        if cancelled:
            execution.cancel()

    def _run_repaired(self) -> dict[str, Any]:
        """Run it, again after each repair of what it reads."""
        while True:
            try:
                return self._run()
            except SennitError as error:
                if not self._repair(error, self._stop):
                    raise
            self._end()
            self._begin()

    def _run(self) -> dict[str, Any]:
        """Wait for the executor's response, and keep its result."""
        try:
            self._result = b"".join(bytes(piece) for piece in self._execution.payloads())
            answer = self._execution.result()
        except SennitError as error:
            raise self._complete(error) from error
        reached("write-encoded")
        return {**answer, "purges": self._purges}

    def _commit(self, answer: dict[str, Any]) -> dict[str, Any]:
        """Commit the change; return the response as it was committed."""
        self._writer.commit(answer, self._origin)
        return answer

    def _end(self) -> None:
        release, self._release = self._release, None
        if release is not None:
            try:
                self._execution.close()
            finally:
                release()
                self._writer.remove_folder(self._folder)
