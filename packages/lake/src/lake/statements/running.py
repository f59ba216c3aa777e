"""Statements that run: listed, stopped by their id, and logged when they end.

Statements that run for longer than a second are also published in the realtime tree, without their
text; a shorter one would cost more to publish than to run.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self, TypeAlias, TypeVar

from elkyn.records import Table
from lake.peers.transport.stop import Stop
from lake.statements.limits import Requester
from sennit_core.clock import Clock
from sennit_core.errors import Cancelled, NotFound, SennitError
from sennit_core.ids import new_id
from sennit_core.records import Progress, Record

if TYPE_CHECKING:
    import pyarrow as pa

    from elkyn import ElkynStore
    from emsqrt.executor import ExecutorPool
    from lake.distributed.forwarded_execution import ForwardedChange
    from lake.distributed.partial import MissingShards
    from lake.statements.queries import QueryExecution
    from lake.statements.result_cache import CachedQuery
    from lake.statements.scripts import ScriptExecution
    from lake.storage import Storage
    from lake.writes.write_execution import WriteExecution

__all__ = ["AUDIT_LOGGER", "STATEMENT_MAX", "QueryInfo", "RunningStatement", "RunningStatements"]

AUDIT_LOGGER = "sennit.audit"
STATEMENT_MAX = 4096
_PUBLISH_SECONDS = 1.0
_audit = logging.getLogger(AUDIT_LOGGER)

T = TypeVar("T")
Started: TypeAlias = (
    "QueryExecution | CachedQuery | WriteExecution | ForwardedChange | ScriptExecution"
)


@dataclass(frozen=True, slots=True)
class QueryInfo(Record):
    """A statement that runs.

    Args:
        id: Its id.
        user: Who runs it.
        state: `queued` for an executor, or `running`.
        engine: The engine that runs it now.
        since: When it arrived, in Unix seconds.
        progress: The last progress that the executor reported.
        statement: Its text, cut to 4,096 characters; None in the realtime tree.
    """

    id: str
    user: str
    state: str
    engine: str
    since: float
    progress: Progress | None = None
    statement: str | None = None


class RunningStatement:
    """A statement's execution with an id; a context manager.

    It has the interface of the execution, and records how it ends.

    Args:
        owner: Lists it.
        sql: Its text.
        requester: The user.
        engine: The requested engine.
    """

    def __init__(
        self, owner: RunningStatements, sql: str, requester: Requester, engine: str, now: float
    ) -> None:
        self.id = new_id()
        self.requester = requester
        self.memory_bytes = 0
        """What the user's quota leaves for it; 0 for the cap of an executor."""
        self.starting = Stop()
        """Stops what runs before there is an execution, such as its parts at other nodes."""
        self.datasets: dict[str, str] = {}
        """The datasets that it may read: names by the ids of their snapshots."""
        self.owners: set[str] = set()
        """Who owns them, if it is for a user of another node: an only owner sees it, and may stop it."""
        self._owner = owner
        self._sql = sql[:STATEMENT_MAX]
        self._asked_engine = engine
        self._since = now
        self._started = time.monotonic()
        # Guards the two below: a stop that comes before the execution counts for it.
        self._lock = threading.Lock()
        self._execution: Started | None = None
        self._stopped_by: str | None = None
        self._bytes = 0
        # "cancelled" until it is known to have ended in another way.
        self._outcome = "cancelled"
        self._closed = False

    def hide_text(self) -> None:
        """Keep only the verb: the text has values of an encrypted dataset, and a log is in the clear."""
        self._sql = f"{self._sql.split(maxsplit=1)[0].upper()} …" if self._sql.strip() else ""

    def attach(self, execution: Started) -> None:
        """Set the execution, which is cancelled if the statement was stopped meanwhile."""
        with self._lock:
            self._execution = execution
            stopped = self._stopped_by is not None
        if stopped:
            execution.cancel()

    @property
    def execution(self) -> Started:
        """What runs it."""
        assert self._execution is not None, "it is handed out when it has started"
        return self._execution

    @property
    def engine(self) -> str:
        """The engine in use; final once the first piece of the result is available."""
        return self.execution.engine

    @property
    def cache(self) -> str | None:
        """How the result cache was used: `hit`, `miss` or `bypass`; None for a change."""
        return getattr(self.execution, "cache", None)

    @property
    def missing(self) -> tuple[MissingShards, ...]:
        """The shards that the result leaves out, if its request allows that."""
        found: tuple[MissingShards, ...] = getattr(self.execution, "missing", ())
        return found

    @property
    def awaited_version(self) -> int | None:
        """The version of a change that another node made, while it has not reached this one."""
        return getattr(self.execution, "awaited_version", None)

    @property
    def queued(self) -> str | None:
        """The id of an append that waits for another node."""
        return getattr(self.execution, "queued", None)

    @property
    def pid(self) -> int:
        """The process id of the executor; 0 while it is queued."""
        return self.execution.pid

    @property
    def progress(self) -> Progress:
        """The current progress."""
        return self.execution.progress

    @property
    def done(self) -> bool:
        """Whether it has ended; payloads may still be unread."""
        return self.execution.done

    def payloads(self) -> Iterator[memoryview]:
        """Yield the result's bytes; each view is valid until the next is requested."""
        for payload in self._observed(self.execution.payloads()):
            self._bytes += payload.nbytes
            yield payload

    def batches(self) -> Iterator[pa.RecordBatch]:
        """Yield the result as Arrow batches (format `arrow` only)."""
        for batch in self._observed(self.execution.batches()):
            self._bytes += batch.nbytes
            yield batch

    def result(self, timeout: float | None = None) -> dict[str, Any]:
        """Return the report of the execution; raise the statement's error.

        Args:
            timeout: Seconds to wait for each step of a query; a change is waited for.
        """
        running = self.execution
        with self._noted_errors():
            answer: dict[str, Any] = running.result(timeout)
        self._outcome = "ok"
        return answer

    def cancel(self) -> None:
        """Request cancellation."""
        self.execution.cancel()

    def stop(self, user: str) -> None:
        """Cancel it for another user, whom its error names."""
        with self._lock:
            self._stopped_by = user
            execution = self._execution
        self.starting.stop()
        if execution is not None:
            execution.cancel()

    def fail(self, error: SennitError) -> None:
        """Record that it ended before its execution started."""
        self._outcome = error.code
        self._end(None)

    def close(self) -> None:
        """Cancel it if it is running, and release all resources; may be called twice."""
        execution = self.execution
        report = None
        if self._outcome == "ok" and not self._closed:
            with contextlib.suppress(SennitError):
                report = execution.result(0)
        try:
            execution.close()
        finally:
            self._end(report)

    def info(self, *, with_text: bool = True) -> QueryInfo:
        """Return its record."""
        execution = self._execution
        return QueryInfo(
            self.id,
            self.requester.name,
            "running" if execution is not None and execution.pid else "queued",
            self._asked_engine if execution is None else execution.engine,
            self._since,
            None if execution is None else execution.progress,
            self._sql if with_text else None,
        )

    @property
    def age_seconds(self) -> float:
        """The seconds since it arrived."""
        return time.monotonic() - self._started

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _observed(self, pieces: Iterator[T]) -> Iterator[T]:
        with self._noted_errors():
            yield from pieces
        self._outcome = "ok"

    @contextlib.contextmanager
    def _noted_errors(self) -> Iterator[None]:
        try:
            yield
        except SennitError as error:
            self._outcome = error.code
            if isinstance(error, Cancelled) and self._stopped_by is not None:
                raise Cancelled(
                    f"query {self.id}", hint=f"it was stopped by {self._stopped_by}"
                ) from error
            raise

    def _end(self, report: Mapping[str, Any] | None) -> None:
        if self._closed:
            return
        self._closed = True
        self._owner.remove(self)
        read = None if report is None else report.get("inputs")
        names = self.datasets if read is None else {key: self.datasets.get(key, "") for key in read}
        fields = {
            "query": self.id,
            "user": self.requester.name,
            "role": self.requester.role,
            "statement": self._sql,
            "datasets": sorted(set(names.values())),
            "snapshots": sorted(names),
            "rows": None if report is None else report.get("count", report["rows"]),
            "bytes": self._bytes,
            "seconds": round(self.age_seconds, 6),
            "engine": self._asked_engine if self._execution is None else self._execution.engine,
            "outcome": self._outcome,
        }
        if self.requester.node:
            fields["node"] = self.requester.node
        if self._stopped_by is not None:
            fields["stoppedBy"] = self._stopped_by
        _audit.info("query %s", self._outcome, extra={"fields": fields})


