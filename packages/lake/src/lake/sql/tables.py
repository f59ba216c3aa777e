"""The datasets of a query, as its request names them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from lake.verification import ShardFile
from sennit_core.errors import NotFound, error_from_json
from sennit_core.schema import Schema

__all__ = ["Table", "used_tables"]


@dataclass(frozen=True)
class Table:
    """A dataset as SQL sees it.

    Args:
        name: Its name; a view.
        id: Its id; a view as well, where the query uses it.
        schema: Its columns.
        paths: Its shards in order; None makes a view that only tells its columns.
        snapshot: Id of the snapshot that the shards are of.
        damage: Why it cannot be read: an error's wire form; raised when a statement reads it.
    """

    name: str
    id: str
    schema: Schema
    paths: tuple[str, ...] | None
    snapshot: str | None = None
    damage: dict[str, Any] | None = None

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Table:
        """The request's form of it."""
        paths = data.get("paths")
        return cls(
            name=data["name"],
            id=data["id"],
            schema=Schema.from_json(data["schema"]),
            paths=None if paths is None else tuple(paths),
            snapshot=data.get("snapshot"),
            damage=data.get("damage"),
        )

    @property
    def shards(self) -> list[ShardFile]:
        """The files that hold it, to be verified before they are opened."""
        return [ShardFile(self.name, i, path) for i, path in enumerate(self.paths or ())]


def used_tables(tables: list[Table], wanted: frozenset[str]) -> list[Table]:
    """The datasets that a statement names.

    Args:
        tables: Datasets that it may name.
        wanted: Names or ids, as written.

    Raises:
        NotFound: A name is none; the gateway, which knows all names, suggests one.
        Corrupt: A dataset is damaged.
    """
    found: dict[str, Table] = {}
    by_name = {key: t for t in tables for key in (t.name.casefold(), t.id)}
    for name in sorted(wanted):
        table = by_name.get(name.casefold())
        if table is None:
            raise NotFound(kind="dataset", name=name, suggestion=None)
        if table.damage is not None:
            raise error_from_json(table.damage)
        found[table.id] = table
    return list(found.values())
