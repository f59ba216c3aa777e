"""Removes rows from every kept version of a dataset, and every copy of them that the lake has.

    find       an executor writes the shards that have such rows anew, without them
    replace    one write gives every snapshot a manifest without them; versions and times stay
    erase      the objects that nothing references any more, rejected rows, Iceberg metadata

A crash before the second step has changed nothing. After it a marker, `/purges/{dataset}`, lets the
next start finish the third. Readers of the old shards are waited for; a shard that is still read at
the end of that time goes with its last reader.

Texts of statements and findings of ingests may quote values, so the snapshots of the dataset lose
both, and all kept sources and rejected rows of the dataset go.
"""

from __future__ import annotations

import logging
import shutil
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from elkyn.records import CheckedTable
from lake._failpoints import reached
from lake.catalog.adoption import check_own
from lake.catalog.file_schemas import column_ids, file_schemas_of, overall_stats
from lake.catalog.history import moment
from lake.catalog.rewrite import Rewritten
from lake.catalog.snapshots import Manifest
from lake.errors import without_snapshot
from lake.statements.running import AUDIT_LOGGER
from lake.writes.new_shards import adopt_shards
from sennit_core.clock import Clock
from sennit_core.errors import Conflict, UnknownColumn, Unsupported, UsageError
from sennit_core.records import DatasetInfo, FileSchema, Record, ShardInfo, SnapshotInfo

if TYPE_CHECKING:
    from lake import Lake
    from lake.statements.statements import Statements

__all__ = ["PurgeReport", "PurgeRequest", "Purger"]

_ATTEMPTS = 4
_PREDICATE_MAX = 1 << 20
_POLL_SECONDS = 0.05
_audit = logging.getLogger(AUDIT_LOGGER)


@dataclass(frozen=True, slots=True)
class PurgeRequest:
    """Which rows are to go.

    Args:
        dataset: Id or name.
        where: The condition, as after WHERE, over the columns of the dataset.
        params: A list for `?` and `$1`, a dict for `$name`.
        user: The user, for the record.
        wait_seconds: How long to wait for readers of the old shards.
    """

    dataset: str
    where: str
    params: list[Any] | dict[str, Any] | None = None
    user: str = ""
    wait_seconds: float = 60.0


@dataclass(frozen=True, slots=True)
class PurgeReport(Record):
    """What a purge did.

    Args:
        dataset: Id of the dataset.
        rows: Rows that left the newest version.
        rows_all: Rows that left any version; a row that was written several times counts as often.
        versions: How many versions had such rows.
        shards: Shards that were written anew, or dropped.
        still_read: Old objects that readers have open; they go with their last reader.
    """

    dataset: str
    rows: int = 0
    rows_all: int = 0
    versions: int = 0
    shards: int = 0
    still_read: int = 0


@dataclass(frozen=True, slots=True)
class _Marker(Record):
    """A purge whose last step is not done."""

    started_at: float


