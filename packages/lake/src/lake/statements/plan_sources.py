"""Sources of plans: a dataset or view becomes shards of a snapshot, or a query.

A dataset that the user may read whole is its shards, which tasks read themselves; those of an encrypted
one are decrypted into memory. A view, and a dataset of which a policy shows a part, is a query, which
DuckDB runs with the rights of the user before the plan (`lake.sql.plan_source_worker`). All of it is found
and leased when the job is submitted, so that the job reads one state.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from lake.catalog.catalog import Catalog
from lake.catalog.snapshots import Manifest
from lake.encryption.vault import Hold
from lake.objects.disk_space import DiskSpace
from lake.statements.limits import Requester
from lake.statements.tables import StatementTables, dataset_of, is_view
from sennit_core.errors import Conflict, NotFound, Unsupported, UsageError, error_from_json
from sennit_core.records import SnapshotInfo
from sennit_core.schema import Schema

if TYPE_CHECKING:
    from emsqrt.executor import ExecutorPool
    from emsqrt.plan import DatasetRef
    from lake.views.views import ViewInfo

__all__ = ["PlanSource", "PlanSources"]

_ENTRY = "lake.plan"


@dataclass(frozen=True, slots=True)
class PlanSource:
    """A source of a plan.

    Args:
        id: Of the dataset or view.
        state: The id of the dataset's snapshot; None for a view.
        schema: Its columns, as far as the user sees them.
        datasets: The ids of the datasets that are read, by name.
        encrypted: Whether one of them is.
        memory: The members of executor requests for temporary files in memory; none unless it is.
        snapshot: The snapshot whose shards are read; None for a query.
        paths: The files of its shards.
        query: The query in the form of `lake.sql.plan_source_worker`; None for shards.
        held: Ends the leases, and the use of decrypted shards.
    """

    id: str
    state: str | None
    schema: Schema
    datasets: Mapping[str, str]
    encrypted: bool
    memory: Mapping[str, Any]
    snapshot: SnapshotInfo | None = None
    paths: tuple[str, ...] = ()
    query: Mapping[str, Any] | None = None
    held: ExitStack = field(default_factory=ExitStack)


class PlanSources:
    """Finds the sources of plans.

    Args:
        pool: Binds queries.
        catalog: Knows datasets and views.
        tables: Finds the datasets of queries, and leases their shards.
        space: Limits the files of queries.
    """

    def __init__(
        self, pool: ExecutorPool, catalog: Catalog, tables: StatementTables, space: DiskSpace
    ) -> None:
        self._pool = pool
        self._catalog = catalog
        self._tables = tables
        self._policies = tables.policies
        self._space = space

    def open(self, ref: DatasetRef, requester: Requester) -> PlanSource:
        """Return a source, with what it reads leased until its `held` is closed.

        Args:
            ref: What the plan names.
            requester: The user.

        Raises:
            NotFound: There is no such dataset, view or version, as far as the user can know.
            Denied: A dataset is encrypted, and the lake has no key; or a version had other columns
                than the policy is about.
            Corrupt: A shard is known to be damaged.
            Conflict: The dataset is linked to a file that is not ingested yet.
        """
        view = self._view(ref.dataset)
        if view is not None:
            if (ref.snapshot, ref.version, ref.timestamp) != (None, None, None):
                raise Unsupported(
                    f"a version of {view.name!r}, which is a view", hint="name a dataset under it"
                )
            return self._query((view.id, None), view.name, {}, requester)
        info = self._policies.visible(ref.dataset, requester)
        purges = self._catalog.rewriter.purges
        manifest = self._manifest(info.id, ref)
        if not self._policies.access(info.id, requester).is_restricted:
            return self._shards(manifest.snapshot, purges)
        self._policies.check_history(manifest.snapshot, requester)
        state = info.id, manifest.snapshot.id
        # The name of its view, as for `t AT (VERSION => n)` in SQL.
        name = f"{info.id}@{manifest.snapshot.version}"
        return self._query(state, name, {name: manifest}, requester)

    def _view(self, name: str) -> ViewInfo | None:
        views = self._catalog.views
        return views.find(name) or next((each for each in views.all() if each.id == name), None)

    def _manifest(self, dataset: str, ref: DatasetRef) -> Manifest:
        if ref.version is not None:
            return self._catalog.manifest_at(dataset, version=ref.version)
        if ref.timestamp is not None:
            return self._catalog.manifest_at(dataset, time=_seconds(ref.timestamp))
        return self._catalog.manifest(dataset, ref.snapshot)

    def _shards(self, snapshot: SnapshotInfo, purges: int) -> PlanSource:
        table, hold = self._tables.hold_snapshot(snapshot, purges)
        with ExitStack() as stack:
            stack.callback(self._tables.release, hold)
            if not self._catalog.has_snapshot(snapshot.dataset, snapshot.id):
                # Expired before the lease, so its objects may be gone.
                raise Conflict("the version was removed meanwhile", hint="submit the job again")
            _check(table)
            return PlanSource(
                snapshot.dataset,
                snapshot.id,
                snapshot.schema,
                {table["name"]: snapshot.dataset},
                bool(table["encrypted"]),
                hold.members,
                snapshot,
                tuple(table["paths"]),
                held=stack.pop_all(),
            )

    def _query(
        self,
        source: tuple[str, str | None],
        name: str,
        history: Mapping[str, Manifest],
        requester: Requester,
    ) -> PlanSource:
        quoted = name.replace('"', '""')
        sql = f'SELECT * FROM "{quoted}"'
        tables, hold = self._tables.hold(sql, history, requester)
        with ExitStack() as stack:
            stack.callback(self._tables.release, hold)
            if all(table["name"].casefold() != name.casefold() for table in tables):
                raise NotFound("dataset", name)  # a view of which the user may not read a dataset
            for table in tables:
                _check(table)
            return PlanSource(
                *source,
                self._columns(_request(sql, tables, hold), requester),
                {table["name"]: dataset_of(table) for table in tables if not is_view(table)},
                any(table.get("encrypted") for table in tables),
                hold.members,
                query={**_request(sql, tables, hold), "space": self._limit(hold)},
                held=stack.pop_all(),
            )

    def _columns(self, query: dict[str, Any], requester: Requester) -> Schema:
        """Return the columns of a query, which an executor binds."""
        request = {"describe": query, "shards": []}
        with self._pool.submit(
            _ENTRY, request, user=requester.name, restartable=True, bounded=False
        ) as execution:
            return Schema.from_json(execution.result()["schema"])

    def _limit(self, hold: Hold) -> dict[str, Any]:
        limit = self._space.limit().without_quota().to_json()  # the files are no objects
        return limit if hold.folder is None else {**limit, "bytesMax": hold.temporary_bytes}


def _request(sql: str, tables: list[dict[str, Any]], hold: Hold) -> dict[str, Any]:
    return {"sql": sql, "tables": tables, **hold.members}


def _check(table: Mapping[str, Any]) -> None:
    """Raise the error of a table that cannot be read."""
    if table.get("damage") is not None:
        raise error_from_json(table["damage"])


def _seconds(timestamp: str) -> float:
    try:
        time = datetime.fromisoformat(timestamp)
    except ValueError:
        raise UsageError(
            f"timestamp {timestamp[:40]!r} is no time in ISO 8601", hint="2026-01-31T12:00:00"
        ) from None
    return (time if time.tzinfo is not None else time.replace(tzinfo=UTC)).timestamp()
