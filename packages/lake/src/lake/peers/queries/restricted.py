"""Queries of other nodes' users over restricted datasets, run by the writer under its policy.

    reader                                         writer
    DescribeRestricted (claim)            ──▶      what does this user see of the dataset?
                                          ◀──      RestrictedDescription: snapshot, columns
    RestrictedQuery (SQL, claim)          ──▶      run as this user, over the policy's views
                                          ◀──      pieces of the result

The asking node may be hostile. It says who its user is (`lake.peers.changes.claims`), and sends any SQL. That is
what local users under a policy do too, so the guard is the same: the views of `lake.sql.policies`. The
datasets are named by id in the request, and no other one exists for the SQL.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

from lake.peers.sharing.publications import EVERYONE
from lake.peers.sharing.sharing import Shares
from lake.peers.transport.messages import BODY_BYTES_MAX, Message
from lake.peers.transport.signed import Statement
from lake.peers.transport.stop import SECONDS_MAX, Stop
from lake.statements.queries import QueryExecution
from sennit_core.errors import BadInput, NotFound
from sennit_core.ids import is_id
from sennit_core.records import Record
from sennit_core.schema import Field, Schema

if TYPE_CHECKING:
    from emsqrt.executor import Execution, ExecutorPool
    from lake.catalog.catalog import Catalog
    from lake.encryption.vault import Hold
    from lake.statements.limits import Requester
    from lake.statements.running import RunningStatement, RunningStatements
    from lake.statements.tables import StatementTables
    from sennit_core.records import DatasetInfo

__all__ = [
    "MESSAGES",
    "SQL_BYTES_MAX",
    "DescribeRestricted",
    "RestrictedDescription",
    "RestrictedQuery",
    "RestrictedReads",
    "RestrictedTable",
]

SQL_BYTES_MAX = 128 << 10
_TABLES_MAX = 64
_FORMATS = ("arrow", "parquet")
_DESCRIBE_SECONDS = 30.0
_NAME = "t"


@dataclass(frozen=True, slots=True)
class DescribeRestricted(Message):
    """Asks what a user sees of a dataset.

    Args:
        dataset: Its id.
        claim: Who asks.
    """

    kind: ClassVar[str] = "restricted-describe"
    dataset: str
    claim: Statement | None = None


@dataclass(frozen=True, slots=True)
class RestrictedDescription(Message):
    """What a user sees of a dataset.

    Args:
        snapshot: The newest snapshot, for queries that are to see one state.
        columns: The columns that the user sees.
        secret: Whether the rows must not be on a disk in the clear.
    """

    kind: ClassVar[str] = "restricted-description"
    snapshot: str
    columns: Schema
    secret: bool = False


@dataclass(frozen=True, slots=True)
class RestrictedTable(Record):
    """A dataset of a query.

    Args:
        name: As it is written in the SQL.
        dataset: Its id.
        snapshot: The snapshot that is read.
    """

    name: str
    dataset: str
    snapshot: str


@dataclass(frozen=True, slots=True)
class RestrictedQuery(Message):
    """A query for a user; answered by pieces of its result.

    Args:
        sql: One query.
        tables: The datasets that it reads.
        format: `arrow` (an IPC stream) or `parquet`.
        seconds: Its time limit.
        claim: Who asks.
    """

    kind: ClassVar[str] = "restricted-query"
    sql: str
    tables: tuple[RestrictedTable, ...]
    format: str
    seconds: float
    claim: Statement | None = None

    def check(self) -> None:
        """Refuse a request that no node of this version makes.

        Raises:
            BadInput: A member is out of range.
        """
        size = len(self.sql.encode("utf-8", "surrogatepass"))
        if size > SQL_BYTES_MAX or not 0 < len(self.tables) <= _TABLES_MAX:
            raise BadInput("a query of a peer", reason=f"it has {size} bytes")
        if self.format not in _FORMATS or not 0 < self.seconds <= SECONDS_MAX:
            raise BadInput("a query of a peer", reason="its format or time limit is out of range")


MESSAGES: tuple[type[Message], ...] = (DescribeRestricted, RestrictedDescription, RestrictedQuery)


class RestrictedReads:
    """Answers for the datasets of this node. Methods block their thread.

    Args:
        catalog: The datasets.
        shares: How they are shared.
        tables: Makes tables of executor requests, under policies.
        pool: The executors.
        running: Lists queries.
    """

    def __init__(
        self,
        catalog: Catalog,
        shares: Shares,
        tables: StatementTables,
        pool: ExecutorPool,
        running: RunningStatements,
    ) -> None:
        self._catalog = catalog
        self._shares = shares
        self._tables = tables
        self._pool = pool
        self._running = running

    def describe(self, dataset: str, user: Requester) -> RestrictedDescription:
        """Return what a user of another node sees of a dataset.

        Raises:
            NotFound: There is none, as far as that node's user can know.
        """
        info = self._shared(dataset, user)
        assert info.head is not None, "it is shared"
        table = RestrictedTable(_NAME, dataset, info.head)
        with self._held((table,), user) as (tables, hold):
            request = {
                "sql": f"FROM {_NAME}", "tables": tables, "format": "arrow", "engine": "duckdb",
                "describe": True, **hold.members,
            }  # fmt: skip
            with self._pool.submit(
                "lake.sql", request, deadline_seconds=_DESCRIBE_SECONDS, user=_label(user),
                restartable=True,
            ) as execution:  # fmt: skip
                found = execution.result()["columns"]
        columns = Schema(tuple(Field(each["name"], each["type"]) for each in found))
        return RestrictedDescription(info.head, columns, info.encrypted)

    def run(
        self, query: RestrictedQuery, user: Requester, shown_as: str, stop: Stop
    ) -> Iterator[bytes]:
        """Yield the result of a query of another node's user, which is listed while it runs.

        Args:
            query: The query.
            user: The user.
            shown_as: The user with the node's name, for the list and the audit log.
            stop: Stops it.

        Raises:
            NotFound: One of the datasets is not there, as far as the user can know.
            SennitError: The error of the query.
        """
        query.check()
        shown = replace(user, name=shown_as)

        def begin(statement: RunningStatement) -> QueryExecution:
            return self._begin(query, user, statement)

        with self._running.start(query.sql, shown, "duckdb", begin) as statement:
            stop.attach(statement.cancel)
            for payload in statement.payloads():
                for start in range(0, len(payload), BODY_BYTES_MAX):
                    yield bytes(payload[start : start + BODY_BYTES_MAX])
            statement.result()

    def _begin(
        self, query: RestrictedQuery, user: Requester, statement: RunningStatement
    ) -> QueryExecution:
        statement.datasets = {each.snapshot[:64]: each.dataset[:64] for each in query.tables}
        statement.owners = {self._shared(each.dataset, user).owner for each in query.tables}
        with ExitStack() as stack:
            tables, hold = stack.enter_context(self._held(query.tables, user))
            if hold.folder is not None:
                statement.hide_text()
            request = {
                "sql": query.sql, "tables": tables, "format": query.format, "engine": "duckdb",
                **hold.members,
            }  # fmt: skip

            def submit(_step: str, members: dict[str, Any]) -> Execution:
                return self._pool.submit(
                    "lake.sql", {**request, **members}, deadline_seconds=query.seconds,
                    user=_label(user), restartable=True,
                )  # fmt: skip

            held = ExitStack()  # until the execution is closed
            execution = QueryExecution(submit, "duckdb", held.close, deadline_seconds=query.seconds)
            held.push(stack.pop_all())
            return execution

    def _shared(self, dataset: str, user: Requester) -> DatasetInfo:
        """Return a dataset that is shared with a user's node.

        Raises:
            NotFound: It is not; the same error as for one that the user may not read.
        """
        share = self._shares.get(dataset) if is_id(dataset) else None
        info = self._catalog.find_known(dataset) if share is not None else None
        is_for = share is not None and ({EVERYONE, user.node} & set(share.nodes))
        if info is None or info.head is None or not is_for:
            raise NotFound("dataset", dataset[:64], suggestion=None)
        return info

    @contextmanager
    def _held(
        self, asked: Sequence[RestrictedTable], user: Requester
    ) -> Iterator[tuple[list[dict[str, Any]], Hold]]:
        for each in asked:
            self._shared(each.dataset, user)
        found = [(each.name, each.dataset, each.snapshot) for each in asked]
        tables, hold = self._tables.hold_for(found, user)
        try:
            yield tables, hold
        finally:
            self._tables.release(hold)


def _label(user: Requester) -> str:
    return f"{user.name}@{user.node[:16]}"
