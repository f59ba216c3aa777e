"""Statements that change a dataset which another node writes: sent there instead of run here."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lake.distributed.forwarded_execution import ForwardedChange
from lake.distributed.queued_appends import expiry_of
from lake.distributed.remote_shards import Changed, ForeignChange
from lake.distributed.statement_inputs import StatementInputs
from lake.statements.deadline import Deadline
from lake.statements.request import StatementRequest
from lake.statements.target import find_target
from sennit_core.errors import Corrupt, Unsupported, UsageError
from sennit_core.ids import new_id
from sennit_core.logs import get_logger
from sennit_core.private_files import make_private_folder
from sennit_core.records import DatasetInfo

if TYPE_CHECKING:
    from emsqrt.executor import Execution, ExecutorPool
    from lake.catalog.catalog import Catalog
    from lake.statements.running import RunningStatement
    from lake.statements.tables import StatementTables

__all__ = ["Forwarder"]

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
            UsageError: It is to be queued, and does more than add rows.
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
        own = (info.name.casefold(), info.id)
        others = [name for name in target.reads if name.casefold() not in own]
        appends = (target.verb, target.returning, len(others)) == (
            "insert",
            False,
            len(target.reads),
        )
        if request.queue and not appends:
            raise _not_queued(info.name)
        params = _packed(request)
        change_id = new_id() if request.queue else ""
        with ExitStack() as stack:
            assert info.node is not None, "it is another node's"
            inputs = self._inputs.read(others, info.node, request, deadline, stack)
            folder = self._folder() if target.returning else None
            stack.callback(_remove, folder)
            change = ForeignChange(
            info.id, info.name, request.sql, params, request.requester, deadline.left or _SECONDS,
            None if folder is None else folder / "returned.arrow",
            # One more, so that it is known here whether there are more.
            None if folder is None or request.max_rows is None else request.max_rows + 1,
            inputs, change_id, expiry_of(change_id) if change_id else None, appends, request.queue,
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
        """Start what sends the number of changed rows, the rows of RETURNING, or the id of what waits."""
        members: dict[str, Any] = {"format": request.format}
        if change.place is not None:
            members |= {"engine": "arrived", "file": str(change.place), "maxRows": request.max_rows}
        elif made.queued:
            queued = f"SELECT '{made.queued}' AS \"Queued\""
            members |= {"engine": "duckdb", "sql": queued, "tables": []}
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


def _not_queued(dataset: str) -> UsageError:
    return UsageError(
        f"only an INSERT that does not read dataset {dataset!r}, without RETURNING, can be queued",
        hint="run it without --queue while the node that writes the dataset is there",
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


def _remove(folder: Path | None) -> None:
    """Remove the rows of RETURNING, if there are any."""
    if folder is not None:
        shutil.rmtree(folder, ignore_errors=True)
