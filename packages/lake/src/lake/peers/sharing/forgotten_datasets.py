"""Datasets of removed nodes that were deleted here.

A node that was removed from the network signs nothing any more, so it withdraws nothing: what its logs said
before stays there, for nodes that were away. A dataset that was deleted here is therefore noted, or the next start
would adopt it again. Rows of the tree:

    /peers/forgotten/{dataset}    ForgottenRow
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from elkyn.records import CheckedTable
from sennit_core.errors import Conflict, Denied
from sennit_core.records import DatasetInfo, Record

if TYPE_CHECKING:
    from elkyn import ElkynStore

__all__ = ["ForgottenDatasets", "ForgottenRow", "check_removed"]


@dataclass(frozen=True, slots=True)
class ForgottenRow(Record):
    """A dataset that was deleted here.

    Args:
        writer: The node whose descriptions of it do not count any more; those of another one do.
    """

    writer: str


class ForgottenDatasets:
    """The rows of one node. Methods are for any thread.

    Args:
        tree: The namespace `sys`.
    """

    def __init__(self, tree: ElkynStore) -> None:
        self._tree = tree
        self._rows = CheckedTable(tree, "/peers/forgotten", ForgottenRow)

    def add(self, dataset: str, writer: str) -> None:
        """Note that a dataset of a node is deleted here."""
        self._rows.put(dataset, ForgottenRow(writer))

    def has(self, dataset: str, writer: str) -> bool:
        """Return whether a dataset of a node was deleted here.

        Raises:
            Corrupt: The row is damaged.
        """
        row = self._rows.get(dataset)
        return row is not None and row.writer == writer

    def clear(self) -> None:
        """Forget all: the network is left."""
        self._tree.delete("/peers/forgotten")


def check_removed(known: DatasetInfo, name: str, *, is_member: bool) -> None:
    """Refuse to delete a dataset whose writer is in the network, and so describes it again.

    Args:
        known: The dataset.
        name: The name of the node that writes it.
        is_member: Whether that node is in the network.

    Raises:
        Conflict: This node has become the writer meanwhile.
        Denied: The writer was not removed.
    """
    if known.node is None:
        raise Conflict(f"dataset {known.name!r} is written by this node now", hint="try again")
    if is_member:
        raise Denied(
            f"deleting dataset {known.name!r}, which node {name} writes",
            needed="to be done at that node",
            hint=f"if that node is gone for ever, remove it first: platform net revoke {name}",
        )
