"""Executor entry `lake.compact`: write runs of small shards anew as larger ones.

Request: `folder` `tables` (the dataset, with the shards to compact alone) `groups` (the numbers of its
shards in the dataset, for each run) `threads`, and as `lake.sql.write_worker` `space` `plain` `seals`.
Response: as that of a statement that changes these shards (`lake.sql.write_worker`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lake.sql.changing_statement import ChangingStatement
from lake.sql.query_text import QueryText
from lake.sql.session import shards_of
from lake.sql.types import quoted
from lake.sql.write_response import rewritten

if TYPE_CHECKING:
    from emsqrt.executor import EntryContext

__all__ = ["run"]


def run(request: dict[str, Any], context: EntryContext) -> dict[str, Any]:
    """Compact the shards; rows keep their order."""
    statement = ChangingStatement({"sql": "", "params": None, **request}, context)
    (target,) = statement.tables
    statement.changes = target
    changed = []
    with statement.session(QueryText(f"FROM {quoted(target.name)}")) as (connection, read):
        first = 0
        for numbers in request["groups"]:
            places = range(first, first + len(numbers))
            shards = statement.write(connection.sql(f"FROM {shards_of(target, places)}"), target)
            changed += [
                (place, number, shards if place == first else [])
                for place, number in zip(places, numbers, strict=True)
            ]
            first = places.stop
        answer = rewritten(target, [(place, shards) for place, _, shards in changed], 0, read)
    for change, (_, number, _) in zip(answer["rewritten"], changed, strict=True):
        change["index"] = number
    return {"shards": [], **answer}