class Purger:
    """Purges datasets of one lake, one at a time.

    Args:
        lake: The lake.
        statements: Runs the statements.
        clock: Source of time.
    """

    def __init__(self, lake: Lake, statements: Statements, clock: Clock) -> None:
        self._lake = lake
        self._statements = statements
        self._clock = clock
        self._markers = CheckedTable(lake.tree, "/purges", _Marker)
        self._running = threading.Lock()
        # Called with the id of a dataset whose copies outside of the lake must go.
        self._observers: list[Callable[[str], object]] = []

    def observe(self, observer: Callable[[str], object]) -> None:
        """Call a function with the dataset's id while a purge erases copies of rows."""
        self._observers.append(observer)

    def recover(self) -> None:
        """Finish purges that a crash has interrupted after their commit."""
        for dataset_id in self._markers.ids():
            self._erase(dataset_id, ())

    def purge(self, request: PurgeRequest) -> PurgeReport:
        """Remove rows from every kept version of a dataset; blocks.

        Raises:
            NotFound: There is no such dataset.
            Conflict: A version is pinned, or others changed the dataset again and again.
            UnknownColumn: The condition names a column that the newest version does not have.
            Unsupported: An earlier version has other columns, so that the condition does not apply.
            Corrupt: A snapshot is damaged.
        """
        if not request.where.strip() or len(request.where) > _PREDICATE_MAX:
            raise UsageError("a purge needs a condition, as after WHERE, of at most 1 MiB")
        catalog = self._lake.catalog
        with self._running:
            info = catalog.get(request.dataset)
            check_own(info)
            if info.head is None:
                raise without_snapshot(info)
            found = _Found()
            try:
                rewritten = self._replace(request, info, found)
            except BaseException:
                self._lake.retention.discard(found.new)
                raise
            finally:
                self._lake.retention.release(frozenset(found.new))
            reached("purge-committed")
            self._lake.retention.discard(found.new)  # those that were replaced again
            left = self._erase(info.id, rewritten.before)
            left = self._wait(left, request.wait_seconds)
            self._lake.result_cache.drop_dataset(info.id)  # of statements that ran meanwhile
            report = found.report(info, len(left))
        fields = {"user": request.user, "dataset": info.name, **report.to_json()}
        _audit.info("purge ok", extra={"fields": fields})
        return report

    def _replace(self, request: PurgeRequest, info: DatasetInfo, found: _Found) -> Rewritten:
        """Write shards anew until every snapshot there is has been examined; then commit."""
        catalog = self._lake.catalog
        for _ in range(_ATTEMPTS):
            manifests = catalog.rewriter.read(catalog.get(info.id))
            self._lake.retention.check_unpinned(
                (name for each in manifests for name in self._objects(each, manifests[each])),
                f"a version of {info.name!r}",
            )
            for lineage in _lineages([each.snapshot for each in manifests.values()]):
                self._rewrite_shards(request, info, lineage, found)
            reached("purge-adopted")
            with catalog.writing():
                current = catalog.get(info.id)
                if catalog.rewriter.read(current).keys() != manifests.keys():
                    continue  # only the shards of new snapshots are examined then
                found.measure(manifests.values(), current)
                note = f"[rows purged {moment(self._clock.now())} by {request.user or 'the owner'}]"
                new = {key: found.applied(each, note) for key, each in manifests.items()}
                marker = self._markers.change(info.id, _Marker(self._clock.now()))
                reached("purge-manifests")
                return catalog.rewriter.rewrite(current, new, marker)
        raise Conflict(
            f"dataset {info.name!r} was changed again and again", hint="run the purge again"
        )

    def _objects(self, name: str, manifest: Manifest) -> list[str]:
        listed = [part for each in manifest.lists for part in each.objects]
        return [name, *listed, *(shard.object for shard in manifest.snapshot.shards)]

    def _rewrite_shards(
        self, request: PurgeRequest, info: DatasetInfo, lineage: SnapshotInfo, found: _Found
    ) -> None:
        """Find the rows in shards that were not examined, and store their shards without them."""
        state = found.unexamined(lineage)
        if not state.shards:
            return
        schemas = file_schemas_of(state)
        members = {
            "sql": f"DELETE FROM {_quoted(info.name)} WHERE {request.where}",
            "params": request.params,
            "shardColumns": [schemas[shard.file_schema].columns for shard in state.shards],
        }
        try:
            self._statements.purge(
                state, members, request.user, lambda answer: self._adopt(answer, state, found)
            )
        except UnknownColumn as error:
            if lineage.id == info.head:
                raise
            raise Unsupported(
                f"a purge by column {error.name!r}, which version {lineage.version} and those "
                "before it do not have",
                hint="the dataset was replaced by one with other columns: expire those versions "
                "first, or name columns that all of them have",
            ) from error
        found.note_examined(state)

    def _adopt(self, answer: dict[str, Any], state: SnapshotInfo, found: _Found) -> None:
        """Take the new shards into the store; until the commit, leases keep them."""
        for change in answer["rewritten"]:
            names = {report["object"] for report in change["shards"]} - found.new
            self._lake.retention.acquire(names)
            found.new |= names
            adopted = adopt_shards(self._lake.objects, change["shards"])
            found.note(state.shards[change["index"]], adopted)

    def _erase(self, dataset_id: str, objects: Iterable[str]) -> set[str]:
        """Delete every copy of old rows; return the objects that are still read."""
        lake = self._lake
        left = lake.retention.erase(objects)
        lake.vault.cache.forget(objects)
        lake.result_cache.drop_dataset(dataset_id)
        lake.storage.rejects.remove(dataset_id)
        # Its bounds of columns are values; it is published again on request.
        shutil.rmtree(lake.folder / "lake" / "iceberg" / dataset_id, ignore_errors=True)
        for observer in self._observers:
            observer(dataset_id)
        reached("purge-deleted")
        self._markers.remove(dataset_id)
        return left

    def _wait(self, objects: set[str], seconds: float) -> set[str]:
        """Wait for the readers of objects; return those that are still read."""
        until = time.monotonic() + seconds
        while (left := self._lake.retention.left_of(objects)) and time.monotonic() < until:
            time.sleep(_POLL_SECONDS)
        return left


