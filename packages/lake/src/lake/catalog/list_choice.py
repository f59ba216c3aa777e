"""Which lists of shards a statement needs: the request of the step that chooses them, and its answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from lake.catalog.file_schemas import column_ids
from lake.catalog.shard_lists import LeftOut
from lake.catalog.snapshots import ShardList
from sennit_core.records import ShardInfo, SnapshotInfo

__all__ = ["ALL_LISTS", "LeftOuts", "ListChoice"]

LeftOuts = Mapping[str, LeftOut]
"""By the ids of datasets, the lists that a statement does not need."""
ALL_LISTS: LeftOuts = {}


@dataclass(slots=True)
class ListChoice:
    """The tables of a statement, with summaries in the place of shards.

    Args:
        tables: In the form of executor requests.
    """

    tables: list[dict[str, Any]]
    _chosen: dict[str, tuple[SnapshotInfo, list[ShardList]]] = field(default_factory=dict)

    def add(
        self, snapshot: SnapshotInfo, summaries: Sequence[tuple[ShardList, tuple[ShardInfo, ...]]]
    ) -> SnapshotInfo:
        """Add a dataset of which lists are chosen; return it with summaries in the place of shards."""
        owners = [each for each, summary in summaries for _ in summary]
        self._chosen[snapshot.dataset] = snapshot, owners
        return replace(snapshot, shards=tuple(one for _, summary in summaries for one in summary))

    def __bool__(self) -> bool:
        return bool(self._chosen)

    def left_out(self, answer: Mapping[str, Sequence[int]]) -> LeftOuts:
        """Return the lists of which the step needs no summary.

        Args:
            answer: By the id of each dataset the numbers of such summaries.
        """
        found = {}
        for dataset, places in answer.items():
            snapshot, owners = self._chosen[dataset]
            gone = set(places)
            needed = {each.object for place, each in enumerate(owners) if place not in gone}
            lists = frozenset(each.object for each in owners) - needed
            found[dataset] = LeftOut(snapshot.schema, column_ids(snapshot), lists)
        return found
