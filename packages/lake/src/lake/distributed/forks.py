"""Forks: a dataset of this node that begins with the rows of another one, without copying them.

The fork names the same objects, so it costs a manifest. Of a dataset that another node writes, the shards that
are not here are fetched first: a node has all shards of what it writes.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from lake.catalog.catalog import check_dataset_name
from lake.catalog.commits import Commit
from lake.catalog.origins import Origin
from lake.catalog.snapshots import StoredManifest
from lake.distributed.fork_origins import ForkOrigin
from lake.errors import without_snapshot
from sennit_core.errors import Conflict, Unsupported
from sennit_core.ids import new_id
from sennit_core.records import DatasetInfo

if TYPE_CHECKING:
    from lake.lake import Lake

__all__ = ["fork_dataset"]


def fork_dataset(lake: Lake, dataset: str, name: str, *, user: str = "") -> DatasetInfo:
    """Create a dataset of this node with the columns and rows of another one; blocks.

    Its first version says of which snapshot it is a fork. Later changes of either are not the other's.

    Args:
        lake: The datasets.
        dataset: Id or name of one that the user may read as a whole.
        name: The name of the new one.
        user: Its owner.

    Raises:
        NotFound: There is no such dataset.
        Conflict: The name is in use, or rows were purged meanwhile.
        Unsupported: It is encrypted, or its writer sends only what a user may see.
        Unavailable: A shard is on no node that can be reached, or was not sent as one of the dataset.
    """
    catalog = lake.catalog
    catalog.check_free(check_dataset_name(name))
    purges = catalog.rewriter.purges
    source = catalog.get(dataset)
    if source.encrypted:
        raise Unsupported(
            f"a fork of {source.name!r}, which is encrypted with a key of its own",
            hint=f"copy its rows: CREATE TABLE {name} AS FROM {source.name}",
        )
    if source.head is None:
        raise without_snapshot(source)
    stored = catalog.stored_manifest(source.id, source.head)
    # Of the whole snapshot, and of its lists, which the fork has too.
    objects = catalog.objects_of(source.id, source.head)
    held = lake.retention.acquire(objects)
    try:
        snapshot = catalog.manifest(source.id, source.head).snapshot
        catalog.check_shards(snapshot)
        if source.node is not None:
            lists = (name for each in stored.lists for name in each.objects)
            lake.remote.ensure_received(
                source, {*lists, *(shard.object for shard in snapshot.shards)}
            )
        return _commit(lake, stored, source, name, user, purges)
    finally:
        lake.retention.release(held)


def _commit(
    lake: Lake, stored: StoredManifest, source: DatasetInfo, name: str, user: str, purges: int
) -> DatasetInfo:
    catalog, head = lake.catalog, stored.snapshot
    origin = Origin(f"fork of {source.name} version {head.version}", user)
    origin.datasets[head.id] = source.id
    with catalog.writing():
        catalog.rewriter.check(purges)
        # Objects of what was deleted before they were held may be gone.
        if not catalog.has_snapshot(source.id, head.id):
            raise Conflict(f"dataset {source.name!r} has changed meanwhile", hint="fork it again")
        new = new_id(lake.clock)
        info = DatasetInfo(new, name, user, head.schema)
        state = replace(
            head, id=new_id(lake.clock), parent=None, dataset=new, author=user,
            query=origin.text(), inputs=(head.id,), signature=None,
        )  # fmt: skip
        provenance = origin.provenance(state.inputs, catalog)
        manifest = StoredManifest(state, stored.lists, lake.clock.now(), None, name, provenance)
        origin_row = lake.storage.forks.change(
            new, ForkOrigin(source.id, source.name, head.version)
        )
        return catalog.commit_all([Commit(info, manifest, None)], [origin_row])[0]
