"""How much users of other nodes have stored here: bytes of new shards, by node and dataset, written with each commit.

A count does not know which of its shards are deleted later: by versions that expire, by a purge, by changes of the
owner. So a node is charged at most what its dataset stores. Rows are `/foreign-bytes/{node}/{dataset}`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from elkyn.records import Change, CheckedTable
from lake.catalog.usage import StoredBytes
from sennit_core.errors import Corrupt
from sennit_core.records import Record

if TYPE_CHECKING:
    from elkyn import ElkynStore
    from lake.catalog.catalog import Catalog

__all__ = ["ForeignBytes", "ForeignUsage"]

_PLACE = "/foreign-bytes"


@dataclass(frozen=True, slots=True)
class ForeignBytes(Record):
    """What the users of one node have stored in one dataset.

    Args:
        bytes: Of the shards that their changes have added since the dataset was made.
    """

    bytes: int


class ForeignUsage:
    """What the users of other nodes have stored in the datasets of a lake.

    Args:
        tree: The namespace `sys`.
        catalog: The datasets.
        stored: Measures them.
    """

    def __init__(self, tree: ElkynStore, catalog: Catalog, stored: StoredBytes) -> None:
        self._tree = tree
        self._catalog = catalog
        self._stored = stored

    def nodes(self) -> list[str]:
        """Return the ids of the nodes whose users have stored something."""
        return sorted(self._tree.keys(_PLACE))

    def of(self, node: str) -> int:
        """Return the bytes of the users of a node in all datasets that this node writes."""
        table, total = self._table(node), 0
        for dataset in table.ids():
            info = self._catalog.find_known(dataset)
            if info is None:
                table.remove(dataset)  # it was deleted, with its rows
            elif info.node is None and not info.damaged:
                total += min(self._count(table, dataset), self._stored.bytes_of(info))
        return total

    def added(self, node: str, dataset: str, size: int) -> Change:
        """Return what counts new shards of a node's users, in one write with their commit.

        Args:
            node: The node's id.
            dataset: The dataset's id.
            size: Bytes of the new shards; the caller blocks other commits.
        """
        table = self._table(node)
        info = self._catalog.get(dataset)
        before = min(self._count(table, dataset), self._stored.bytes_of(info))
        return table.change(dataset, ForeignBytes(before + size))

    def _table(self, node: str) -> CheckedTable[ForeignBytes]:
        return CheckedTable(self._tree, f"{_PLACE}/{node}", ForeignBytes)

    @staticmethod
    def _count(table: CheckedTable[ForeignBytes], dataset: str) -> int:
        try:
            found = table.get(dataset)
        except Corrupt:
            return 1 << 62  # unknown, so it is all that the dataset stores
        return 0 if found is None else found.bytes
