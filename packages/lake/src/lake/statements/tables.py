"""The datasets that a statement may read, in the form of executor requests, with their shards leased.

Shards of encrypted datasets are decrypted here, into `lake.encryption.plain_cache`; executors get the keys of the
datasets that a statement may change, and no others.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from lake.access.policies import Policies, shown_to
from lake.access.rules import FULL_ACCESS, Access
from lake.catalog.catalog import Catalog
from lake.catalog.file_schemas import column_ids, columns_of_files, defaults_of
from lake.catalog.layouts import layout_of
from lake.catalog.list_choice import ALL_LISTS, LeftOuts, ListChoice
from lake.catalog.shard_lists import CHOSEN_MIN, LeftOut, PartialSnapshot
from lake.catalog.snapshots import Manifest
from lake.distributed.read_repair import ReadRepair
from lake.distributed.remote_shards import RemoteShards
from lake.distributed.restricted_tables import RestrictedReader
from lake.encryption.vault import Hold, Vault
from lake.errors import ciphertext_elsewhere, restricted_elsewhere
from lake.links.links import Link, Links
from lake.maintenance.retention import Retention
from lake.objects.store import ObjectStore
from lake.peers.transport.stop import Stop
from lake.statements.limits import Requester
from lake.statements.mentions import words_of
from lake.statements.shard_statistics import ShardStatistics
from lake.views.access import view_tables
from lake.views.views import ViewInfo
from lake.writes.new_shards import files_of
from sennit_core.errors import Corrupt, Denied, NotFound
from sennit_core.records import DatasetInfo, ShardInfo, SnapshotInfo
from sennit_core.schema import Schema

__all__ = ["StatementTables", "dataset_of", "is_view", "snapshots_of"]

_CATALOG_WORDS = ("show", "information_schema", "describe")


class StatementTables:
    """Finds the datasets of statements.

    Args:
        catalog: Knows the datasets.
        objects: Stores their shards.
        retention: Leases the shards.
        policies: Say what a user may read.
        vault: Decrypts the shards of encrypted datasets.
        verify_always: Whether executors verify the shards at every read.
        links: Knows the files of linked datasets.
        remote: Fetches shards and rows of datasets that other nodes write.
        staging: Folder for rows of other nodes.
    """

    def __init__(  # noqa: PLR0913 - the parts of a lake
        self,
        catalog: Catalog,
        objects: ObjectStore,
        retention: Retention,
        policies: Policies,
        vault: Vault,
        links: Links,
        remote: RemoteShards,
        staging: Path,
        *,
        verify_always: bool = False,
    ) -> None:
        self.staging = staging
        self.remote = remote
        self._vault = vault
        self._statistics = ShardStatistics()
        self._links = links
        self._verify_always = verify_always
        self._catalog = catalog
        self.policies = policies
        self.objects = objects
        self.retention = retention
        self.repair = ReadRepair(catalog, objects, remote)
        self.on_read: Callable[[Iterable[str]], object] = list  # called with the datasets' ids

    def hold(
        self,
        sql: str,
        history: Mapping[str, Manifest],
        requester: Requester,
        *,
        with_rows: bool = False,
        left_out: LeftOuts = ALL_LISTS,
        fetch: bool = True,
    ) -> tuple[list[dict[str, Any]], Hold]:
        """Return the datasets that a statement may read, and a lease on their shards.

        A dataset that cannot be read, because it is damaged or locked, has the error as `damage`.

        Args:
            sql: The statement.
            history: Earlier snapshots by the name of their view.
            requester: The user; datasets that the user may not read are left out.
            with_rows: Whether to name the number of rows of each shard.
            left_out: The lists of shards that it does not need (`choose_lists`).
            fetch: Whether to fetch what only other nodes have; else `fetch` and `read_restricted` do it.
        """
        while True:
            purges = self._catalog.rewriter.purges
            tables, objects = self._find(sql, requester, left_out, with_rows=with_rows)
            for name, manifest in history.items():
                snapshot = manifest.snapshot
                self._catalog.check_shards(snapshot, self.repair.is_replaceable)
                access = self.policies.access(snapshot.dataset, requester)
                table = self._snapshot_table(name, snapshot) | _rights(access)
                label = f"{self._catalog.name(snapshot.dataset)} AT (VERSION => {snapshot.version})"
                table |= self._statistics_for(snapshot, access, sql.casefold())
                tables.append(table | {"label": label})
                objects += [shard.object for shard in snapshot.shards]
            # A lease also protects objects that do not exist, so it may come first: what is still
            # in the catalog after it cannot lose its objects any more.
            held = self.retention.acquire(objects)
            # A dataset deleted between its lookup and its lease may have lost its shards.
            read = [dataset_of(table) for table in tables if not is_view(table)]
            is_there = all(self._catalog.find_id(dataset) is not None for dataset in read)
            if is_there and self._catalog.rewriter.purges == purges:
                self.on_read(read)
                try:
                    if fetch:
                        self.fetch(tables)
                    self._catalog.rewriter.check_current(history.values())
                    hold = self._vault.unseal(tables, held)
                except BaseException:
                    self.retention.release(held)
                    raise
                if fetch:
                    hold = self.read_restricted(tables, hold, requester)
                try:
                    return tables, self._vault.with_new(hold, sql) if with_rows else hold
                except BaseException:
                    self.release(hold)
                    raise
            self.retention.release(held)

    def fetch(
        self,
        tables: Iterable[Mapping[str, Any]],
        *,
        seconds: float | None = None,
        stop: Stop | None = None,
    ) -> None:
        """Fetch the shards that other nodes have; they are leased.

        Args:
            tables: The tables of an executor's request.
            seconds: The longest time to wait; None for that of the network.
            stop: Stops it.
        """
        for table in tables:
            if table.get("writer"):
                names = [Path(path).name for path in table.get("paths") or ()]
                self.remote.ensure(names, seconds=seconds, stop=stop)

    def read_restricted(
        self, tables: list[dict[str, Any]], hold: Hold, requester: Requester, *, rows: bool = True
    ) -> Hold:
        """Read what the user sees of the datasets that their writers restrict, once; return the new hold.

        A table that cannot be read gets the error as `damage`.

        Args:
            tables: In the form of executor requests.
            hold: Their hold, which is released if an error is raised.
            requester: The user.
            rows: Whether the rows are needed, and not only the columns.
        """
        reader = RestrictedReader(self.remote, self._vault, self.staging)
        try:
            for table in tables:
                is_new = table.get("restricted") and not table.get("arrived")
                seen = reader.describe(table, requester) if is_new else None
                if seen is not None:
                    hold = reader.hold(seen, hold)
                    if rows:
                        reader.read(table, seen, hold)
        except BaseException:
            self.release(hold)
            raise
        return hold

    def hold_for(
        self, asked: Iterable[tuple[str, str, str]], requester: Requester
    ) -> tuple[list[dict[str, Any]], Hold]:
        """Return datasets as a user of another node sees them, and a lease on their shards.

        Args:
            asked: For each table its name, the id of its dataset, and that of a snapshot.
            requester: The user.

        Raises:
            NotFound: There is none, as far as the user can know.
        """
        purges = self._catalog.rewriter.purges
        tables: list[dict[str, Any]] = []
        objects: list[str] = []
        for name, dataset, snapshot in asked:
            access = self.policies.access(dataset, requester)
            if not access.read:
                raise NotFound("dataset", dataset, suggestion=None)
            found = self._catalog.manifest(dataset, snapshot).snapshot
            self.policies.check_history(found, requester)
            self._catalog.check_shards(found)
            table = self._snapshot_table(name, found) | _rights(access)
            _check_columns(access, table)
            tables.append(table | self._statistics_for(found, access, ""))
            objects += [shard.object for shard in found.shards]
        held = self.retention.acquire(objects)
        try:
            self._catalog.rewriter.check(purges)
            return tables, self._vault.unseal(tables, held)
        except BaseException:
            self.retention.release(held)
            raise

    def seals(self, tables: list[dict[str, Any]], hold: Hold) -> dict[str, Any]:
        """Return what encrypts new shards of the encrypted datasets, by the ids of the tables."""
        new = {}
        if hold.new and hold.folder is not None:
            new[""] = self._vault.seal(hold.new, "", hold.folder).to_json()
        return new | {
            table["id"]: self._vault.seal(dataset_of(table), table["name"], hold.folder).to_json()
            for table in tables
            if hold.folder is not None
            and table.get("encrypted")
            and not table.get("restricted")
            and "damage" not in table
        }

    @contextmanager
    def open_new(
        self, dataset: str, reports: Sequence[Mapping[str, Any]]
    ) -> Iterator[tuple[str, ...]]:
        """Yield the paths of shards that an executor has written, decrypted if they are encrypted.

        Args:
            dataset: The id of their dataset.
            reports: As in its response.
        """
        files = files_of(reports)
        info = self._catalog.get(dataset)
        if not files or not info.encrypted:
            yield tuple(str(path) for _, path in files)
            return
        with self._vault.opened(dataset, info.name, files) as paths:
            yield paths

    @contextmanager
    def memory(self) -> Iterator[dict[str, Any]]:
        """Open a folder in memory for a statement; yield the members of its request."""
        with self._vault.folder() as folder:
            yield {"plain": {"folder": str(folder), "bytes": self._vault.cache.free_bytes}}

    @property
    def encrypts_new(self) -> bool:
        """Whether CREATE TABLE encrypts unless it says otherwise."""
        return self._vault.encrypts_new

    def release(self, hold: Hold) -> None:
        """End the lease, and the use of decrypted copies."""
        try:
            self._vault.release(hold)
        finally:
            self.retention.release(hold.objects)
            if hold.new and self._catalog.find_id(hold.new) is None:
                self._vault.forget_new(hold)

    def _find(
        self, sql: str, requester: Requester, left_out: LeftOuts, *, with_rows: bool
    ) -> tuple[list[dict[str, Any]], list[str]]:
        """Return the datasets that the text may name, with shard paths, and the shards' ids.

        A statement can only read a dataset whose name is in its text, so scanning the words is
        enough to exclude the rest of a large catalog; the executor parses the statement.
        """
        folded = sql.casefold()
        named, views = self._named(folded, words_of(sql))
        lists = self._lists_catalog(folded)
        tables, below = view_tables(self._catalog, self.policies, requester, views)
        # The conditions of views count too.
        text = "\n".join([folded, *(table["view"]["sql"].casefold() for table in tables)])
        objects: list[str] = []
        named = list(dict.fromkeys([*named, *below]))
        for dataset_id in named:
            access = self.policies.access(dataset_id, requester)
            if access.read:
                left = left_out.get(dataset_id)
                table, shards = self._table(dataset_id, access, text, left)
                if with_rows:
                    table["shardRows"] = [shard.rows for shard in shards]
                _check_columns(access, table)
                # Its writer applies its policy; what a policy here says of it is in its columns.
                tables.append(table if "restricted" in table else table | _rights(access))
                objects += [shard.object for shard in shards]
        if lists:
            tables += [
                _columns_of(info, access)
                for info, access in self.policies.readable(requester)
                if info.id not in named and len(info.schema)
            ]
            others = [view for view in self._catalog.views.all() if view not in views]
            listed, _ = view_tables(self._catalog, self.policies, requester, others)
            known = {table["id"] for table in tables}
            tables += [table for table in listed if table["id"] not in known]
        return tables, objects

    def _lists_catalog(self, folded: str) -> bool:
        """Return whether a text may list what is in the catalog."""
        return any(word in folded for word in _CATALOG_WORDS)

    def named(self, texts: Iterable[str]) -> set[str]:
        """Return the ids of the datasets that statements may read, also through views."""
        found: set[str] = set()
        for sql in texts:
            named, views = self._named(sql.casefold(), words_of(sql))
            names = {name for view in views for name in self._catalog.views.under(view)[1]}
            found.update(named, filter(None, map(self._catalog.find_id, names)))
        return found

    def over(self, catalog: Catalog) -> StatementTables:
        """Return the same for another state of the catalog."""
        return StatementTables(
            catalog, self.objects, self.retention, self.policies, self._vault, self._links,
            self.remote, self.staging, verify_always=self._verify_always,
        )  # fmt: skip

    def _named(
        self, folded: str, words: frozenset[str] | None
    ) -> tuple[Sequence[str], Sequence[ViewInfo]]:
        """Return the ids of the datasets, and the views, that a text may name."""
        if words is not None:
            return self._catalog.find_all(words), self._catalog.views.find_all(words)
        ids = [id_ for id_ in self._catalog.ids() if self._is_in(folded, id_)]
        every = ((view, view.name.casefold()) for view in self._catalog.views.all())
        return ids, [v for v, name in every if name in folded or name.replace('"', '""') in folded]

    def _is_in(self, folded: str, dataset_id: str) -> bool:
        name = self._catalog.name(dataset_id).casefold()
        return any(each in folded for each in (name, name.replace('"', '""'), dataset_id))

    def _table(
        self, dataset_id: str, access: Access, text: str, left: LeftOut | None
    ) -> tuple[dict[str, Any], Sequence[ShardInfo]]:
        """Return a dataset in the form of executor requests; reading a damaged one raises."""
        name = self._catalog.name(dataset_id)
        try:
            info = self._catalog.get(dataset_id)
            is_linked = info.head is None and info.node is None
            link = self._links.get(dataset_id, name) if is_linked else None
            if link is not None:
                return _linked_table(info, link), ()
            if info.node is not None and info.head is None:
                return _restricted_table(shown_to(info, access), info.node), ()
            if info.node is not None and info.encrypted:
                raise ciphertext_elsewhere(info.name, info.node)
            found = self._partial(info, left)
            self._catalog.check_shards(found.snapshot, self.repair.is_replaceable)
        except (Corrupt, Denied) as damage:
            schema: dict[str, Any] = {"fields": []}
            row = {"name": name, "id": dataset_id, "schema": schema, "damage": damage.to_json()}
            return row, ()
        snapshot, part = found.snapshot, None
        if found.left_out:
            assert left is not None, "some lists are left out"
            part = left.lists
            snapshot = replace(snapshot, shards=(*snapshot.shards, *found.left_out))
        return {
            "name": info.name,
            "id": info.id,
            "schema": info.schema.to_json(),
            **self._shards(found.snapshot),
            "encrypted": info.encrypted,
            **_writer_of(info),
            **self._statistics_for(snapshot, access, text, part),
            **({"numbers": found.numbers, "shardsInAll": found.shards} if part else {}),
        }, found.snapshot.shards

    def _partial(self, info: DatasetInfo, left: LeftOut | None) -> PartialSnapshot:
        """Return the head of a dataset, without the shards of lists that are left out."""
        if left is not None:
            stored = self._catalog.stored_manifest(info.id)
            if left.fits(stored.snapshot):
                return self._catalog.lists.without(info.name, stored, left.lists)
        snapshot = self._catalog.manifest(info.id).snapshot
        return PartialSnapshot(snapshot, (), len(snapshot.shards), ())

    def lists_to_choose(self, sql: str, requester: Requester) -> ListChoice:
        """Return the datasets of a statement, with summaries in the place of shards.

        It is false if no dataset has enough shards that choosing some of their lists is worth a step.
        """
        folded = sql.casefold()
        named, views = self._named(folded, words_of(sql))
        tables, below = view_tables(self._catalog, self.policies, requester, views)
        text = "\n".join([folded, *(table["view"]["sql"].casefold() for table in tables)])
        choice = ListChoice(tables)
        for dataset_id in dict.fromkeys([*named, *below]):
            access = self.policies.access(dataset_id, requester)
            with suppress(Corrupt):  # the statement reports it
                info = self._catalog.get(dataset_id)
                table = {"name": info.name, "id": info.id, "schema": info.schema.to_json()}
                if info.shards >= CHOSEN_MIN and access.read and not info.encrypted:
                    stored = self._catalog.stored_manifest(dataset_id)
                    if summaries := self._catalog.lists.summaries(stored):
                        snapshot = choice.add(stored.snapshot, summaries)
                        table |= self._statistics_for(snapshot, access, text, "summaries")
                        table["paths"] = [str(place) for place in range(len(snapshot.shards))]
                tables.append({"paths": [], **table, **_rights(access)})
        return choice

    def _statistics_for(
        self, snapshot: SnapshotInfo, access: Access, text: str, part: Hashable = None
    ) -> dict[str, Any]:
        """Return what leaves out shards: of a dataset with a policy, only the policy's condition."""
        if not access.is_restricted:
            return self._statistics.of(snapshot, text, part=part)
        if access.rows is None and part is None:
            return {}
        rows = (access.rows or "").casefold()
        return self._statistics.of(snapshot, rows, is_filter=True, part=part)

    def hold_snapshot(self, snapshot: SnapshotInfo, purges: int) -> tuple[dict[str, Any], Hold]:
        """Return a dataset as it is in a snapshot, perhaps with some of its shards, and a lease.

        Args:
            snapshot: The snapshot.
            purges: `catalog.rewriter.purges` before it was read.

        Raises:
            NotFound: It was deleted.
            Conflict: There was a purge.
            Corrupt: A shard is known to be damaged.
        """
        held = self.retention.acquire(shard.object for shard in snapshot.shards)
        try:
            self._catalog.rewriter.check(purges)
            self._catalog.check_shards(snapshot)
            name = self._catalog.get(snapshot.dataset).name
            self.on_read([snapshot.dataset])
            table = {**self._snapshot_table(name, snapshot), "id": snapshot.dataset}
            return table, self._vault.unseal([table], held)
        except BaseException:
            self.retention.release(held)
            raise

    def _snapshot_table(self, name: str, snapshot: SnapshotInfo) -> dict[str, Any]:
        """Return an earlier snapshot in the form of executor requests."""
        info = self._catalog.get(snapshot.dataset)
        return {
            "name": name,
            "encrypted": info.encrypted,
            **_writer_of(info),
            # Two snapshots of one dataset are different tables.
            "id": snapshot.id,
            "dataset": snapshot.dataset,
            "schema": snapshot.schema.to_json(),
            **self._shards(snapshot),
        }

    def _shards(self, snapshot: SnapshotInfo) -> dict[str, Any]:
        """Return the files of a snapshot, and what columns they have."""
        files = [each.to_json() for each in columns_of_files(snapshot)]
        return {
            "paths": [str(self.objects.place(shard.object)) for shard in snapshot.shards],
            "snapshot": snapshot.id,
            "columns": column_ids(snapshot),
            "fileColumns": files,
            "shardFiles": [shard.file_schema for shard in snapshot.shards] if files else [],
            "verifyAlways": self._verify_always,
            "layout": layout_of(snapshot).to_json(),
            **({"defaults": defaults_of(snapshot)} if snapshot.defaults else {}),
        }