class _Found:
    """The shards of a purge that are known to have rows to remove, and what replaces them."""

    def __init__(self) -> None:
        # New objects, each leased once.
        self.new: set[str] = set()
        self._replaced: dict[str, tuple[ShardInfo, ...]] = {}
        # Shards that were examined, with the columns that the condition was understood by.
        self._examined: set[tuple[str, tuple[str, ...]]] = set()
        self._rows = self._rows_all = self._versions = 0

    def unexamined(self, lineage: SnapshotInfo) -> SnapshotInfo:
        """Return a lineage with those of its shards, as they are now, that were not examined."""
        key = _columns_of(lineage)
        shards = {each.object: each for shard in lineage.shards for each in self._now(shard)}
        left = [each for name, each in shards.items() if (name, key) not in self._examined]
        return replace(lineage, shards=tuple(left))

    def note_examined(self, state: SnapshotInfo) -> None:
        key = _columns_of(state)
        self._examined |= {(shard.object, key) for shard in state.shards}

    def note(self, shard: ShardInfo, adopted: Sequence[ShardInfo]) -> None:
        """Note what replaces a shard."""
        self._replaced[shard.object] = tuple(
            replace(shard, object=new.object, rows=new.rows, bytes=new.bytes, stats=new.stats)
            for new in adopted
        )

    def measure(self, manifests: Iterable[Manifest], info: DatasetInfo) -> None:
        """Count the rows that go."""
        gone: dict[str, int] = {}
        self._versions = 0
        for manifest in manifests:
            lost = {each.object: self._lost(each) for each in manifest.snapshot.shards}
            self._versions += any(lost.values())
            gone |= lost
            if manifest.snapshot.id == info.head:
                self._rows = sum(map(self._lost, manifest.snapshot.shards))
        self._rows_all = sum(gone.values())

    def applied(self, manifest: Manifest, note: str) -> Manifest:
        """Return a manifest without the rows, and without texts that may quote them."""
        snapshot = manifest.snapshot
        shards = tuple(
            replace(each, source_object=None, byte_start=None, byte_end=None)
            for shard in snapshot.shards
            for each in self._now(shard)
        )
        verb = snapshot.query.split(maxsplit=1)[0] if snapshot.query else "INGEST"
        state = replace(snapshot, shards=shards, query=f"{verb} {note}", signature=None)
        state = replace(state, stats=overall_stats(state))
        return replace(manifest, snapshot=state, ingest=_without_values(manifest.ingest), lists=())

    def report(self, info: DatasetInfo, still_read: int) -> PurgeReport:
        """Return what was done."""
        return PurgeReport(
            info.id, self._rows, self._rows_all, self._versions, len(self._replaced), still_read
        )

    def _now(self, shard: ShardInfo) -> list[ShardInfo]:
        if shard.object not in self._replaced:
            return [shard]
        return [each for new in self._replaced[shard.object] for each in self._now(new)]

    def _lost(self, shard: ShardInfo) -> int:
        return shard.rows - sum(each.rows for each in self._now(shard))


def _lineages(snapshots: Sequence[SnapshotInfo]) -> list[SnapshotInfo]:
    """Return for each series of snapshots whose columns have the same ids its newest, with all shards.

    A dataset that is replaced as a whole numbers its columns anew, so that an id of an older version
    may be of another column.

    Args:
        snapshots: All snapshots of a dataset, oldest first.
    """
    series: list[list[SnapshotInfo]] = []
    for each in snapshots:
        if series and _continues(series[-1][-1], each):
            series[-1].append(each)
        else:
            series.append([each])
    return [_with_all_shards(each) for each in series]


def _continues(before: SnapshotInfo, after: SnapshotInfo) -> bool:
    if after.last_column == before.last_column == 0:  # never altered: names and ids agree
        return before.schema == after.schema
    return after.last_column >= before.last_column


def _with_all_shards(series: Sequence[SnapshotInfo]) -> SnapshotInfo:
    newest = series[-1]
    schemas: list[FileSchema] = []
    shards: dict[str, ShardInfo] = {}
    for snapshot in series:
        own = file_schemas_of(snapshot)
        for shard in snapshot.shards:
            schema = own[shard.file_schema]
            if schema not in schemas:
                schemas.append(schema)
            shards[shard.object] = replace(shard, file_schema=schemas.index(schema))
    if schemas in ([], [FileSchema(newest.schema, column_ids(newest))]):
        schemas = []  # all files have the dataset's columns
    return replace(newest, shards=tuple(shards.values()), file_schemas=tuple(schemas))


def _columns_of(snapshot: SnapshotInfo) -> tuple[str, ...]:
    names = zip(snapshot.schema, column_ids(snapshot), strict=True)
    return tuple(f"{number} {field}" for field, number in names)


def _without_values(ingest: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    """Return how data was read without the findings, which quote values."""
    if ingest is None:
        return None
    source = {key: ingest["source"].get(key) for key in ("format", "bytes")}
    report: dict[str, Any] = {"widened": [], "renamed": [], "notes": []}
    return {"name": ingest.get("name"), "source": source, "report": report}


def _quoted(name: str) -> str:
    doubled = name.replace('"', '""')
    return f'"{doubled}"'
