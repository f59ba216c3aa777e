"""BEGIN, statements, COMMIT in one request: they see their own changes, and all are committed at once.

The statements run on a catalog with uncommitted changes (`lake.catalog.staged`). If others have
changed one of the datasets when it is to be committed, the whole block runs again on the new state.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from lake._failpoints import reached
from lake.catalog.staged import StagedCatalog
from lake.statements.script_text import Block, Piece, placed
from lake.statements.scripts import StepExecution, drain
from sennit_core.errors import Cancelled, Conflict, SennitError
from sennit_core.records import Progress

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["TransactionExecution"]

_ATTEMPTS = 4
_RESULT_BYTES_MAX = 64 << 10  # of a number, in any format


class TransactionExecution:
    """A transaction that runs; its result is the number of changed rows.

    Args:
        block: The statements.
        stage: Opens a catalog for one attempt.
        begin: Starts a statement on it.
        count: Starts the query whose result is a number of rows.
        committed: The numbers of the statements of the request that are committed, for errors.
    """

    engine = "duckdb"

    def __init__(
        self,
        block: Block,
        stage: Callable[[], StagedCatalog],
        begin: Callable[[StagedCatalog, Piece], StepExecution],
        count: Callable[[int], StepExecution],
        committed: Sequence[int],
    ) -> None:
        self._block = block
        self._stage = stage
        self._begin = begin
        self._count = count
        self._before = committed
        # Guards the two below: a cancellation between two statements counts for the next.
        self._lock = threading.Lock()
        self._current: StepExecution | None = None
        self._cancelled = False
        self._report: dict[str, Any] | None = None  # None until the transaction has ended
        self._result = b""

    @property
    def pid(self) -> int:
        """The process id of the executor; 0 between two statements."""
        return 0 if self._current is None else self._current.pid

    @property
    def progress(self) -> Progress:
        """The progress of the statement that runs."""
        return Progress() if self._current is None else self._current.progress

    def payloads(self) -> Iterator[memoryview]:
        """Commit the transaction, then yield the result's bytes."""
        self.result()
        yield memoryview(self._result)

    def batches(self) -> Iterator[pa.RecordBatch]:
        """Commit the transaction, then yield the result (format `arrow` only)."""
        import pyarrow as pa

        from sennit_core.arrow_ipc import open_arrow

        self.result()
        with pa.BufferReader(self._result) as source, open_arrow(source, "the result") as reader:
            yield from reader

    def result(self, timeout: float | None = None) -> dict[str, Any]:
        """Commit the transaction; return its report; blocks.

        Args:
            timeout: Has no effect, as a change cannot be left half done.

        Raises:
            Conflict: Others changed the same rows again and again.
        """
        del timeout
        attempt = 0
        while self._report is None:
            attempt += 1
            with self._stage() as staged:
                report = self._run(staged)
                try:
                    if self._block.commits:
                        reached("transaction-staged")
                        staged.apply()
                        reached("transaction-committed")
                    self._report = report
                except Conflict as error:
                    if attempt == _ATTEMPTS:
                        raise self._placed(error, self._block.end) from error
                except SennitError as error:
                    raise self._placed(error, self._block.end) from error
        return self._report

    def cancel(self) -> None:
        """Request cancellation; a transaction that is committed stays."""
        with self._lock:
            self._cancelled = True
            current = self._current
        if current is not None:
            current.cancel()

    def close(self) -> None:
        """Cancel what runs; may be called twice."""
        self.cancel()
        if self._current is not None:
            self._current.close()

    def _run(self, staged: StagedCatalog) -> dict[str, Any]:
        """Run the statements; return the report, and keep the result, of the number of rows."""
        rows = 0
        for piece in self._block.pieces:
            try:
                rows += self._finish(self._begin(staged, piece))[0].get("count", 0)
            except SennitError as error:
                raise self._placed(error, piece) from error
        # Before the commit: what fails after it could not be undone.
        rows = rows if self._block.commits else 0
        report, self._result = self._finish(self._count(rows))
        return {**report, "count": rows}

    def _finish(self, execution: StepExecution) -> tuple[dict[str, Any], bytes]:
        with self._lock:
            self._current = execution
            cancelled = self._cancelled
        try:
            if cancelled:
                raise Cancelled("the transaction")
            # The rows of a query in the block are not read.
            report, data = drain(execution, keep_bytes_max=_RESULT_BYTES_MAX)
            if self._cancelled:
                raise Cancelled("the transaction")
            return report, data
        finally:
            execution.close()

    def _placed(self, error: SennitError, piece: Piece) -> SennitError:
        found = placed(error, piece, self._before)
        found.hint = f"{found.hint}; the transaction has changed nothing"
        return found
