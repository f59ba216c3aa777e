"""The statement that merges encoded rows into a dataset, and its commit while others append.

    merge into the newest state       without a limit of time; others commit meanwhile
    lock the dataset                  other commits wait for the rest (`lake.catalog.advisory_locks`)
    merge into what was appended      only these shards are read
    commit

What was appended is merged alone, so the lock is short however large the dataset is. After another
change (UPDATE, DELETE, compaction) the whole is merged again; the last times under the lock.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lake._failpoints import reached
from lake.catalog.file_schemas import column_ids
from lake.writes.write_execution import WriteExecution
from sennit_core.errors import Conflict, NotFound, SennitError
from sennit_core.records import SnapshotInfo

if TYPE_CHECKING:
    from emsqrt.executor import Execution
    from lake.catalog.catalog import Catalog
    from lake.catalog.origins import Origin
    from lake.writes.writes import Writer

__all__ = ["UPSERT_ATTEMPTS", "StartUpsert", "UpsertExecution", "joined"]

UPSERT_ATTEMPTS = 6
_FREE_ATTEMPTS = 3
"""Attempts without the lock; in the later ones, other commits wait for the whole merge."""
_CATCH_UPS = 4
"""Commits that had not found the lock may still come in between."""

StartUpsert = Callable[
    [Path, "SnapshotInfo | None", Sequence[dict[str, Any]]],
    "tuple[Execution, Callable[[], object]]",
]
"""Starts a merge that writes into the folder: into the newest state, or into the shards of a state and
anew into shards of an earlier merge, by their reports. Returns it, and what ends its lease."""


class UpsertExecution(WriteExecution):
    """A running upsert; see `WriteExecution`.

    Args:
        start: Starts a merge.
        dataset: The dataset's id.
        catalog: Knows its state.
        writer: Commits it.
        origin: The user, and what the snapshot's record says.
        complete: Called with an error before it is raised; returns the error to raise.
    """

    def __init__(
        self,
        start: StartUpsert,
        dataset: str,
        catalog: Catalog,
        writer: Writer,
        origin: Origin,
        complete: Callable[[SennitError], SennitError],
    ) -> None:
        self._dataset = dataset
        self._catalog = catalog
        self._start_upsert = start
        self._begun = 0
        # Of one attempt: the lock, and the folders of its later merges.
        self._held = ExitStack()
        super().__init__(
            lambda folder: start(folder, None, ()), writer, origin, complete, UPSERT_ATTEMPTS
        )

    def _begin(self) -> None:
        self._begun += 1
        if self._begun > _FREE_ATTEMPTS:
            self._held.enter_context(self._catalog.commit_locks.hold(self._dataset))
        super()._begin()

    def _end(self) -> None:
        try:
            super()._end()
        finally:
            self._held.close()

    def _commit(self, answer: dict[str, Any]) -> dict[str, Any]:
        if answer["action"] == "none":
            return answer
        with self._catalog.commit_locks.hold(self._dataset):
            for attempt in range(1, _CATCH_UPS + 1):
                answer = self._caught_up(answer)
                try:
                    return super()._commit(answer)
                except Conflict:
                    # Overtaken after its shards had become objects, which are removed again.
                    if attempt == _CATCH_UPS or not _are_there(answer):
                        raise
        raise AssertionError("committed, or raised")

    def _caught_up(self, answer: dict[str, Any]) -> dict[str, Any]:
        """Return the response for the newest state: merged into what was appended, too.

        Raises:
            Conflict: There was another change.
        """
        head = self._catalog.manifest(self._dataset).snapshot
        if head.id == answer["base"]:
            return answer
        try:
            base = self._catalog.manifest(self._dataset, answer["base"]).snapshot
        except NotFound:  # it has expired
            raise Conflict(f"version {head.version - 1} of the dataset was removed") from None
        if not _is_appended_to(base, head):
            raise Conflict("the dataset was changed in the meantime", hint="run it again")
        reached("upsert-overtaken")
        return joined(answer, self._merge_into(head, len(base.shards), answer), len(base.shards))

    def _merge_into(self, head: SnapshotInfo, first: int, answer: dict[str, Any]) -> dict[str, Any]:
        """Merge the rows into the shards of a state from a number on; return the response."""
        folder = self._writer.open_folder()
        self._held.callback(self._writer.remove_folder, folder)
        earlier = self._execution
        execution, release = self._start_upsert(
            folder, replace(head, shards=head.shards[first:]), tuple(answer["shards"])
        )
        self._attach(execution)
        try:
            for _ in execution.payloads():
                pass  # the number of rows, which is known
            return execution.result()
        except SennitError as error:
            raise self._complete(error) from error
        finally:
            self._attach(earlier)  # which `close` closes
            try:
                execution.close()
            finally:
                release()


def joined(answer: dict[str, Any], more: dict[str, Any], first: int) -> dict[str, Any]:
    """Return the response of a merge into a state and into shards that were appended to it.

    Args:
        answer: The merge into the state.
        more: The merge into the appended shards.
        first: The number of the first of these.
    """
    found = {**answer, "base": more["base"], "inputs": more["inputs"]}
    if not more["rewritten"]:  # no appended row has a key of the data
        return found
    changes = [{**each, "index": each["index"] + first} for each in more["rewritten"]]
    rewritten = [*answer["rewritten"], *changes]
    return found | {"action": "rewrite", "rewritten": rewritten, "shards": more["shards"]}


def _is_appended_to(base: SnapshotInfo, head: SnapshotInfo) -> bool:
    """Return whether a state has the columns and, first, the shards of an earlier one."""
    before = [shard.object for shard in base.shards]
    after = [shard.object for shard in head.shards[: len(before)]]
    columns = (base.schema, column_ids(base)) == (head.schema, column_ids(head))
    return columns and before == after


def _are_there(answer: dict[str, Any]) -> bool:
    reports = [*answer["shards"]]
    for change in answer["rewritten"]:
        reports += change["shards"]
    return all(Path(report["file"]).exists() for report in reports)
