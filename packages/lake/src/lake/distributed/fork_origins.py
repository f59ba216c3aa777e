"""Of which dataset and version each fork of this node is one, for as long as the fork exists.

The fork's first version says it too, until that expires. Rows are `/forks/{dataset}`, written with that version.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from elkyn.records import Change, CheckedTable
from sennit_core.errors import Corrupt, UsageError
from sennit_core.ids import is_id
from sennit_core.records import Record

if TYPE_CHECKING:
    from elkyn import ElkynStore

__all__ = ["ForkOrigin", "ForkOrigins"]

_NAME_MAX = 255


@dataclass(frozen=True, slots=True)
class ForkOrigin(Record):
    """What a dataset is a fork of.

    Args:
        dataset: Id of the other dataset.
        name: Its name at the node that has made the fork, then.
        version: The number of its version.
    """

    dataset: str
    name: str
    version: int

    def check(self) -> None:
        """Refuse what no node of this version writes.

        Raises:
            UsageError: A member is out of range.
        """
        if not is_id(self.dataset) or not 0 < len(self.name) <= _NAME_MAX or self.version < 1:
            raise UsageError(f"the origin of the fork of {self.dataset[:40]} is not valid")


class ForkOrigins:
    """The origins of this node's forks; for any thread.

    Args:
        tree: The namespace `sys`.
    """

    def __init__(self, tree: ElkynStore) -> None:
        self._table = CheckedTable(tree, "/forks", ForkOrigin)

    def get(self, dataset: str) -> ForkOrigin | None:
        """Return the origin of a dataset; None if it is no fork, or the row is damaged."""
        with suppress(Corrupt):
            return self._table.get(dataset)
        return None

    def change(self, dataset: str, origin: ForkOrigin) -> Change:
        """Return what notes an origin in one write with the fork's first version."""
        return self._table.change(dataset, origin)

    def remove(self, dataset: str) -> None:
        """Forget the origin of a dataset that was deleted."""
        self._table.remove(dataset)
