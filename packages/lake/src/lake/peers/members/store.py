"""What a node keeps of its network: rows of the tree `sys`.

    /peers/network                  the network's id
    /peers/roster/{digest}          statements of the roster
    /peers/invites/{digest}         invites that were redeemed
    /peers/own                      the number of the node's own status
    /peers/known/{node}             the newest status of each other node, to reach it after a restart
    /peers/logs/{log}/{number}      entries of publications
    /nodes/{id}                     what is known of each node now, written without fsync

Statements are stored as text: the tree would drop their null members, and the signature with them.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from elkyn.records import Change, CheckedTable, Table, write_changes
from lake.peers.members.roster import Roster
from lake.peers.sharing.publications import EVERYONE, LogKey, StoreLog
from lake.peers.transport.signed import Statement
from sennit_core.errors import Corrupt
from sennit_core.hashing import canonical_json
from sennit_core.logs import get_logger
from sennit_core.records import NodeInfo, Record

if TYPE_CHECKING:
    from elkyn import ElkynStore

__all__ = ["PeerStore"]

_log = get_logger(__name__)
_NETWORK = "network"
_OWN = "own"
_ALL = "all"
_ACTIVE = "active"


@dataclass(frozen=True, slots=True)
class _Text(Record):
    """A statement as canonical JSON."""

    text: str

    @classmethod
    def of(cls, statement: Statement) -> _Text:
        return cls(canonical_json(statement.to_json()).decode())

    def statement(self) -> Statement:
        return Statement.from_json(json.loads(self.text))


@dataclass(frozen=True, slots=True)
class _Network(Record):
    id: str


@dataclass(frozen=True, slots=True)
class _Number(Record):
    number: int


@dataclass(frozen=True, slots=True)
class _Redeemed(Record):
    node: str
    at: float


@dataclass(frozen=True, slots=True)
class _Active(Record):
    at: float


class PeerStore:
    """The rows of one node.

    Args:
        tree: The namespace `sys`.
    """

    def __init__(self, tree: ElkynStore) -> None:
        self._tree = tree
        self._networks = CheckedTable(tree, "/peers", _Network)
        self._numbers = CheckedTable(tree, "/peers", _Number)
        self._roster = CheckedTable(tree, "/peers/roster", _Text)
        self._known = CheckedTable(tree, "/peers/known", _Text)
        self._invites = CheckedTable(tree, "/peers/invites", _Redeemed)
        self._active = CheckedTable(tree, "/peers", _Active)
        self.nodes = Table(tree, "/nodes", NodeInfo)

    def load_roster(self) -> Roster | None:
        """Return the roster of the node's network; None if it is in none.

        Raises:
            Corrupt: It cannot be read, so no node can be trusted.
        """
        network = self._networks.get(_NETWORK)
        if network is None:
            return None
        return Roster(network.id, self._statements(self._roster))

    def save_roster(self, roster: Roster) -> None:
        """Store a roster with all its statements, in one write."""
        stored = set(self._roster.ids())
        new = [each for each in roster.statements if each.digest not in stored]
        network = self._networks.change(_NETWORK, _Network(roster.network))
        rows = [self._roster.change(each.digest, _Text.of(each)) for each in new]
        write_changes(self._tree, network, *rows)

    def forget_network(self, own: str) -> None:
        """Remove all rows of the network, and of all nodes except this one."""
        self._tree.delete("/peers")
        self.keep_nodes({own})

    def keep_nodes(self, nodes: Collection[str]) -> None:
        """Remove the rows of all nodes except these."""
        gone = [each for each in self.nodes.ids() if each not in nodes]
        if gone:
            write_changes(
                self._tree, *(self.nodes.change(each, None) for each in gone), ephemeral=True
            )

    def next_number(self, least: int) -> int:
        """Return a number for the node's status that no earlier one had, and store it."""
        stored = self._numbers.get(_OWN)
        number = max(least, 0 if stored is None else stored.number + 1)
        self._numbers.put(_OWN, _Number(number))
        return number

    def redeem(self, digest: str, node: str, now: float) -> bool:
        """Note that a node redeems an invite; return whether it may.

        It may if no node has before, or if it was this node: its answer may have been lost.
        """
        known = self._invites.get(digest)
        if known is None:
            self._invites.put(digest, _Redeemed(node, now))
        return known is None or known.node == node

    def active_at(self) -> float | None:
        """Return when this node was part of its network last, in Unix seconds; None if not known."""
        try:
            found = self._active.get(_ACTIVE)
        except Corrupt:
            return None
        return None if found is None else found.at

    def note_active(self, now: float) -> None:
        """Note that this node is part of its network."""
        self._active.put(_ACTIVE, _Active(now))

    def known_nodes(self) -> list[Statement]:
        """Return the statuses of other nodes that were stored."""
        return self._statements(self._known)

    def save_known(self, statuses: Mapping[str, Statement]) -> None:
        """Replace the statuses of other nodes."""
        rows: list[Change] = [
            self._known.change(node, _Text.of(status)) for node, status in statuses.items()
        ]
        gone = [
            self._known.change(node, None) for node in self._known.ids() if node not in statuses
        ]
        write_changes(self._tree, *rows, *gone)

    def load_logs(self) -> tuple[dict[LogKey, list[Statement]], set[LogKey]]:
        """Return the entries of all logs, and the logs that are damaged.

        One that is damaged or missing ends its log: what follows comes again from other nodes.
        """
        found: dict[LogKey, list[Statement]] = {}
        damaged: set[LogKey] = set()
        for name in self._tree.keys("/peers/logs"):
            entries: list[Statement] = []
            table = self._log_table(name)
            for number in sorted(table.ids()):
                try:
                    row = table.get(number)
                    entry = None if row is None else row.statement()
                    if entry is None or _is_gap(entries, entry):
                        raise Corrupt(f"a log of publications before entry {number}", found="a gap")
                except (Corrupt, ValueError) as problem:
                    _log.error("a log of publications is damaged and read again: %s", problem)
                    damaged.add(_key_of(name))
                    break
                entries.append(entry)
            found[_key_of(name)] = entries
        return found, damaged

    def store_log(self, effect: StoreLog) -> None:
        """Make new entries durable, and forget those that a checkpoint has replaced."""
        table = self._log_table(_name_of(effect.key))
        kept = [each for each in effect.entries if each.body["number"] >= effect.pruned_before]
        rows = [table.change(_digits(each), _Text.of(each)) for each in kept]
        limit = f"{effect.pruned_before:012d}"
        old = [table.change(key, None) for key in table.ids() if key < limit]
        write_changes(self._tree, *rows, *old)

    def _log_table(self, name: str) -> CheckedTable[_Text]:
        return CheckedTable(self._tree, f"/peers/logs/{name}", _Text)

    def _statements(self, table: CheckedTable[_Text]) -> list[Statement]:
        """Return the statements of a table; a damaged one is left out, as others have it too."""
        found = []
        for key in table.ids():
            try:
                row = table.get(key)
                if row is not None:
                    found.append(row.statement())
            except (Corrupt, ValueError) as problem:
                _log.error("a statement of a peer is damaged: %s", problem)
        return found


def _is_gap(entries: Sequence[Statement], entry: Statement) -> bool:
    """Return whether entries are missing before one, other than those before a checkpoint."""
    is_next = not entries or entry.body["number"] == entries[-1].body["number"] + 1
    return not is_next and entry.body.get("part") != 0


def _digits(entry: Statement) -> str:
    # Not all digits: the tree would make a list of such keys.
    return f"{entry.body['number']:012d}e"


def _name_of(key: LogKey) -> str:
    return f"{key.publisher}_{_ALL if key.audience == EVERYONE else key.audience}"


def _key_of(name: str) -> LogKey:
    publisher, _, audience = name.partition("_")
    return LogKey(publisher, EVERYONE if audience == _ALL else audience)
