"""The datasets of a query, as listed in its request."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from pathlib import Path
from typing import Any, TypeVar

from lake.access.rules import not_writable, policy_key, written_elsewhere
from lake.catalog.file_schemas import FileColumns
from lake.catalog.layouts import NO_LAYOUT, Layout
from lake.objects.verification import ShardFile
from lake.sql.linked_files import LinkedFile
from lake.sql.policies import TablePolicy
from lake.sql.view_query import ViewQuery
from sennit_core.errors import Denied
from sennit_core.schema import Schema

__all__ = [
    "Table",
    "check_explained",
    "check_links",
    "check_target",
    "described_tables",
    "explained_tables",
    "rights_key",
    "shards_to_verify",
]

_T = TypeVar("_T")

_NUMBERS = ("file_index", "file_row_number")
# Where a column of the dataset has one of these names, which hides that of `read_parquet`.
_OTHER_NUMBERS = ("__lake_file_index", "__lake_file_row_number")


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
        arrived: Whether its paths are of rows that another node has sent for this statement.
        link: The file that it reads in place; None for a dataset of shards.
        policy: The part of it that the user sees; None for the whole.
        writable: Whether the user may change it.
        writer: The id of the node that writes it; "" for this one.
        explained: Whether an empty table takes its place.
        described: Whether only its columns are read: it is an empty table then, which,
            unlike a view, has NOT NULL and defaults.
        view: The query that it is; None for a dataset.
        layout: How its new shards are written.
        defaults: The expression of each column that has a default, by its name.
        statistics: Bounds of its shards, for pruning (`lake.statements.shard_statistics`); None if all are read.
        label: Its name in plans, if that is another; None if not.
        numbers: Those of its shards in the snapshot; empty if it has all of them.
        shards_in_all: The number of the snapshot's shards, if there are some of them only in `statistics`,
            after the others: as summaries of lists (`lake.catalog.list_summaries`), which prove that no row of
            these is needed. None if all shards are here.
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
    arrived: bool = False
    link: LinkedFile | None = None
    policy: TablePolicy | None = None
    writable: bool = True
    writer: str = ""
    explained: bool = False
    described: bool = False
    view: ViewQuery | None = None
    layout: Layout = NO_LAYOUT
    statistics: dict[str, Any] | None = None
    label: str | None = None
    numbers: tuple[int, ...] = ()
    shards_in_all: int | None = None
    defaults: Mapping[str, str] = field(default_factory=dict)

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
            arrived=bool(data.get("arrived")),
            link=LinkedFile.from_json(data["link"]) if data.get("link") else None,
            policy=None if policy is None else TablePolicy.from_json(policy),
            writable=data.get("writable", True),
            writer=data.get("writer", ""),
            view=ViewQuery.from_json(data["view"]) if data.get("view") else None,
            layout=Layout.from_json(data.get("layout")),
            statistics=data.get("statistics"),
            label=data.get("label"),
            numbers=tuple(data.get("numbers") or ()),
            shards_in_all=data.get("shardsInAll"),
            defaults=data.get("defaults") or {},
        )

    def with_shards(self, places: Sequence[int]) -> Table:
        """Return it with some of its shards.

        Args:
            places: Their indexes in `paths`, ascending.
        """

        def chosen(values: tuple[_T, ...]) -> tuple[_T, ...]:
            return tuple(values[place] for place in places) if values else ()

        return replace(
            self,
            paths=chosen(self.paths or ()),
            shard_files=chosen(self.shard_files),
            shard_rows=chosen(self.shard_rows),
            numbers=chosen(self.numbers or tuple(range(len(self.paths or ())))),
            statistics=None,
            shards_in_all=None,
        )

    def number(self, place: int) -> int:
        """Return the number in the snapshot of a shard by its index in `paths`."""
        return self.numbers[place] if self.numbers else place

    @property
    def names(self) -> tuple[str, ...]:
        """The names of its columns, as far as the user sees them."""
        return self.schema.names if self.policy is None else self.policy.names(self.schema)

    @property
    def hides_numbers(self) -> bool:
        """Whether one of its columns has the name of a number of `read_parquet`."""
        return any(name.casefold() in _NUMBERS for name in self.schema.names)

    @property
    def number_columns(self) -> tuple[str, str]:
        """The columns of `lake.sql.session.numbered_shards` with a row's shard, and its row in it."""
        return _OTHER_NUMBERS if self.hides_numbers else _NUMBERS

    @property
    def is_kept(self) -> bool:
        """Whether a change looks for its rows in a table of them (`lake.sql.restricted_writes`)."""
        return self.policy is not None or self.hides_numbers

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
        if self.encrypted or self.arrived:
            return []
        return [
            ShardFile(self.name, self.number(index), path, self.verify_always)
            for index, path in enumerate(self.paths or ())
        ]


def shards_to_verify(tables: Iterable[Table], *, first: bool = False) -> Iterator[ShardFile]:
    """Yield the shards of tables.

    Args:
        tables: The tables.
        first: Whether to yield only the first shard of those of which some may be left out.
    """
    for table in tables:
        yield from table.shards[:1] if first and table.statistics else table.shards


def check_links(tables: list[Table]) -> None:
    """Refuse linked files that have changed; call it before the first read and after the last.

    Raises:
        Conflict: A file has changed since it was linked.
    """
    for table in tables:
        if table.link is not None:
            table.link.file.check(table.name)


def rights_key(tables: list[Table]) -> str:
    """Return the digest of the policies of tables (`lake.access.rules.policy_key`)."""
    return policy_key(
        {table.id: None if table.policy is None else table.policy.to_json() for table in tables}
    )


def check_explained(tables: list[Table], *, analyzes: bool = False) -> None:
    """Refuse a query plan that would show what the user may not see.

    Args:
        tables: What the query reads.
        analyzes: Whether it is to be run.

    Raises:
        Denied: It reads a view whose text the user does not see; or it is to be run, and its profile
            would count hidden rows.
    """
    for table in tables:
        if table.view is not None and not table.view.shown:
            raise Denied(
                f"the plan of a query over the view {table.name!r}, which reads a dataset of which "
                "your policy shows a part",
                needed="a policy without rows and columns",
                hint="the plan would show the view's own conditions",
            )
        if table.policy is not None and analyzes:
            raise Denied(
                f"profiling a query over {table.name!r}, of which your policy shows a part",
                needed="a policy without rows and columns",
                hint="EXPLAIN without ANALYZE shows the plan, as for a dataset without rows",
            )


def explained_tables(tables: list[Table]) -> list[Table]:
    """Return the datasets for a query plan: those of which the user sees a part have no rows.

    A plan over them would show the policy's condition and estimates from statistics of all rows. An
    empty table with the columns that the user sees has nothing to show.
    """
    return [
        table
        if table.policy is None
        else replace(
            table, paths=(), shard_files=(), explained=True, statistics=None, shards_in_all=None
        )
        for table in tables
    ]


def described_tables(tables: list[Table]) -> list[Table]:
    """Return the datasets for a statement that reads their columns alone."""
    return [
        table
        if table.view is not None
        else replace(
            table,
            paths=(),
            shard_files=(),
            link=None,
            described=True,
            statistics=None,
            shards_in_all=None,
        )
        for table in tables
    ]


def check_target(tables: list[Table], name: str) -> None:
    """Refuse to change a dataset, by name or id, that the user may only read."""
    for table in tables:
        if name.casefold() not in (table.name.casefold(), table.id):
            continue
        if table.writer:
            raise written_elsewhere(table.name, table.writer)
        if not table.writable:
            raise not_writable(table.name)
