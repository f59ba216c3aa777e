"""The response of a statement that changes a dataset: its parts that several statements have."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from lake.ingest.shards import Shard
from lake.sql.tables import Table
from sennit_core.errors import SqlError, UnknownColumn, nearest
from sennit_core.schema import Schema

__all__ = ["check_names", "inputs_of", "of_target", "reports_of", "rewritten", "row_count"]


def check_names(names: Sequence[str], schema: Schema) -> None:
    """Refuse names of columns that the dataset does not have, or that are there twice."""
    known = {name.casefold(): name for name in schema.names}
    seen = set()
    for name in names:
        folded = name.casefold()
        if folded not in known:
            raise UnknownColumn(
                name=name, known=schema.names, suggestion=nearest(name, schema.names)
            )
        if folded in seen:
            raise SqlError(f"column {known[folded]!r} is assigned twice")
        seen.add(folded)


def rewritten(
    target: Table, changed: Iterable[tuple[int, list[Shard]]], count: int, read: list[Table]
) -> dict[str, Any]:
    """Return the response for shards that were changed.

    Args:
        target: The dataset.
        changed: The index in `paths` of each changed shard, and the shards that replace it.
        count: How many rows were changed.
        read: The datasets that were read.
    """
    objects = target.objects
    changes = [
        {"index": target.number(index), "object": objects[index], "shards": reports_of(shards)}
        for index, shards in changed
    ]
    return {
        "action": "rewrite" if changes else "none",
        **of_target(target),
        "rewritten": changes,
        "count": count,
        "inputs": inputs_of(read),
    }


def of_target(target: Table) -> dict[str, Any]:
    """Return the members that name the dataset and what the statement read of it."""
    return {
        "table": target.name,
        "dataset": target.id,
        "base": target.snapshot,
        "schema": target.schema.to_json(),
        "columns": target.columns,
    }


def inputs_of(tables: Iterable[Table]) -> list[str]:
    """Return the ids of the snapshots that were read."""
    return [table.snapshot for table in tables if table.snapshot is not None]


def reports_of(shards: Iterable[Shard]) -> list[dict[str, Any]]:
    """Return shards in the form of responses."""
    return [shard.to_json() for shard in shards]


def row_count(shards: Iterable[Shard]) -> int:
    """Return the number of rows of shards."""
    return sum(shard.rows for shard in shards)
