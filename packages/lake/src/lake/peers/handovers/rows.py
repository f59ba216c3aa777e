"""What a node knows of the hand-overs of datasets, and how far its own are: rows of the tree.

A row `/peers/handovers/{dataset}` is written in one write with what it says of the dataset, so that after a
crash both are of before or of after:

    state      this node        commits here   next
    offered    writes           yes            signed; stopped, if the taker has an earlier version; or none: undone
    stopped    wrote            no             signed, or none: undone
    signed     wrote            no             settled, once it has adopted what the taker publishes
    accepting  reads            no             settled: it writes from then on; or refused
    refused    reads            no             settled, once the writer knows; accepting, if that has signed already
    settled    writes or reads  if it writes   offered, accepting

While a giver is stopped, or has signed, the dataset's `node` is the taker already, so that the catalog refuses commits.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from elkyn.records import Change, CheckedTable
from lake.peers.handovers.handovers import HandOvers, Term, givers_of
from lake.peers.transport.signed import Statement
from sennit_core.errors import Corrupt, Denied
from sennit_core.records import DatasetInfo, Record

if TYPE_CHECKING:
    from elkyn import ElkynStore

__all__ = [
    "ACCEPTING",
    "OFFERED",
    "REFUSED",
    "SETTLED",
    "SIGNED",
    "STOPPED",
    "HandOverRow",
    "HandOverTable",
    "Terms",
]

OFFERED = "offered"
STOPPED = "stopped"
SIGNED = "signed"
ACCEPTING = "accepting"
REFUSED = "refused"
SETTLED = "settled"


@dataclass(frozen=True, slots=True)
class HandOverRow(Record):
    """What a node knows of the hand-overs of one dataset.

    Args:
        state: How far one is in which this node is the giver or the taker.
        chain: The statements of all that were, the oldest first.
        peer: The other node of the one that is under way; "" if none is.
        owner: The user who owns the dataset when this node writes it.
        audiences: The logs in which this node says that it writes the dataset no more.
        refusal: Why the last hand-over was refused; "" if it was not, or another one has begun.
    """

    state: str
    chain: tuple[Statement, ...] = ()
    peer: str = ""
    owner: str = ""
    audiences: tuple[str, ...] = ()
    refusal: str = ""


class HandOverTable:
    """The rows of one node. Methods are for any thread.

    Args:
        tree: The namespace `sys`.
    """

    def __init__(self, tree: ElkynStore) -> None:
        self._tree = tree
        self._rows = CheckedTable(tree, "/peers/handovers", HandOverRow)

    def get(self, dataset: str) -> HandOverRow:
        """Return the row of a dataset; of one that was never handed over, one without statements.

        Raises:
            Corrupt: It is damaged.
        """
        return self._rows.get(dataset) or HandOverRow(SETTLED)

    def ids(self) -> list[str]:
        """Return the ids of the datasets that have a row, damaged or not."""
        return self._rows.ids()

    def under_way(self, state: str) -> dict[str, HandOverRow]:
        """Return the rows in a state that can be read."""
        found: dict[str, HandOverRow] = {}
        for dataset in self.ids():
            with suppress(Corrupt):
                row = self.get(dataset)
                if row.state == state:
                    found[dataset] = row
        return found

    def change(self, dataset: str, row: HandOverRow) -> Change:
        """Return what writes a row; one that says nothing is removed."""
        return self._rows.change(dataset, None if row == HandOverRow(SETTLED) else row)

    def put(self, dataset: str, row: HandOverRow) -> None:
        """Write a row alone."""
        if row == HandOverRow(SETTLED):
            self._rows.remove(dataset)
        else:
            self._rows.put(dataset, row)

    def remove(self, dataset: str) -> None:
        """Forget the hand-overs of a dataset that is gone."""
        self._rows.remove(dataset)

    def clear(self) -> None:
        """Forget those of all datasets."""
        self._tree.delete("/peers/handovers")

    def needs_all(self, dataset: str) -> bool:
        """Return whether all objects of a dataset stay here, though another node writes it."""
        try:
            return self.get(dataset).state in (STOPPED, SIGNED, ACCEPTING)
        except Corrupt:  # it may be in one of these states
            return True

    def is_frozen(self, dataset: str) -> bool:
        """Return whether this node wrote a dataset until it stopped, and has not adopted what follows.

        Raises:
            Corrupt: The row is damaged.
        """
        return self.get(dataset).state in (STOPPED, SIGNED)


class Terms:
    """Decides which node's description of a dataset counts.

    Args:
        node: This node's id.
        table: The rows.
        statements: Checks hand-overs.
    """

    def __init__(self, node: str, table: HandOverTable, statements: HandOvers) -> None:
        self._node = node
        self.table = table
        self._statements = statements

    def current(self, dataset: str, known: DatasetInfo) -> Term:
        """Return the term that this node believes."""
        row = self.table.get(dataset)
        # The writer of a stopped row is this node until it has signed.
        is_own = known.node is None or row.state == STOPPED
        return Term.of(self._node if is_own else known.node or "", row.chain)

    def follow(
        self,
        dataset: str,
        known: DatasetInfo | None,
        publisher: str,
        chain: Sequence[Statement],
        now: float,
    ) -> Term | None:
        """Return the term by which a publisher writes a dataset; None if it wrote it before.

        Args:
            dataset: The dataset's id.
            known: Its row here.
            publisher: The node that describes it.
            chain: The statements in the description.
            now: Unix seconds.

        Raises:
            Denied: Another node writes it.
        """
        if known is None:
            term = Term(chain[0].signer if chain else publisher)
        else:
            term = self.current(dataset, known)
            before = givers_of(self.table.get(dataset).chain)
            if len(chain) < term.number and publisher in before:
                return None  # it does not know yet that it handed the dataset over, or says so soon
        found = self._statements.follow(dataset, term, chain, now)
        if found.writer == publisher:
            return found
        if publisher in givers_of(chain):
            return None
        raise Denied("publishing a dataset that another node writes")
