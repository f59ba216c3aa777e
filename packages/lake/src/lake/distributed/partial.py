"""Results of queries without the rows of shards that no node has which can be reached.

A query refuses such a result unless its request allows it. Then it runs over the shards that are there,
the same for all uses of a dataset, and its report says what is missing.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sennit_core.errors import Denied, Unavailable
from sennit_core.records import Record, SnapshotInfo

__all__ = [
    "MissingShards",
    "ShardsUnavailable",
    "fetch_available",
    "missing_header",
    "missing_report",
    "missing_shards",
    "without_shards",
]

_HEADER_BYTES_MAX = 4 << 10
_BY_SHARD = ("paths", "shardFiles", "shardRows", "numbers")


class ShardsUnavailable(Unavailable):
    """No node that can be reached has some shards.

    Args:
        what: The shards.
        holders: The names of the nodes that are known to have each, by its object id.
        hint: What to do.
    """

    def __init__(
        self, what: str, holders: Mapping[str, tuple[str, ...]] | None = None, *, hint: str = ""
    ) -> None:
        super().__init__(what, hint=hint)
        self.holders = dict(holders or {})


@dataclass(frozen=True, slots=True)
class MissingShards(Record):
    """The shards of a dataset that a result leaves out.

    Args:
        dataset: Its name.
        shards: Their number.
        rows: Their rows, by the manifest.
        nodes: The names of the nodes that are known to have them.
    """

    dataset: str
    shards: int
    rows: int
    nodes: tuple[str, ...]


def missing_shards(
    tables: Iterable[tuple[str, SnapshotInfo]], holders: Mapping[str, tuple[str, ...]]
) -> tuple[MissingShards, ...]:
    """Return what is missing of the tables of a query, by dataset.

    Args:
        tables: The names of their datasets, and their snapshots; of one dataset perhaps several.
        holders: As of `ShardsUnavailable`.
    """
    lost: dict[str, dict[str, int]] = {}
    for name, snapshot in tables:
        rows = {shard.object: shard.rows for shard in snapshot.shards if shard.object in holders}
        if rows:
            lost.setdefault(name, {}).update(rows)
    found = []
    for name, rows in lost.items():
        nodes = sorted({node for shard in rows for node in holders[shard]})
        found.append(MissingShards(name, len(rows), sum(rows.values()), tuple(nodes)))
    return tuple(found)


def fetch_available(
    fetch: Callable[[list[dict[str, Any]]], object], tables: list[dict[str, Any]]
) -> dict[str, tuple[str, ...]]:
    """Fetch the shards of tables; remove from the tables those that no node has.

    Args:
        fetch: Fetches them all, or raises.
        tables: The tables of an executor's request, with all lists of their shards.

    Returns:
        What was removed, as `ShardsUnavailable.holders`.

    Raises:
        Denied: A shard is missing of a dataset of which the user's policy shows a part.
    """
    absent: dict[str, tuple[str, ...]] = {}
    while True:
        try:
            fetch(tables)
        except ShardsUnavailable as error:
            if not error.holders.keys() - absent.keys():
                raise
            absent |= error.holders
            tables[:] = [without_shards(table, absent) for table in tables]
        else:
            return absent


def without_shards(table: dict[str, Any], absent: Collection[str]) -> dict[str, Any]:
    """Return a table without some shards; all others are read, as statistics are by number.

    Args:
        table: A table of an executor's request, with all lists of its shards.
        absent: The object ids of the shards.

    Raises:
        Denied: The user's policy shows a part of the dataset.
    """
    paths = table.get("paths") or ()
    left = [number for number, path in enumerate(paths) if Path(path).name not in absent]
    if len(left) == len(paths):
        return table
    if table.get("policy"):
        # The report would count rows that the policy hides.
        raise Denied(
            f"a partial result of {table['name']!r}, of which your policy shows a part",
            needed="a policy without rows and columns",
        )
    chosen = {
        name: [table[name][number] for number in left] for name in _BY_SHARD if table.get(name)
    }
    return {name: value for name, value in table.items() if name != "statistics"} | chosen


def missing_report(missing: Sequence[MissingShards]) -> dict[str, Any]:
    """Return what is missing as JSON data: `shards`, `rows`, and `datasets` with these of each."""
    return {
        "shards": sum(each.shards for each in missing),
        "rows": sum(each.rows for each in missing),
        "datasets": [each.to_json() for each in missing],
    }


def missing_header(missing: Sequence[MissingShards]) -> str:
    """Return the report as JSON in ASCII, for a header of a response: not all datasets of many."""
    report = missing_report(missing)
    while True:
        text = json.dumps(report, separators=(",", ":"))
        if len(text) <= _HEADER_BYTES_MAX or not report["datasets"]:
            return text
        report["datasets"].pop()
