"""What changed between two snapshots of a dataset: the rows that were added, and those that were removed.

A change writes the shards anew that it touches, so only shards that one of the snapshots does not have
are compared. Rows are compared as a multiset, by the columns of the later snapshot.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace

from lake.catalog.file_schemas import column_ids, file_schemas_of
from lake.catalog.snapshots import Manifest
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
    wanted = column_ids(new)
    # Files of the earlier snapshot may still have a column that it had dropped, and that a rollback
    # brought back. There it is NULL: it is looked for under an id that no file has.
    dropped = frozenset(wanted).difference(column_ids(old))
    unused = 1 + max((*wanted, *(column for each in known for column in each.columns)), default=0)
    seen = tuple(unused + index if each in dropped else each for index, each in enumerate(wanted))
    differs = {index for index, each in enumerate(known) if dropped.intersection(each.columns)}
    shared = Counter(map(_key, moved)) & Counter(map(_key, new.shards))
    shared = Counter({key: count for key, count in shared.items() if key[1] not in differs})
    state = replace(new, columns=wanted, file_schemas=known)
    return (
        _part(before, replace(state, columns=seen), tuple(_without(moved, shared))),
        _part(after, state, tuple(_without(new.shards, shared))),
    )


def _part(manifest: Manifest, state: SnapshotInfo, shards: tuple[ShardInfo, ...]) -> Manifest:
    # Its own id, as each is another table in the statement that compares them.
    return replace(manifest, snapshot=replace(state, id=manifest.snapshot.id, shards=shards))


def _without(
    shards: tuple[ShardInfo, ...], shared: Counter[tuple[str, int]]
) -> Iterator[ShardInfo]:
    left = shared.copy()
    for shard in shards:
        if left[_key(shard)]:
            left[_key(shard)] -= 1
        else:
            yield shard


def _key(shard: ShardInfo) -> tuple[str, int]:
    return shard.object, shard.file_schema