class RunningStatements:
    """The statements that run in a lake.

    Args:
        tree: The namespace `sys`, in which long ones are published.
        storage: Has the quotas of the users, and is told while statements run.
        pool: The executors.
        clock: Source of times.
    """

    def __init__(
        self, tree: ElkynStore, storage: Storage, pool: ExecutorPool, *, clock: Clock
    ) -> None:
        self._foreground = storage.foreground
        self._quotas = storage.quotas
        self._executor_bytes = pool.executor_bytes
        self._table = Table(tree, "/queries", QueryInfo)
        self._clock = clock
        self._lock = threading.Condition()
        # Both are changed under the lock; the second has the ids that are in the tree.
        self._running: dict[str, RunningStatement] = {}
        self._published: set[str] = set()
        # Runs while there are statements; the next one starts another.
        self._publisher: threading.Thread | None = None
        self._closed = False
        for query_id in self._table.ids():  # of a process that was killed
            self._table.remove(query_id)

    def start(
        self,
        sql: str,
        requester: Requester,
        engine: str,
        begin: Callable[[RunningStatement], Started],
    ) -> RunningStatement:
        """Start a statement, and list it until it is closed.

        Args:
            sql: Its text.
            requester: The user.
            engine: The requested engine.
            begin: Starts the execution.

        Raises:
            Busy: The user's quota is used up.
        """
        statement = RunningStatement(self, sql, requester, engine, self._clock.now())
        with self._lock:
            try:
                self._admit(statement)
            except SennitError as error:
                statement.fail(error)
                raise
            self._running[statement.id] = statement
            if len(self._running) == 1:
                self._foreground.hold(busy=True)
            if self._publisher is None:
                self._publisher = threading.Thread(
                    target=self._publish, name="lake-queries", daemon=True
                )
                self._publisher.start()
        try:
            statement.attach(begin(statement))
        except SennitError as error:
            statement.fail(error)
            raise
        except BaseException:
            self.remove(statement)
            raise
        return statement

    def _admit(self, statement: RunningStatement) -> None:
        user = statement.requester.quota_key
        reserved = [
            each.memory_bytes for each in self._running.values() if each.requester.quota_key == user
        ]
        statement.memory_bytes = self._quotas.admit_statement(user, reserved, self._executor_bytes)

    def list(self, requester: Requester) -> list[QueryInfo]:
        """Return the statements that a user may see, the oldest first: one's own; all for admins."""
        with self._lock:
            running = list(self._running.values())
        return [each.info() for each in running if _may_see(each, requester)]

    def stop(self, query_id: str, requester: Requester) -> QueryInfo:
        """Stop a statement.

        Raises:
            NotFound: None runs with this id, as far as the user can know.
        """
        with self._lock:
            statement = self._running.get(query_id)
        if statement is None or not _may_see(statement, requester):
            raise NotFound("running query", query_id, None)
        info = statement.info()
        statement.stop(requester.name or "the node")
        return info

    def remove(self, statement: RunningStatement) -> None:
        """Forget a statement that has ended."""
        with self._lock:
            if self._running.pop(statement.id, None) is not None and not self._running:
                self._foreground.hold(busy=False)
            is_published = statement.id in self._published
            self._published.discard(statement.id)
            if is_published:
                self._table.remove(statement.id)

    def close(self) -> None:
        """End the publication."""
        with self._lock:
            self._closed = True
            self._lock.notify_all()
            publisher = self._publisher
        if publisher is not None:
            publisher.join()

    def _publish(self) -> None:
        """Publish the statements that run for long, each second, until there are none."""
        with self._lock:
            while True:
                self._lock.wait_for(lambda: self._closed, timeout=_PUBLISH_SECONDS)
                if self._closed or not self._running:
                    self._publisher = None
                    return
                for statement in list(self._running.values()):
                    if statement.age_seconds >= _PUBLISH_SECONDS:
                        # Under the lock, so that it is not published after it was removed.
                        info = statement.info(with_text=False)
                        self._table.put(statement.id, info, ephemeral=True)
                        self._published.add(statement.id)


def _may_see(statement: RunningStatement, requester: Requester) -> bool:
    if requester.is_trusted or requester.node:
        return requester.is_trusted
    if statement.requester.node:  # its user is none of this node, whatever the name
        return statement.owners == {requester.name}
    return statement.requester.name == requester.name
