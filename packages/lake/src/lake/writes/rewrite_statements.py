"""Statements that rewrite datasets on behalf of the lake: compaction, upserts of uploads, purges."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lake.catalog.catalog import Catalog
from lake.catalog.origins import Origin
from lake.encryption.vault import Hold
from lake.maintenance.compaction import RunChoice, small_runs
from lake.objects.disk_space import DiskSpace
from lake.statements.limits import Requester
from lake.statements.running import RunningStatement, RunningStatements
from lake.statements.tables import StatementTables
from lake.writes.upsert_execution import UpsertExecution
from lake.writes.upsert_source import UpsertSource
from lake.writes.write_execution import WriteExecution
from lake.writes.writes import Writer
from sennit_core.errors import Corrupt, NotFound, SennitError
from sennit_core.records import SnapshotInfo

if TYPE_CHECKING:
    from emsqrt.executor import Execution, ExecutorPool

__all__ = ["RewriteStatements"]

_COMPACT_ENTRY = "lake.compact"
_PURGE_ENTRY = "lake.purge"
_UPSERT_ENTRY = "lake.upsert"


class RewriteStatements:
    """Starts the statements of a lake that no user has written.

    Args:
        pool: The executors.
        catalog: Knows the datasets.
        tables: Finds the datasets of a statement, and leases their shards.
        writer: Commits changes.
        running: Lists the statements.
        space: Limits what a change may write.
    """

    def __init__(
        self,
        pool: ExecutorPool,
        catalog: Catalog,
        tables: StatementTables,
        writer: Writer,
        running: RunningStatements,
        space: DiskSpace,
    ) -> None:
        self._pool = pool
        self._catalog = catalog
        self._tables = tables
        self._writer = writer
        self._running = running
        self._space = space
        self._policies = tables.policies

    def compact(self, dataset: str, user: str) -> WriteExecution | None:
        """Start to write small shards of a dataset anew as larger ones; None if there are none.

        Args:
            dataset: Id or name.
            user: The author of the snapshot.
        """
        return self.rewrite("compact", dataset, user, lambda head: small_runs(head.shards))

    def rewrite(
        self, name: str, dataset: str, user: str, choose: RunChoice
    ) -> WriteExecution | None:
        """Start to write runs of shards of a dataset anew, with the same rows; None if there are none.

        Args:
            name: What the snapshot calls it.
            dataset: Id or name.
            user: The author of the snapshot.
            choose: Which runs.
        """
        if not choose(self._catalog.manifest(dataset).snapshot):
            return None
        origin = Origin(name, user)

        def start(folder: Path) -> tuple[Execution, Callable[[], object]]:
            purges = self._catalog.rewriter.purges
            head = self._catalog.manifest(dataset).snapshot
            origin.datasets[head.id] = head.dataset
            runs = choose(head)
            chosen = tuple(head.shards[number] for run in runs for number in run)
            table, held = self._tables.hold_snapshot(replace(head, shards=chosen), purges)
            members = {"tables": [table], "groups": runs, "folder": str(folder)}
            return self._submit(_COMPACT_ENTRY, members, held, user=user)

        return WriteExecution(start, self._writer, origin, lambda error: error)

    def upsert(self, source: UpsertSource, user: str) -> RunningStatement:
        """Start to merge encoded rows into their dataset, by key.

        Args:
            source: The rows.
            user: The author of the snapshot.
        """
        origin = Origin(source.text, user, snapshot=source.snapshot)

        def start(
            folder: Path, state: SnapshotInfo | None, added: Sequence[dict[str, Any]]
        ) -> tuple[Execution, Callable[[], object]]:
            purges = self._catalog.rewriter.purges
            head = state or self._catalog.manifest(source.dataset).snapshot
            origin.datasets[head.id] = head.dataset
            source.check(head)
            with ExitStack() as stack:
                paths = stack.enter_context(self._tables.open_new(source.dataset, added))
                table, held = self._tables.hold_snapshot(head, purges)
                members = {"tables": [table], "folder": str(folder), **source.members}
                members["added"] = None if state is None else paths
                execution, release = self._submit(_UPSERT_ENTRY, members, held, user=user)
                stack.callback(release)
                return execution, stack.pop_all().close

        names = {self._catalog.name(source.dataset): source.dataset}
        return self._running.start(
            source.text,
            Requester(user),
            "duckdb",
            lambda _: UpsertExecution(
                start,
                source.dataset,
                self._catalog,
                self._writer,
                origin,
                lambda error: self._complete(error, names, Requester(user)),
            ),
        )

    def check_keys(self, source: UpsertSource, user: str) -> None:
        """Refuse encoded rows of a dataset that is to be created, of which two have the same key.

        Args:
            source: The rows.
            user: The user.

        Raises:
            BadInput: Two have, or one has none.
        """
        with ExitStack() as stack:
            members: dict[str, Any] = {"tables": [], **source.members}
            members["folder"] = str(stack.enter_context(self._writer.folder()))
            if source.encrypted:
                members |= stack.enter_context(self._tables.memory())
            execution = stack.enter_context(self._pool.submit(_UPSERT_ENTRY, members, user=user))
            execution.result()

    def purge(
        self,
        state: SnapshotInfo,
        members: dict[str, Any],
        user: str,
        adopt: Callable[[dict[str, Any]], object],
    ) -> None:
        """Write the shards that have rows to purge anew, without these rows; blocks.

        Args:
            state: A snapshot with the shards to examine.
            members: Further members of the request (`lake.sql.purge_worker`).
            user: The user.
            adopt: Takes the files of the executor's response.
        """
        folder = self._writer.open_folder()
        try:
            table, held = self._tables.hold_snapshot(state, self._catalog.rewriter.purges)
            members = {**members, "tables": [table], "folder": str(folder)}
            execution, release = self._submit(_PURGE_ENTRY, members, held, user=user)
            try:
                with execution:
                    adopt(execution.result())
            finally:
                release()
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _submit(
        self, entry: str, members: dict[str, Any], held: Hold, **options: Any
    ) -> tuple[Execution, Callable[[], object]]:
        """Start a change; return it, and what ends its lease."""
        try:
            members = {
                **members,
                **held.members,
                "space": self._space.limit().to_json(),
                "seals": self._tables.seals(members["tables"], held),
                "encryptsNew": self._tables.encrypts_new,
            }
            execution = self._pool.submit(entry, members, **options)
        except BaseException:
            self._tables.release(held)
            raise
        return execution, lambda: self._tables.release(held)

    def _complete(
        self, error: SennitError, names: Mapping[str, str], requester: Requester
    ) -> SennitError:
        """Add the nearest name, which the executor does not know; record damage that it found."""
        if isinstance(error, NotFound) and error.kind == "dataset" and error.suggestion is None:
            return self._policies.not_found(error.name, requester)
        if isinstance(error, Corrupt):
            self._catalog.note_damage(names, error)
        return error
