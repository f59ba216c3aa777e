"""What was changed for other nodes: a receipt of each change, written with its commit or not at all.

A node that has sent a change, and got no answer, sends it again. Its receipt then is the answer, so that
the change is made once, whatever was lost, and whichever of the two nodes crashed in between.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from elkyn.records import Change, CheckedTable
from sennit_core.errors import Denied
from sennit_core.records import Record

if TYPE_CHECKING:
    from elkyn import ElkynStore

__all__ = ["Receipt", "Receipts"]


@dataclass(frozen=True, slots=True)
class Receipt(Record):
    """A change that was made.

    Args:
        dataset: Id of the dataset.
        digest: Of the request: another one with its id is refused.
        count: The number of rows that it has changed.
        expires_at: Unix seconds after which the request is refused, so that its receipt can go.
    """

    dataset: str
    digest: str
    count: int
    expires_at: float


class Receipts:
    """The receipts of a node.

    They are no part of a network's rows (`/peers`): a sender asks again after this node has left a network
    and joined it anew.

    Args:
        tree: The namespace `sys`.
        writing: Blocks commits until its context is left (`Catalog.writing`).
    """

    def __init__(
        self, tree: ElkynStore, writing: Callable[[], AbstractContextManager[None]]
    ) -> None:
        self._table = CheckedTable(tree, "/receipts", Receipt)
        self._writing = writing
        self._expiries = {key: each.expires_at for key, each in self._table.all().items()}

    def __len__(self) -> int:
        return len(self._expiries)

    def count_of(self, node: str) -> int:
        """Return the number of receipts of a node, whose keys begin with its id."""
        # Of a copy: commits add receipts in other threads.
        return sum(key.startswith(f"{node}_") for key in list(self._expiries))

    def find(self, key: str) -> Receipt | None:
        """Return a receipt; None if there is none."""
        return self._table.get(key)

    def change(self, key: str, receipt: Receipt) -> Change:
        """Return what writes a receipt in one write with a commit, whose caller blocks other commits.

        Raises:
            Denied: The change was made by a run that this one did not know of.
        """
        if self.find(key) is not None:
            raise Denied("making a change of another node twice")
        # Noted before the write: a sweep of a row that was not written does nothing.
        self._expiries[key] = receipt.expires_at
        return self._table.change(key, receipt)

    def put(self, key: str, receipt: Receipt) -> Receipt:
        """Return the receipt of a change; write this one if it has committed nothing.

        No row was to be changed, then.
        """
        with self._writing():
            found = self.find(key)
            if found is None:
                self._expiries[key] = receipt.expires_at
                self._table.put(key, receipt)
            return found or receipt

    def shorten(self, key: str, expires_at: float) -> None:
        """Let a receipt go earlier, as its sender never asks for it again."""
        with self._writing():
            found = self.find(key)
            if found is not None and found.expires_at > expires_at:
                self._table.put(key, replace(found, expires_at=expires_at))
                self._expiries[key] = expires_at

    def sweep(self, now: float) -> None:
        """Remove those whose requests are refused anyway.

        Args:
            now: Unix seconds.
        """
        for key, expires_at in list(self._expiries.items()):
            if expires_at < now:
                self._table.remove(key)
                del self._expiries[key]
