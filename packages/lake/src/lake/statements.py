"""Starts statements in executors: queries, and statements that change datasets.

A statement reads its datasets as they are at one moment, and their shards stay leased until it has
ended. Its verb decides what it is: `lake.queries` describes the course of a query, `lake.writes` that
of a change.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lake.catalog import Catalog
from lake.disk_space import DiskSpace
from lake.history import may_read_history, resolve_history, without_place
from lake.mentions import changes_data
from lake.queries import QueryExecution, check_parameters
from lake.snapshots import Manifest
from lake.statement_tables import StatementTables, dataset_of
from lake.writes import WriteExecution, Writer
from sennit_core.errors import Corrupt, NotFound, SennitError, Unsupported

if TYPE_CHECKING:
    from emsqrt.executor import Execution, ExecutorPool

__all__ = ["StatementRequest", "Statements"]

_SQL_ENTRY = "lake.sql"
_WRITE_ENTRY = "lake.write"
_FORMATS = ("arrow", "json", "csv")
_ENGINES = ("auto", "duckdb", "emsqrt")
_LEAST_SECONDS = 0.001


@dataclass(frozen=True, slots=True)
class StatementRequest:
    """A statement, and how it is to be run.

    Args:
        sql: One statement over datasets, by name or id.
        params: A list for `?` and `$1`, a dict for `$name`.
        format: Of the result: `arrow` (IPC stream), `json` or `csv`.
        max_rows: Row limit of a query; a longer result is cut and marked `truncated`.
        deadline_seconds: Time limit of the executors, after which the statement is stopped and a
            change is not made.
        engine: `duckdb`; `emsqrt`, which stays within the executor's memory cap for any query; or
            `auto`, which retries with EM-√ if DuckDB runs out of memory before the first byte of
            its result was sent.
        user: The user, who is the author of a change; executors are shared fairly between users.
        read_only: Whether to refuse a statement that is no query, with `Denied`.
    """

    sql: str
    params: list[Any] | dict[str, Any] | None = None
    format: str = "arrow"
    max_rows: int | None = None
    deadline_seconds: float | None = None
    engine: str = "auto"
    user: str = ""
    read_only: bool = False


class Statements:
    """Starts the statements of a lake.

    Args:
        pool: The executors.
        catalog: Knows the datasets.
        tables: Finds the datasets of a statement, and leases their shards.
        writer: Commits changes.
        space: Limits what a change may write.
    """

    def __init__(
        self,
        pool: ExecutorPool,
        catalog: Catalog,
        tables: StatementTables,
        writer: Writer,
        space: DiskSpace,
    ) -> None:
        self._space = space
        self._pool = pool
        self._catalog = catalog
        self._tables = tables
        self._writer = writer

    def start(self, request: StatementRequest) -> QueryExecution | WriteExecution:
        """Start a statement, or queue it for an executor.

        Raises:
            UsageError: A parameter has no SQL value.
            Unsupported: There is no such engine or format.
            Busy: The queue is full. All other errors are raised by the execution.
        """
        check_parameters(request.params)
        if request.format not in _FORMATS:
            raise Unsupported(f"format {request.format!r} is none of {', '.join(_FORMATS)}")
        if request.engine not in _ENGINES:
            raise Unsupported(f"engine {request.engine!r} is none of {', '.join(_ENGINES)}")
        deadline = _Deadline(request.deadline_seconds)
        # A query's executor checks again that it is one.
        if request.read_only or not changes_data(request.sql):
            return self._query(request, deadline)
        if request.engine == "emsqrt":
            raise Unsupported("EM-√ runs queries only", hint="use engine auto or duckdb")
        return self._change(request, deadline)

    def _query(self, request: StatementRequest, deadline: _Deadline) -> QueryExecution:
        sql, history = self._resolve_history(request, deadline)
        tables, held = self._tables.hold(sql, history)
        names = {table["name"]: dataset_of(table) for table in tables}
        engine = request.engine
        if held.members:
            # EM-√ would spill to the disk, in the clear.
            if engine == "emsqrt":
                self._tables.release(held)
                raise Unsupported(
                    "EM-√ cannot read encrypted datasets", hint="use engine auto or duckdb"
                )
            engine = "duckdb"
        whole = {
            "sql": sql,
            "params": request.params,
            "format": request.format,
            "maxRows": request.max_rows,
            "tables": tables,
            **held.members,
        }

        def start(step: str, own: dict[str, Any]) -> Execution:
            members = whole
            if own:
                members = {"format": request.format, "maxRows": request.max_rows, **own}
            return self._pool.submit(
                _SQL_ENTRY,
                {**members, "engine": step},
                deadline_seconds=deadline.left,
                user=request.user,
                restartable=True,
                bounded=not own,  # the later steps of an admitted query are not refused
            )

        try:
            return QueryExecution(
                start,
                engine,
                lambda: self._tables.release(held),
                complete=lambda error: self._complete(
                    without_place(error) if history else error, names
                ),
                deadline_seconds=request.deadline_seconds,
            )
        except BaseException:
            self._tables.release(held)
            raise

    def _change(self, request: StatementRequest, deadline: _Deadline) -> WriteExecution:
        history: dict[str, Manifest] = {}
        names: dict[str, str] = {}

        def start(folder: Path) -> tuple[Execution, Callable[[], object]]:
            sql, found = self._resolve_history(request, deadline)
            history.update(found)
            tables, held = self._tables.hold(sql, found, with_rows=True)
            names.update({table["name"]: dataset_of(table) for table in tables})
            members = {
                "sql": sql,
                "params": request.params,
                "format": request.format,
                "tables": tables,
                "folder": str(folder),
                "space": self._space.limit().to_json(),
                **held.members,
                "seals": self._tables.seals(tables, held),
            }
            try:
                execution = self._pool.submit(
                    _WRITE_ENTRY, members, deadline_seconds=deadline.left, user=request.user
                )
            except BaseException:
                self._tables.release(held)
                raise
            return execution, lambda: self._tables.release(held)

        return WriteExecution(
            start,
            self._writer,
            request.sql,
            request.user,
            lambda error: self._complete(without_place(error) if history else error, names),
        )

    def _resolve_history(
        self, request: StatementRequest, deadline: _Deadline
    ) -> tuple[str, Mapping[str, Manifest]]:
        """Replace tables with an AT clause by views; return the snapshots of these views."""
        if not may_read_history(request.sql):
            return request.sql, {}
        with self._pool.submit(
            _SQL_ENTRY,
            {"engine": "history", "sql": request.sql},
            deadline_seconds=deadline.left,
            user=request.user,
            restartable=True,
        ) as execution:
            found = execution.result()["history"]
        return resolve_history(request.sql, found, self._catalog)

    def _complete(self, error: SennitError, names: Mapping[str, str]) -> SennitError:
        """Add the nearest name, which the executor does not know; record damage that it found."""
        if isinstance(error, NotFound) and error.kind == "dataset" and error.suggestion is None:
            return self._catalog.not_found(error.name)
        if isinstance(error, Corrupt):
            self._catalog.note_damage(names, error)
        return error


class _Deadline:
    """The end of a time limit; of all steps of a statement together."""

    def __init__(self, seconds: float | None) -> None:
        self._until = None if seconds is None else time.monotonic() + seconds

    @property
    def left(self) -> float | None:
        """The seconds until then; None if there is no limit."""
        if self._until is None:
            return None
        return max(self._until - time.monotonic(), _LEAST_SECONDS)
