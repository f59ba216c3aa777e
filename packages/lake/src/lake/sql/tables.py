"""The datasets of a query, as listed in its request."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Any

from lake.access import not_writable, policy_key
from lake.file_schemas import FileColumns
from lake.layouts import NO_LAYOUT, Layout
from lake.sql.linked_files import LinkedFile
from lake.sql.policies import TablePolicy
from lake.sql.views import ViewQuery, checked_view, views_read
from lake.verification import ShardFile
from sennit_core.errors import Denied, NotFound, SennitError, error_from_json
from sennit_core.schema import Schema

__all__ = [
    "Table",
    "check_links",
    "check_target",
    "explained_tables",
    "listed_tables",
    "repeatable",
    "rights_key",
    "used_tables",
]


@dataclass(frozen=True)
class Table:
    """A dataset in SQL.

    Args:
        name: Its name, which is a view.
        id: Its id, which is also a view if the query uses it.
        schema: Its columns.
        paths: Its shards in order; None makes a view without rows, for its columns.
        snapshot: Id of the shards' snapshot.
        damage: The error, in wire form, to raise when a statement reads it; None if intact.
        shard_rows: The number of rows of each shard, for a statement that changes datasets.
        columns: The id of each column.
        file_columns: Those of the shards' files; empty if all have the dataset's.
        shard_files: For each shard the index in `file_columns`; empty if that is.
        verify_always: Whether to verify its shards at every read.
        encrypted: Whether its paths are of decrypted copies in memory, which were authenticated.
        link: The file that it reads in place; None for a dataset of shards.
        policy: The part of it that the user sees; None for the whole.
        writable: Whether the user may change it.
        explained: Whether an empty table takes its place.
        view: The query that it is; None for a dataset.
        layout: How its new shards are written.
        statistics: Bounds of its shards, for pruning (`lake.shard_statistics`); None if all are read.
    """

    name: str
    id: str
    schema: Schema
    paths: tuple[str, ...] | None
    snapshot: str | None = None
    damage: dict[str, Any] | None = None
    shard_rows: tuple[int, ...] = ()
    columns: tuple[int, ...] = ()
    file_columns: tuple[FileColumns, ...] = ()
    shard_files: tuple[int, ...] = ()
    verify_always: bool = False
    encrypted: bool = False
    link: LinkedFile | None = None
    policy: TablePolicy | None = None
    writable: bool = True
    explained: bool = False
    view: ViewQuery | None = None
    layout: Layout = NO_LAYOUT
    statistics: dict[str, Any] | None = None

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Table:
        """Read the form of executor requests."""
        paths, policy = data.get("paths"), data.get("policy")
        return cls(
            name=data["name"],
            id=data["id"],
            schema=Schema.from_json(data["schema"]),
            paths=None if paths is None else tuple(paths),
            snapshot=data.get("snapshot"),
            damage=data.get("damage"),
            shard_rows=tuple(data.get("shardRows") or ()),
            columns=tuple(data.get("columns") or ()),
            file_columns=tuple(map(FileColumns.from_json, data.get("fileColumns") or ())),
            shard_files=tuple(data.get("shardFiles") or ()),
            verify_always=bool(data.get("verifyAlways")),
            encrypted=bool(data.get("encrypted")),
            link=LinkedFile.from_json(data["link"]) if data.get("link") else None,
            policy=None if policy is None else TablePolicy.from_json(policy),
            writable=data.get("writable", True),
            view=ViewQuery.from_json(data["view"]) if data.get("view") else None,
            layout=Layout.from_json(data.get("layout")),
            statistics=data.get("statistics"),
        )

    @property
    def names(self) -> tuple[str, ...]:
        """The names of its columns, as far as the user sees them."""
        return self.schema.names if self.policy is None else self.policy.names(self.schema)

    @property
    def objects(self) -> list[str]:
        """The object ids of its shards."""
        return [Path(path).name for path in self.paths or ()]

    @property
    def rows(self) -> int:
        """Its number of rows."""
        return sum(self.shard_rows)

    def files(self) -> Iterator[tuple[FileColumns | None, tuple[str, ...]]]:
        """Yield consecutive shards that have the same columns, with these."""
        paths = self.paths or ()
        for index, found in groupby(self.shard_files or (-1,) * len(paths)):
            count = len(list(found))
            yield (None if index < 0 else self.file_columns[index]), paths[:count]
            paths = paths[count:]

    @property
    def shards(self) -> list[ShardFile]:
        """Return its files, to be verified before they are opened."""
        if self.encrypted:
            return []
        return [
            ShardFile(self.name, index, path, self.verify_always)
            for index, path in enumerate(self.paths or ())
        ]


def used_tables(tables: list[Table], wanted: frozenset[str]) -> list[Table]:
    """Return the datasets and views that a statement reads; a view comes after what it reads.

    Args:
        tables: Candidate datasets.
        wanted: Names or ids, as written.

    Raises:
        NotFound: There is no dataset of a name; the gateway, which knows all names, adds a
            suggestion.
        Corrupt: A dataset is damaged.
        SqlError: A view cannot be used any more.
    """
    found: dict[str, Table] = {}
    views: dict[str, Table] = {}
    by_name = {key: t for t in tables for key in (t.name.casefold(), t.id)}
    # Sorted, so that the same statement always reports the same name first.
    for name in sorted(wanted):
        table = by_name.get(name.casefold())
        if table is None:
            raise NotFound(kind="dataset", name=name, suggestion=None)
        read = [table] if table.view is None else _under(by_name, table)
        for each in read:
            if each.damage is not None:
                raise error_from_json(each.damage)
            # By id, as a statement may use both the name and the id of one dataset.
            (found if each.view is None else views)[each.id] = each
    return [*found.values(), *views.values()]


def _under(by_name: dict[str, Table], view: Table) -> list[Table]:
    """Return what a view reads, and the view."""
    views = views_read(by_name, view.name)
    names = {name.casefold() for each in views if each.view is not None for name in each.view.reads}
    datasets = [by_name[name] for name in sorted(names) if by_name[name].view is None]
    return [*datasets, *views]


def listed_tables(tables: list[Table]) -> list[Table]:
    """Return what a statement that reads the catalog lists: views that can be used, after the rest."""
    datasets = [table for table in tables if table.view is None and table.damage is None]
    by_name = {key: t for t in tables for key in (t.name.casefold(), t.id)}
    views: dict[str, Table] = {}
    for table in tables:
        if table.view is not None:
            with suppress(SennitError):
                found = _under(by_name, table)
                if all(each.damage is None for each in found):
                    views.update({each.id: each for each in found if each.view is not None})
    return [*datasets, *views.values()]


def repeatable(tables: list[Table]) -> bool:
    """Return whether a query over these has the same result while their snapshots are the same."""
    # A linked file is compared with its link at each use, so its results are not kept.
    return not any(
        table.link is not None or (table.view is not None and checked_view(table).volatile)
        for table in tables
    )


def check_links(tables: list[Table]) -> None:
    """Refuse linked files that have changed; call it before the first read and after the last.

    Raises:
        Conflict: A file has changed since it was linked.
    """
    for table in tables:
        if table.link is not None:
            table.link.file.check(table.name)


def rights_key(tables: list[Table]) -> str:
    """Return the digest of the policies of tables (`lake.policies.policy_key`)."""
    return policy_key(
        {table.id: None if table.policy is None else table.policy.to_json() for table in tables}
    )


def explained_tables(tables: list[Table], *, analyzes: bool = False) -> list[Table]:
    """Return the datasets for a query plan: those of which the user sees a part have no rows.

    A plan over them would show the policy's condition and estimates from statistics of all rows. An
    empty table with the columns that the user sees has nothing to show.

    Raises:
        Denied: The query is to be run, and its profile would count hidden rows.
    """
    for table in tables:
        if table.policy is not None and analyzes:
            raise Denied(
                f"profiling a query over {table.name!r}, of which your policy shows a part",
                needed="a policy without rows and columns",
                hint="EXPLAIN without ANALYZE shows the plan, as for a dataset without rows",
            )
    return [
        table if table.policy is None else replace(table, paths=(), shard_files=(), explained=True)
        for table in tables
    ]


def check_target(tables: list[Table], name: str) -> None:
    """Refuse to change a dataset, by name or id, that the user may only read."""
    for table in tables:
        if name.casefold() in (table.name.casefold(), table.id) and not table.writable:
            raise not_writable(table.name)