def _writer_of(info: DatasetInfo) -> dict[str, str]:
    return {} if info.node is None else {"writer": info.node}


def _linked_table(info: DatasetInfo, link: Link) -> dict[str, Any]:
    return {
        "name": info.name,
        "id": info.id,
        "schema": info.schema.to_json(),
        "paths": [],
        "link": {"file": link.file.to_json(), "reader": link.reader},
    }


def _restricted_table(info: DatasetInfo, writer: str) -> dict[str, Any]:
    """Return a dataset whose rows its writer sends; a statement for which none were read is refused."""
    return {
        "name": info.name,
        "id": info.id,
        "schema": info.schema.to_json(),
        "paths": None,
        "writer": writer,
        "restricted": True,
        "writable": False,
        "damage": restricted_elsewhere(info.name, writer).to_json(),
    }


def _columns_of(info: DatasetInfo, access: Access) -> dict[str, Any]:
    """Return a dataset that is listed, not read."""
    row = {"name": info.name, "id": info.id, "schema": info.schema.to_json(), "paths": None}
    return row | _rights(access)


def _check_columns(access: Access, table: dict[str, Any]) -> None:
    names = Schema.from_json(table["schema"]).names if access.is_restricted else ()
    access.check_columns(table["name"], dict(zip(names, table.get("columns", ()), strict=False)))


def _rights(access: Access) -> dict[str, Any]:
    """Return what an executor must know of a user's rights."""
    if access is FULL_ACCESS:
        return {}
    policy = access.to_json() if access.is_restricted else None
    return {"policy": policy, "writable": access.write}


def snapshots_of(tables: list[dict[str, Any]]) -> dict[str, str]:
    """Return the names of the tables of a request that are read, by the ids of their snapshots."""
    return {table["snapshot"]: table["name"] for table in tables if table.get("snapshot")}


def is_view(table: dict[str, Any]) -> bool:
    """Return whether a table of a request is a view, which has no snapshot of its own."""
    return "view" in table


def dataset_of(table: dict[str, Any]) -> str:
    """Return the id of the dataset that a table of a request is, or is a snapshot of."""
    return str(table.get("dataset", table["id"]))
