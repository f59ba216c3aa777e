"""Statements that change a dataset which another node writes: sent there instead of run here."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError as FutureCancelled
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from lake.deadline import Deadline
from lake.remote_shards import Changed, ForeignChange
from lake.statement_inputs import StatementInputs
from lake.statement_request import StatementRequest
from lake.statement_target import find_target
from sennit_core.errors import Cancelled, Corrupt, Unsupported
from sennit_core.logs import get_logger
from sennit_core.private_files import make_private_folder
from sennit_core.records import DatasetInfo, Progress

if TYPE_CHECKING:
    from concurrent.futures import Future

    import pyarrow as pa

    from emsqrt.executor import Execution, ExecutorPool
    from lake.catalog import Catalog
    from lake.running import RunningStatement
    from lake.statement_tables import StatementTables

__all__ = ["ForwardedChange", "Forwarder"]

_log = get_logger(__name__)
_SECONDS = 300.0
"""Time limit of a statement that has none."""


class Forwarder:
    """Sends changes to the writers of datasets.

    Args:
        pool: The executors, which parse.
        catalog: Knows the datasets.
        tables: Finds those that a statement may name.
        start: Starts a query.
    """

    def __init__(
        self,
        pool: ExecutorPool,
        catalog: Catalog,
        tables: StatementTables,
        start: Callable[[StatementRequest], RunningStatement],
    ) -> None:
        self._inputs = StatementInputs(catalog, tables, start)
        self._pool = pool
        self._catalog = catalog
        self._tables = tables

    def start(self, request: StatementRequest, deadline: Deadline) -> ForwardedChange | None:
        """Send a statement to the writer of what it changes; None if it is to be run here.

        Raises:
            NotFound: The dataset does not exist for the user.
            Denied: The user may not change it.
            Unsupported: The statement is of a form that is not sent.
        """
        foreign = self._foreign(request.sql)
        if not foreign:
            return None
        known = [self._catalog.name(dataset) for dataset in self._tables.named([request.sql])]
        target = find_target(self._pool, request, deadline, known)
        folded = target.table.casefold()
        info = next((i for i in foreign if folded in (i.name.casefold(), i.id)), None)
        if info is None or not target.changes_rows:
            return None
        # A policy of this node is not known at the writer, so it must not restrict the user.
        self._tables.policies.check_change(info.id, request.requester)
        target.check()
        params = _packed(request)
        with ExitStack() as stack:
            assert info.node is not None, "it is another node's"
            own = (info.name.casefold(), info.id)
            others = [name for name in target.reads if name.casefold() not in own]
            inputs = self._inputs.read(others, info.node, request, deadline, stack)
            folder = self._folder() if target.returning else None
            stack.callback(_remove, folder)
            change = ForeignChange(
            info.id, info.name, request.sql, params, request.requester, deadline.left or _SECONDS,
            None if folder is None else folder / "returned.arrow",
            # One more, so that it is known here whether there are more.
            None if folder is None or request.max_rows is None else request.max_rows + 1,
            inputs,
            )  # fmt: skip
            return ForwardedChange(
                self._tables.remote.change(change),
                lambda made: self._result(request, change, made),
                stack.pop_all().close,
            )

    def _folder(self) -> Path:
        staging = make_private_folder(self._tables.staging)
        return Path(tempfile.mkdtemp(prefix="returned-", dir=staging))

    def _foreign(self, sql: str) -> list[DatasetInfo]:
        """Return the datasets that a text may name and whose writers accept changes of this node."""
        found = []
        for dataset in self._tables.named([sql]):
            with suppress(Corrupt):
                info = self._catalog.find(dataset)
                if info is not None and info.node and self._tables.remote.accepts_changes(info.id):
                    found.append(info)
        return found

    def _result(self, request: StatementRequest, change: ForeignChange, made: Changed) -> Execution:
        """Start what sends the number of changed rows, or the rows of RETURNING."""
        members: dict[str, Any] = {"format": request.format}
        if change.place is not None:
            members |= {"engine": "arrived", "file": str(change.place), "maxRows": request.max_rows}
        else:
            count = f'SELECT CAST({made.count} AS BIGINT) AS "Count"'
            members |= {"engine": "duckdb", "sql": count, "tables": []}
        return self._pool.submit(
            "lake.sql",
            members,
            user=request.user,
            priority=request.priority,
            restartable=True,
        )


def _packed(request: StatementRequest) -> str:
    if request.arrow_params is not None:
        raise Unsupported(
            "a prepared statement that changes a dataset which another node writes",
            hint="send the statement with its values",
        )
    try:
        return json.dumps(request.params) if request.params else ""
    except (TypeError, ValueError):
        raise Unsupported(
            "parameters that are no JSON, in a change of a dataset that another node writes",
            hint="pass them as text, and CAST them in SQL",
        ) from None


class ForwardedChange:
    """A change that another node makes, with the methods of `WriteExecution`.

    Args:
        change: How it ends.
        send: Starts what sends its result.
        end: Removes what it has used here.
    """

    engine = "duckdb"
    pid = 0  # no process of this node runs it
    progress = Progress()

    def __init__(
        self,
        change: Future[Changed],
        send: Callable[[Changed], Execution],
        end: Callable[[], object],
    ) -> None:
        self._change = change
        self._send = send
        self._end = end
        self._execution: Execution | None = None

    @property
    def done(self) -> bool:
        """Whether the change is made, or refused."""
        return self._change.done()

    @property
    def awaited_version(self) -> int | None:
        """The version with the change, if it has not reached this node in time; None if it has."""
        made = self._made()
        return None if made.is_here else made.version

    def payloads(self) -> Iterator[memoryview]:
        """Wait for the change, then yield the result's bytes."""
        return self._sent().payloads()

    def batches(self) -> Iterator[pa.RecordBatch]:
        """Wait for the change, then yield the result (format `arrow` only)."""
        return self._sent().batches()

    def result(self, timeout: float | None = None) -> dict[str, Any]:
        """Return `count`, `version`, `isHere`, `columns`, `engine` and `inputs`; blocks.

        Args:
            timeout: Has no effect, as in `WriteExecution`.
        """
        del timeout
        made = self._made()
        answer = self._sent().result()
        return {
            "rows": answer["rows"],
            "count": made.count,
            "version": made.version,
            "isHere": made.is_here,
            "columns": answer["columns"],
            "truncated": answer["truncated"],
            "engine": self.engine,
            "inputs": [],
        }

    def _sent(self) -> Execution:
        if self._execution is None:
            self._execution = self._send(self._made())
        return self._execution

    def _made(self) -> Changed:
        try:
            return self._change.result()
        except FutureCancelled:
            raise Cancelled("the statement") from None

    def cancel(self) -> None:
        """Request cancellation; a change that is committed stays."""
        self._change.cancel()
        if self._execution is not None:
            self._execution.cancel()

    def close(self) -> None:
        """Cancel it if it is not made yet; may be called twice."""
        self._change.cancel()
        if self._execution is not None:
            self._execution.close()
        # If rows are still written to its folder, that ends with an error of the future.
        self._end()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _remove(folder: Path | None) -> None:
    """Remove the rows of RETURNING, if there are any."""
    if folder is not None:
        shutil.rmtree(folder, ignore_errors=True)
