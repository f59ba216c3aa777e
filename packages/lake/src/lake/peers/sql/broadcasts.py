"""Which rows may be sent along with a fragment: to whom, how many, of which types.

Rows come from tables, also those that were computed from others, and go only to nodes that may have rows of each of these
tables (`Table.readers`). A unit has to have a holder that is such a node, or the coordinator, where nothing is
sent.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import chain

from lake.peers.sql.drafts import DraftFragment, Drafts
from lake.peers.sql.errors import NotSent
from lake.peers.sql.tables import Column, Table
from lake.sql.sent_columns import is_sendable

__all__ = [
    "MISSING_ROWS",
    "TOO_MANY_ROWS",
    "check_broadcasts",
    "check_columns",
    "is_sendable",
    "readers_of",
]

MISSING_ROWS = "the holders of its shards do not have the rows that it joins"
_NOT_READERS = "the holders of its shards may not have the rows that it joins"
TOO_MANY_ROWS = "the rows that it joins are too many to be sent along"


def check_columns(columns: Sequence[Column]) -> None:
    """Refuse columns that cannot be sent along.

    Raises:
        NotSent: A type or a name is none of those.
    """
    if not is_sendable([(column.name, column.type) for column in columns]):
        shown = ", ".join(dict.fromkeys(column.type for column in columns))[:80]
        raise NotSent(f"rows of {shown} are not sent along")


def readers_of(names: Iterable[str], tables: Mapping[str, Table]) -> frozenset[int] | None:
    """Return the other nodes that rows of all of some tables may be sent to; None of no table: every node.

    Args:
        names: The tables' names; one that is not known has no readers.
        tables: The tables by their names.
    """
    found: frozenset[int] | None = None
    for name in names:
        own = frozenset(tables[name].readers) if name in tables else frozenset[int]()
        found = own if found is None else found & own
    return found


def check_broadcasts(
    draft: DraftFragment, drafts: Drafts, tables: Mapping[str, Table], bytes_max: int
) -> None:
    """Refuse a fragment that needs rows which cannot be sent to nodes that run its units.

    Args:
        draft: The fragment.
        drafts: The steps whose results it may read.
        tables: The tables of the statement, by their names.
        bytes_max: The most that is sent along, estimated.

    Raises:
        NotSent: It is refused.
    """
    results = drafts.results_in(draft.query)
    if not results:
        return
    if not bytes_max:
        raise NotSent(MISSING_ROWS)
    if sum(map(drafts.result_bytes, results)) > bytes_max:
        raise NotSent(TOO_MANY_ROWS)
    readers = readers_of(set().union(*map(drafts.tables_of, results)), tables)
    if readers is None:
        return
    receivers = readers | {0}
    holders = {s.object: frozenset(s.nodes) for t in tables.values() for s in t.shards}
    whole = [tables[name].shards for name in drafts.tables_read(draft.query) - {*draft.sharded}]
    common = _common([frozenset(s.nodes) for s in chain.from_iterable(whole)], receivers)
    for unit in draft.units:
        own = [holders[name] for name in chain.from_iterable(unit.shards.values())]
        # Shards that no node has are missing in any plan.
        if not _common([nodes for nodes in own if nodes], common):
            raise NotSent(_NOT_READERS)


def _common(sets: Iterable[frozenset[int]], start: frozenset[int]) -> frozenset[int]:
    return start.intersection(*sets)
