"""The datasets of a query, as its request names them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sennit_core.errors import NotFound, nearest
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
    """

    name: str
    id: str
    schema: Schema
    paths: tuple[str, ...] | None
    snapshot: str | None = None

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
        )


def used_tables(tables: list[Table], wanted: frozenset[str], names: tuple[str, ...]) -> list[Table]:
    """The datasets that a statement names.

    Args:
        tables: Datasets that it may name.
        wanted: Names or ids, as written.
        names: Of all datasets, for suggestions.

    Raises:
        NotFound: A name is none.
    """
    found: dict[str, Table] = {}
    by_name = {key: t for t in tables for key in (t.name.casefold(), t.id)}
    for name in sorted(wanted):
        table = by_name.get(name.casefold())
        if table is None:
            raise NotFound(kind="dataset", name=name, suggestion=nearest(name, names))
        found[table.id] = table
    return list(found.values())
