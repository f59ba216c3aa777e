"""Other datasets that a change of another node's dataset reads: their rows are read here, and sent with it.

They are read as the user, under the policies of this node, each as it is then. Rows go to the writer only
of datasets that it may have: those of this node without a policy and encryption, and those of other nodes that
are shared with it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING

from lake.distributed.staged_inputs import StagedInput, StagedObject
from lake.peers.transport.stop import Stop
from lake.sql.types import quoted
from lake.statements.deadline import Deadline
from lake.statements.request import StatementRequest
from sennit_core.errors import Denied
from sennit_core.schema import Field, Schema

if TYPE_CHECKING:
    from lake.catalog.catalog import Catalog
    from lake.statements.running import RunningStatement
    from lake.statements.tables import StatementTables
    from sennit_core.records import DatasetInfo

__all__ = ["StatementInputs"]


class StatementInputs:
    """Reads the rows that changes of other nodes' datasets need.

    Args:
        catalog: Knows the datasets.
        tables: Finds those that a statement may name.
        start: Starts a query (`Statements.start`).
    """

    def __init__(
        self,
        catalog: Catalog,
        tables: StatementTables,
        start: Callable[[StatementRequest], RunningStatement],
    ) -> None:
        self._catalog = catalog
        self._tables = tables
        self._start = start

    def read(
        self,
        names: Sequence[str],
        writer: str,
        request: StatementRequest,
        deadline: Deadline,
        stack: ExitStack,
    ) -> tuple[StagedInput, ...]:
        """Read datasets and views; a name that has neither is left to the writer, which refuses it.

        Args:
            names: Their names in the statement.
            writer: The node that gets the rows.
            request: The statement.
            deadline: When it is to be over.
            stack: Removes the rows after the statement.

        Raises:
            Denied: The writer may not have the rows of one of them.
            SennitError: The user may not read one, or it cannot be read.
        """
        found = []
        for name in names:
            if self._catalog.find_id(name) is None and not self._catalog.views.find_all({name}):
                continue
            self._check(name, writer)
            found.append(self._read(name, request, deadline, stack))
        return tuple(found)

    def _check(self, name: str, writer: str) -> None:
        for dataset in self._tables.named([f"FROM {quoted(name)}"]):
            info = self._catalog.find(dataset)
            if info is not None and not self._may_have(info, writer):
                raise Denied(
                    f"sending rows of dataset {info.name!r} to the node that writes the changed dataset",
                    needed="a dataset without a policy and encryption, shared with that node if it is "
                    "another node's",
                )

    def _may_have(self, info: DatasetInfo, writer: str) -> bool:
        if info.node is None:
            return self._tables.policies.is_open(info)
        return self._tables.remote.may_have(info.id, writer)

    def _read(
        self, name: str, request: StatementRequest, deadline: Deadline, stack: ExitStack
    ) -> StagedInput:
        sql = f"SELECT * FROM {quoted(name)}"
        query = replace(
            request, sql=sql, params=None, format="parquet", max_rows=None, engine="duckdb",
            deadline_seconds=deadline.left, use_cache=False, read_only=True, stop=Stop(),
        )  # fmt: skip
        with (
            self._start(query) as execution,
            self._tables.objects.open_writer(bounded=True) as writer,
        ):
            for piece in execution.payloads():
                writer.write(piece)
            columns = execution.result()["columns"]
            stored = writer.commit()
        names = (stored.object,)
        stack.callback(self._tables.retention.discard, names)
        stack.enter_context(self._tables.retention.lease(names))
        schema = Schema(tuple(Field(each["name"], each["type"]) for each in columns))
        return StagedInput(name, schema, (StagedObject(stored.object, stored.size),))
