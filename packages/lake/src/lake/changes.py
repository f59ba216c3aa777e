"""What changed between two snapshots of a dataset: the rows that were added, and those that were removed.

A change writes the shards anew that it touches, so only shards that one of the snapshots does not have
are compared. Rows are compared as a multiset, by the columns of the later snapshot.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace

from lake.file_schemas import column_ids, file_schemas_of
from lake.snapshots import Manifest
from sennit_core.records import ShardInfo, SnapshotInfo

__all__ = ["CHANGES_SQL", "NO_CHANGES_SQL", "changed_parts"]

CHANGES_SQL = """
SELECT 'insert' AS change, * FROM (FROM "{after}" EXCEPT ALL FROM "{before}")
UNION ALL
SELECT 'delete' AS change, * FROM (FROM "{before}" EXCEPT ALL FROM "{after}")
"""


NO_CHANGES_SQL = "SELECT 'insert' AS change, * FROM \"{before}\""


def changed_parts(before: Manifest, after: Manifest) -> tuple[Manifest, Manifest]:
    """Return both snapshots without the shards that they share, with the columns of the later one."""
    old, new = before.snapshot, after.snapshot
    files = file_schemas_of(new)
    known = (*files, *(each for each in file_schemas_of(old) if each not in files))
    places = [known.index(each) for each in file_schemas_of(old)]
    moved = tuple(replace(each, file_schema=places[each.file_schema]) for each in old.shards)
    state = replace(new, columns=column_ids(new), file_schemas=known)
    return (
        _part(before, state, tuple(_without(moved, new.shards))),
        _part(after, state, tuple(_without(new.shards, moved))),
    )


def _part(manifest: Manifest, state: SnapshotInfo, shards: tuple[ShardInfo, ...]) -> Manifest:
    # Its own id, as each is another table in the statement that compares them.
    return replace(manifest, snapshot=replace(state, id=manifest.snapshot.id, shards=shards))


def _without(shards: tuple[ShardInfo, ...], others: tuple[ShardInfo, ...]) -> Iterator[ShardInfo]:
    left = Counter((each.object, each.file_schema) for each in others)
    for shard in shards:
        key = (shard.object, shard.file_schema)
        if left[key]:
            left[key] -= 1
        else:
            yield shard
