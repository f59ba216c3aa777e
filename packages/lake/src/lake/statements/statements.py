"""Starts statements in executors: queries, and statements that change datasets.

A statement reads its datasets as they are at one moment, and their shards stay leased until it has
ended. Its verb decides what it is: `lake.statements.queries` describes the course of a query, `lake.writes.write_execution`
that of a change.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lake.catalog.catalog import Catalog
from lake.catalog.list_choice import ALL_LISTS, LeftOuts
from lake.catalog.origins import Origin
from lake.catalog.snapshots import Manifest
from lake.catalog.staged import StagedCatalog
from lake.distributed.cluster_queries import CLUSTER_ENGINE, ClusterQueries
from lake.distributed.distributed_queries import DistributedQueries
from lake.distributed.forwarded_changes import Forwarder
from lake.distributed.forwarded_execution import ForwardedChange
from lake.distributed.partial import MissingShards, fetch_available, missing_shards
from lake.distributed.restricted_queries import RestrictedQueries
from lake.encryption.vault import Hold
from lake.objects.disk_space import DiskSpace
from lake.statements.changes import CHANGES_SQL, NO_CHANGES_SQL, changed_parts
from lake.statements.deadline import Deadline
from lake.statements.history import may_read_history, resolve_history, without_place
from lake.statements.mentions import changes_data
from lake.statements.queries import QueryExecution, ResultKeeper, check_parameters
from lake.statements.request import StatementRequest
from lake.statements.request_scripts import start_script
from lake.statements.result_cache import CachedQuery, CachedResult, ResultCache, result_key
from lake.statements.running import RunningStatement, RunningStatements, Started
from lake.statements.script_text import Block, read_script
from lake.statements.tables import StatementTables, dataset_of, is_view, snapshots_of
from lake.writes.rewrite_statements import RewriteStatements
from lake.writes.write_execution import WriteExecution
from lake.writes.writes import Writer
from sennit_core.errors import Denied, Unsupported

if TYPE_CHECKING:
    from emsqrt.executor import Execution, ExecutorPool
    from lake.distributed.fragment_cluster import FragmentCluster

__all__ = ["Statements"]

_SQL_ENTRY = "lake.sql"
_WRITE_ENTRY = "lake.write"
_FORMATS = ("arrow", "json", "csv", "jsonl", "parquet", "xlsx")
_UNKEPT = ("encrypted", "verifyAlways", "restricted")
"""Members of tables of which no result is kept: "always" verifies at each repetition too."""
_DESCRIBES = re.compile(r"\s*(describe|desc|show)\b", re.IGNORECASE)
_ENGINES = ("auto", "duckdb", "emsqrt", CLUSTER_ENGINE)


class Statements(RewriteStatements):
    """Starts the statements of a lake.

    Args:
        pool: The executors.
        catalog: Knows the datasets.
        tables: Finds the datasets of a statement, and leases their shards.
        writer: Commits changes.
        running: Lists the statements.
        cache: Keeps results of queries.
        space: Limits what a change may write.
        cluster: Runs fragments of queries with the engine `ray`; None if the node has none.
    """

    def __init__(  # noqa: PLR0913 - the parts of a lake
        self,
        pool: ExecutorPool,
        catalog: Catalog,
        tables: StatementTables,
        writer: Writer,
        running: RunningStatements,
        cache: ResultCache,
        space: DiskSpace,
        cluster: FragmentCluster | None = None,
    ) -> None:
        super().__init__(pool, catalog, tables, writer, running, space)
        self._cache = cache
        self._distributed = DistributedQueries(pool, catalog, tables.remote, tables.repair)
        self._clustered = ClusterQueries(pool, catalog, tables, space, cluster)
        self._restricted = RestrictedQueries(pool, tables.remote, tables.staging)
        self._forwarder = Forwarder(pool, catalog, tables, self.start)

    def start(self, request: StatementRequest) -> RunningStatement:
        """Start a statement, or queue it for an executor.

        Raises:
            Denied: It changes data, and the request is read-only.
            UsageError: A parameter has no SQL value.
            Unsupported: There is no such engine or format.
            Busy: The queue is full. All other errors are raised by the execution.
        """
        script = read_script(request.sql)
        if script is not None and request.allow_partial:
            raise _no_partial("several statements")

        def begin(statement: RunningStatement) -> Started:
            if request.stop is not None:
                request.stop.attach(statement.starting.stop)
            if script is None:
                return self.begin(request, statement)
            return start_script(self, script, request, statement)

        return self._running.start(request.sql, request.requester, request.engine, begin)

    def stage(self, block: Block) -> StagedCatalog:
        """Open the catalog that the statements of a transaction see."""
        datasets = self._tables.named(piece.text for piece in block.pieces)
        return StagedCatalog(self._catalog, self._tables.retention, datasets)

    def over(self, catalog: StagedCatalog) -> Statements:
        """Return the statements of a transaction."""
        return Statements(
            self._pool, catalog, self._tables.over(catalog),
            self._writer.over(catalog, catalog.refuse_drop), self._running, self._cache,
            self._space, self._clustered.cluster,
        )  # fmt: skip

    def use_cluster(self, cluster: FragmentCluster | None) -> None:
        """Let fragments of queries with the engine `ray` run at a cluster; None for none any more."""
        self._clustered.cluster = cluster

    def begin(
        self, request: StatementRequest, statement: RunningStatement
    ) -> QueryExecution | CachedQuery | WriteExecution | ForwardedChange:
        """Start one statement of a request."""
        check_parameters(request.params)
        if request.format not in _FORMATS:
            raise Unsupported(f"format {request.format!r} is none of {', '.join(_FORMATS)}")
        if request.engine not in _ENGINES:
            raise Unsupported(f"engine {request.engine!r} is none of {', '.join(_ENGINES)}")
        deadline = Deadline(request.deadline_seconds)
        # A query's executor checks again that it is one.
        if not changes_data(request.sql):
            return self._query(request, deadline, statement)
        if request.read_only:
            raise Denied("changing a dataset", needed="writer")
        if request.allow_partial:
            raise _no_partial("a statement that changes a dataset")
        if request.engine in ("emsqrt", CLUSTER_ENGINE):
            name = "EM-√" if request.engine == "emsqrt" else "Ray"
            raise Unsupported(f"{name} runs queries only", hint="use engine auto or duckdb")
        # A transaction is of this node alone.
        is_single = not isinstance(self._catalog, StagedCatalog)
        forwarded = self._forwarder.start(request, deadline) if is_single else None
        return forwarded or self._change(request, deadline, statement)

    def changes(
        self, dataset: str, since: int | str, until: int | str | None, request: StatementRequest
    ) -> RunningStatement:
        """Start the query for what changed between two versions of a dataset.

        Args:
            dataset: Id or name.
            since: The earlier version, or its tag.
            until: The later one; None for the newest.
            request: How it is to be run; its statement is ignored.

        Raises:
            NotFound: There is no such dataset or version.
        """
        return self._running.start(
            f"changes of {dataset} since {since} until {until or 'now'}",
            request.requester,
            request.engine,
            lambda statement: self._changes(dataset, since, until, request, statement),
        )

    def _changes(
        self,
        dataset: str,
        since: int | str,
        until: int | str | None,
        request: StatementRequest,
        statement: RunningStatement,
    ) -> QueryExecution | CachedQuery:
        self._policies.check_whole(dataset, request.requester, "reading the changes of")
        before = self._catalog.manifest_at(dataset, version=since)
        if until is None:
            after = self._catalog.manifest(dataset)
        else:
            after = self._catalog.manifest_at(dataset, version=until)
        names = [f"{each.snapshot.dataset}@{each.snapshot.version}" for each in (before, after)]
        parts = dict(zip(names, changed_parts(before, after), strict=True))
        sql = CHANGES_SQL if len(parts) == 2 else NO_CHANGES_SQL
        request = replace(request, sql=sql.format(before=names[0], after=names[1]))
        return self._start(request, parts, Deadline(request.deadline_seconds), statement)

    def _query(
        self, request: StatementRequest, deadline: Deadline, statement: RunningStatement
    ) -> QueryExecution | CachedQuery:
        sql, history = self._resolve_history(request, deadline)
        request = replace(request, sql=sql)
        # Shards that cannot be had are removed by their numbers among all.
        left_out = (
            ALL_LISTS if request.allow_partial else self._choose_lists(request, sql, deadline)
        )
        return self._start(request, history, deadline, statement, left_out)

    def _start(
        self,
        request: StatementRequest,
        history: Mapping[str, Manifest],
        deadline: Deadline,
        statement: RunningStatement,
        left_out: LeftOuts = ALL_LISTS,
    ) -> QueryExecution | CachedQuery:
        """Start a query in which names of views stand for earlier snapshots."""
        tables, held = self._tables.hold(
            request.sql, history, request.requester, left_out=left_out, fetch=False
        )
        if at := self._start_at_cluster(request, tables, held, history, deadline, statement):
            return at
        joins = not history and self._distributed.joins_restricted(request, tables)
        held = self._read_restricted(request, tables, held) if joins else held
        try:
            for queries in () if history else (self._distributed, self._restricted):
                started = queries.start(
                    request, tables, lambda: self._tables.release(held), deadline, statement
                )
                if started is not None:
                    statement.datasets = snapshots_of(tables)
                    return started
            missing = self._fetch(request, tables, deadline, statement)
        except BaseException:
            self._tables.release(held)
            raise
        held = self._read_restricted(request, tables, held)
        names = {table["name"]: dataset_of(table) for table in tables if not is_view(table)}
        statement.datasets = snapshots_of(tables)
        if held.folder is not None:
            statement.hide_text()
        whole = {**_members(request), "tables": tables, **held.members}
        key = None if missing else self._key(request, whole)
        found = None if key is None else self._cache.find(key)
        if found is not None:
            self._tables.release(held)
            return CachedQuery(found)

        def start(step: str, own: dict[str, Any]) -> Execution:
            members = _of_later_step(request, held, own) if own else whole
            return self._pool.submit(
                _SQL_ENTRY,
                {**members, "engine": step},
                deadline_seconds=deadline.left,
                user=request.user,
                priority=request.priority,
                mem_cap_bytes=statement.memory_bytes or None,
                restartable=True,
                bounded=not own,  # the later steps of an admitted query are not refused
                data=_data_of(tables),
            )

        try:
            return QueryExecution(
                start,
                request.engine,
                lambda: self._tables.release(held),
                complete=lambda error: self._complete(
                    without_place(error) if history else error, names, request.requester
                ),
                deadline_seconds=request.deadline_seconds,
                keeper=None if key is None else self._keeper(key, frozenset(names.values())),
                missing=missing,
                repair=self._tables.repair.of(lambda: tables, deadline),
            )
        except BaseException:
            self._tables.release(held)
            raise

    def _start_at_cluster(
        self,
        request: StatementRequest,
        tables: list[dict[str, Any]],
        held: Hold,
        history: Mapping[str, Manifest],
        deadline: Deadline,
        statement: RunningStatement,
    ) -> QueryExecution | None:
        """Start a query with the cluster's engine; None if the node runs it, or it has another engine."""
        if request.engine != CLUSTER_ENGINE:
            return None
        try:
            self._clustered.check(request, tables)
            if history or isinstance(self._catalog, StagedCatalog):
                raise Unsupported(
                    f'the engine "{CLUSTER_ENGINE}" for earlier versions and in transactions',
                    hint='use the engine "duckdb"',
                )
            if request.allow_partial:
                raise _no_partial(f'a query with the engine "{CLUSTER_ENGINE}"')
            self._fetch(request, tables, deadline, statement)
            started = self._clustered.start(
                request, tables, lambda: self._tables.release(held), deadline, statement
            )
        except BaseException:
            self._tables.release(held)
            raise
        if started is not None:
            statement.datasets = snapshots_of(tables)
        return started

    def _read_restricted(
        self, request: StatementRequest, tables: list[dict[str, Any]], held: Hold
    ) -> Hold:
        rows = not (request.describe or _DESCRIBES.match(request.sql))
        return self._tables.read_restricted(tables, held, request.requester, rows=rows)

    def _fetch(
        self,
        request: StatementRequest,
        tables: list[dict[str, Any]],
        deadline: Deadline,
        statement: RunningStatement,
    ) -> tuple[MissingShards, ...]:
        """Fetch the shards that are not here; return those that were removed from the tables."""
        fetch = partial(self._tables.fetch, seconds=deadline.left, stop=statement.starting)
        if not request.allow_partial:
            fetch(tables)
            return ()
        absent = fetch_available(fetch, tables)
        named = [
            (self._catalog.name(dataset), self._catalog.manifest(dataset, t["snapshot"]).snapshot)
            for t in tables
            if absent and t.get("snapshot") and t.get("writer") and (dataset := dataset_of(t))
        ]
        return missing_shards(named, absent)

    def _key(self, request: StatementRequest, whole: dict[str, Any]) -> bytes | None:
        """Return the key of the result in the cache; None if the cache is not to be used."""
        if not request.use_cache or not self._cache.bytes_max:
            return None
        if any(table.get(member) for table in whole["tables"] for member in _UNKEPT):
            return None
        return result_key(whole, request.engine)

    def _keeper(self, key: bytes, datasets: frozenset[str]) -> ResultKeeper:
        def keep(payload: bytes, answer: dict[str, Any]) -> None:
            result = CachedResult.of(payload, answer, datasets)
            self._cache.put(key, result, lambda dataset: self._catalog.find_id(dataset) is not None)

        return ResultKeeper(self._cache.entry_bytes_max, keep)

    def _change(
        self, request: StatementRequest, deadline: Deadline, statement: RunningStatement
    ) -> WriteExecution:
        history: dict[str, Manifest] = {}
        names: dict[str, str] = {}
        read: list[dict[str, Any]] = []
        origin = Origin(request.sql, request.user, "duckdb")
        attempts = itertools.count()

        def start(folder: Path) -> tuple[Execution, Callable[[], object]]:
            sql, found = self._resolve_history(request, deadline)
            history.update(found)
            # The second attempt may follow from a list that was left out, and was needed.
            is_first = next(attempts) == 0
            left_out = self._choose_lists(request, sql, deadline) if is_first else ALL_LISTS
            tables, held = self._tables.hold(
                sql, found, request.requester, with_rows=True, left_out=left_out
            )
            read[:] = tables
            names.update({t["name"]: dataset_of(t) for t in tables if not is_view(t)})
            statement.datasets |= snapshots_of(tables)
            origin.datasets |= {
                table["snapshot"]: dataset_of(table) for table in tables if table.get("snapshot")
            }
            if held.folder is not None:
                origin.hidden = True
                statement.hide_text()
            members = {
                "sql": sql,
                "params": request.params,
                "arrowParams": request.arrow_params,
                "format": request.format,
                "maxRows": request.max_rows,  # of RETURNING; a number of rows is one
                "returnedBytes": request.returned_bytes_max,
                "tables": tables,
                "folder": str(folder),
            }
            return self._submit(
                _WRITE_ENTRY,
                members,
                held,
                user=request.user,
                deadline_seconds=deadline.left,
                mem_cap_bytes=statement.memory_bytes or None,
                priority=request.priority,
            )

        return WriteExecution(
            start,
            self._writer,
            origin,
            lambda error: self._complete(
                without_place(error) if history else error, names, request.requester
            ),
            repair=self._tables.repair.of(lambda: read, deadline),
        )

    def _resolve_history(
        self, request: StatementRequest, deadline: Deadline
    ) -> tuple[str, Mapping[str, Manifest]]:
        """Replace tables with an AT clause by views; return the snapshots of these views."""
        if not may_read_history(request.sql):
            return request.sql, {}
        with self._pool.submit(
            _SQL_ENTRY,
            {"engine": "history", "sql": request.sql},
            deadline_seconds=deadline.left,
            user=request.user,
            priority=request.priority,
            restartable=True,
        ) as execution:
            found = execution.result()["history"]
        for clause in found:
            self._policies.visible(clause["table"], request.requester)
        sql, views = resolve_history(request.sql, found, self._catalog)
        for manifest in views.values():
            self._policies.check_history(manifest.snapshot, request.requester)
        return sql, views

    def _choose_lists(self, request: StatementRequest, sql: str, deadline: Deadline) -> LeftOuts:
        """Return the lists of shards that a statement does not need, of large datasets."""
        choice = self._tables.lists_to_choose(sql, request.requester)
        if not choice or request.describe:
            return ALL_LISTS
        with self._pool.submit(
            _SQL_ENTRY,
            {
                "engine": "lists",
                "sql": sql,
                "params": request.params,
                "arrowParams": request.arrow_params,
                "tables": choice.tables,
            },
            deadline_seconds=deadline.left,
            user=request.user,
            priority=request.priority,
            restartable=True,
        ) as execution:
            return choice.left_out(execution.result()["leftOut"])


def _data_of(tables: Sequence[Mapping[str, Any]]) -> str:
    """Return what is equal if the data is; a hash, as a list of tables may name thousands of datasets."""
    return str(hash(frozenset(table.get("snapshot") or table["id"] for table in tables)))


def _no_partial(what: str) -> Unsupported:
    return Unsupported(
        f"a partial result of {what}", hint="leave out allowPartial, which is for single queries"
    )


def _members(request: StatementRequest) -> dict[str, Any]:
    """Return what an executor gets of a query's request."""
    return {
        "sql": request.sql,
        "params": request.params,
        "arrowParams": request.arrow_params,
        "format": request.format,
        "maxRows": request.max_rows,
        "describe": request.describe,
    }


def _of_later_step(request: StatementRequest, held: Hold, own: dict[str, Any]) -> dict[str, Any]:
    """Return what the executor gets that goes on with a query, from the step before."""
    return {"format": request.format, "maxRows": request.max_rows, **held.members, **own}
