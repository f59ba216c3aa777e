"""What a node shares: rows of the tree, and how it describes a shared dataset to others.

A dataset is private, and no other node learns that it exists, until it is shared with some nodes or with
all. What is published is the newest snapshot, by the object id of its manifest, so that a reader can
verify everything below it, and where copies are to be.

A dataset that is encrypted or has an access policy is shared *restricted*: none of its objects leaves this
node, and each other node has in a log of its own the name, the columns, and which of its users see what.
Queries of these users run here, under the policy (`lake.peers.queries.restricted`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from elkyn.records import CheckedTable
from lake.access.policies import Policies
from lake.access.rules import RULES_MAX, Access, Policy
from lake.catalog.catalog import Catalog
from lake.catalog.file_schemas import column_ids
from lake.distributed.foreign_users import SharedRule, rules_for
from lake.distributed.fork_origins import ForkOrigin, ForkOrigins
from lake.peers.copies.placement import Placement
from lake.peers.handovers.handovers import HANDOVERS_MAX
from lake.peers.handovers.rows import HandOverTable
from lake.peers.sharing.ciphertext import Ciphertexts
from lake.peers.sharing.publications import EVERYONE
from lake.peers.transport.signed import Statement
from lake.views.views import NO_COLUMNS
from sennit_core.errors import (
    Conflict,
    Corrupt,
    Denied,
    SennitError,
    StorageFull,
    Unsupported,
    UsageError,
)
from sennit_core.ids import is_id
from sennit_core.logs import get_logger
from sennit_core.records import DatasetInfo, Record
from sennit_core.schema import Schema

if TYPE_CHECKING:
    from elkyn import ElkynStore
    from elkyn.records import Change

__all__ = [
    "DATASETS_MAX",
    "VERSIONS_KEPT",
    "ShareInfo",
    "SharedDataset",
    "Shares",
    "Wanted",
    "read_shared",
]

_log = get_logger(__name__)
VERSIONS_KEPT = 8
"""The newest versions of a dataset, which its readers have."""
DATASETS_MAX = 2000
_COLUMNS_MAX = 2000
_NODES_MAX = 200
"""Together what fits into a log of publications (`LOG_BYTES_MAX`): each node has 64 digits."""


@dataclass(frozen=True, slots=True)
class ShareInfo(Record):
    """How a dataset of this node is shared.

    Args:
        dataset: Its id.
        nodes: The ids of the nodes that may read and hold it; `*` alone for all members.
        placement: Where copies are to be.
        read_only: Whether the nodes only read it; else their users may change its rows.
    """

    dataset: str
    nodes: tuple[str, ...]
    placement: Placement
    # Rows of earlier versions, in which all shares were read only, have no such member.
    read_only: bool = True

    def is_with(self, node: str) -> bool:
        """Return whether it is shared with a node."""
        return EVERYONE in self.nodes or node in self.nodes

    def accepts_changes_of(self, node: str) -> bool:
        """Return whether this node makes changes for a node: it must be named."""
        return not self.read_only and node in self.nodes

    @property
    def audiences(self) -> tuple[str, ...]:
        """The logs in which it is published."""
        return (EVERYONE,) if EVERYONE in self.nodes else self.nodes


@dataclass(frozen=True, slots=True)
class SharedDataset(Record):
    """A dataset as its writer describes it.

    Args:
        id: Its id.
        name: Its name at the writer.
        owner: Its owner there.
        head: The newest snapshot; "" if it is restricted.
        manifest: Object id of its manifest; "" if it is restricted.
        version: Its number; 1 if it is restricted.
        created_at: Unix seconds of the dataset's creation.
        nodes: As of `ShareInfo`; if it is restricted, the node that this is for.
        placement: Where copies are to be.
        manifests: Those of the newest versions that the writer has, which readers keep too; empty
            if it is restricted, or the writer is of an earlier version.
        restricted: Whether its rows are read by queries at the writer alone.
        columns: Those that some user of that node sees.
        rules: What its users see.
        read_only: As of `ShareInfo`.
        encrypted: Whether it is the ciphertext of a dataset, which only its writer can read.
        handovers: The statements by which its writer is the one, the oldest first; of a node that has
            handed it over, those by which another one is.
        purges: How often rows were purged; readers keep nothing of before the last time.
        fork: What it is a fork of; None if it is none, or is restricted.
    """

    id: str
    name: str
    owner: str
    head: str
    manifest: str
    version: int
    created_at: float
    nodes: tuple[str, ...]
    placement: Placement
    manifests: tuple[str, ...] = ()
    restricted: bool = False
    columns: Schema = NO_COLUMNS
    rules: tuple[SharedRule, ...] = ()
    read_only: bool = True
    encrypted: bool = False
    handovers: tuple[Statement, ...] = ()
    purges: int = 0
    fork: ForkOrigin | None = None

    def accepts_changes_of(self, node: str) -> bool:
        """Return whether the writer makes changes for a node."""
        return not self.read_only and node in self.nodes

    def check(self) -> None:
        """Refuse a description that no writer of this version makes.

        Raises:
            UsageError: A member is out of range.
        """
        self.placement.check()
        is_named = is_id(self.id) and 0 < len(self.name) <= 128 and len(self.owner) <= 255
        if not is_named or self.version < 1:
            raise UsageError(f"the description of dataset {self.id[:40]} is not valid")
        is_long = len(self.columns) > _COLUMNS_MAX or len(self.rules) > RULES_MAX
        is_long = is_long or len(self.handovers) > HANDOVERS_MAX
        if is_long or len(self.manifests) > VERSIONS_KEPT:
            raise UsageError(f"the description of dataset {self.id[:40]} is too long")
        if self.fork is not None:
            self.fork.check()


@dataclass(slots=True)
class Wanted:
    """What a node's logs are to say.

    Args:
        items: The descriptions of datasets, by the audience and the dataset's id.
        moved: Those of datasets that this node has handed over, in the same way.
        damaged: Shared datasets that cannot be described, with their audiences; None if these are not known
            either.
    """

    items: dict[tuple[str, str], SharedDataset] = field(default_factory=dict)
    moved: dict[tuple[str, str], SharedDataset] = field(default_factory=dict)
    damaged: dict[str, tuple[str, ...] | None] = field(default_factory=dict)

    def keeps(self, audience: str, dataset: str) -> bool:
        """Return whether a dataset that is published for an audience is to stay so."""
        if dataset in self.damaged:
            audiences = self.damaged[dataset]
            return audiences is None or audience in audiences
        return (audience, dataset) in self.items or (audience, dataset) in self.moved


class Shares:
    """The datasets that a node shares.

    Args:
        tree: The namespace `sys`.
        catalog: The datasets.
        policies: Access policies.
        ciphertexts: What is published of encrypted datasets for copies.
        handovers: Which datasets were handed over.
    """

    def __init__(
        self,
        tree: ElkynStore,
        catalog: Catalog,
        policies: Policies,
        ciphertexts: Ciphertexts,
        handovers: HandOverTable,
    ) -> None:
        self._handovers = handovers
        self.forks = ForkOrigins(tree)
        """What datasets of this node are forks of."""
        self.ciphertexts = ciphertexts
        self._table = CheckedTable(tree, "/shares", ShareInfo)
        self._catalog = catalog
        self._policies = policies
        # The manifests of the newest versions of each dataset, and what they were computed from.
        self._histories: dict[str, tuple[tuple[str, int], tuple[str, ...]]] = {}

    def all(self) -> dict[str, ShareInfo]:
        """Return how datasets are shared, by the id of the dataset."""
        return self._table.all()

    def get(self, dataset_id: str) -> ShareInfo | None:
        """Return how a dataset is shared; None if it is private."""
        return self._table.get(dataset_id)

    def set(
        self, dataset: str, nodes: Iterable[str], placement: Placement, *, read_only: bool
    ) -> ShareInfo:
        """Share a dataset of this node.

        Args:
            dataset: Id or name.
            nodes: The ids of nodes, or `*`.
            placement: Where copies are to be.
            read_only: Whether they only read it.

        Raises:
            NotFound: There is no such dataset.
            UsageError: All nodes were to change it.
            Denied: Another node writes it.
            Conflict: This node shares too many datasets, or this one with too many nodes by name.
            Unsupported: It is a linked file not yet ingested.
        """
        placement.check()
        info = self._catalog.get(dataset)
        if info.node is not None:
            raise Denied(
                f"sharing dataset {info.name!r}, which another node writes",
                hint="its owner there shares it; `platform fork` makes one of your own",
            )
        what = f"sharing dataset {info.name!r}"
        if info.head is None:
            raise Unsupported(f"{what}, which has no rows yet", hint="wait until it is ingested")
        found = ShareInfo(info.id, tuple(dict.fromkeys(nodes)), placement, read_only)
        if len(found.nodes) > _NODES_MAX:
            raise Conflict(f"{what} with {len(found.nodes)} nodes", hint="--with all")
        shared = self._table.ids()
        if info.id not in shared and len(shared) >= DATASETS_MAX:
            raise Conflict(
                f"this node shares {DATASETS_MAX} datasets, the most that are possible",
                hint="make one private: platform unshare",
            )
        if not found.nodes:
            raise UsageError(
                "a dataset is shared with at least one node", hint="--with NODE or all"
            )
        if EVERYONE in found.nodes and not read_only:
            raise UsageError(
                "a dataset that is shared with all nodes is read only",
                hint="name the nodes whose users may change it: --with NODE",
            )
        self._table.put(info.id, found)
        return found

    def remove(self, dataset: str) -> ShareInfo | None:
        """Make a dataset private again; return how it was shared.

        Args:
            dataset: Id or name.

        Raises:
            Conflict: It is being handed over.
        """
        info = self._catalog.get(dataset)
        dataset_id = info.id
        if self._handovers.is_frozen(dataset_id):
            raise Conflict(
                f"making dataset {info.name!r} private, which is being handed over",
                hint="undo that: platform hand-over NAME --undo",
            )
        known = self._table.get(dataset_id)
        if known is not None:
            self._table.remove(dataset_id)
        return known

    def change(self, dataset_id: str, share: ShareInfo | None) -> Change:
        """Return what writes how a dataset is shared in one write with others; None makes it private."""
        return self._table.change(dataset_id, share)

    def clear(self) -> None:
        """Make all datasets private, whether or not their rows can be read."""
        for dataset_id in self._table.ids():
            self._table.remove(dataset_id)

    def is_open(self, dataset_id: str) -> bool:
        """Return whether the objects of a dataset may go to the nodes that it is shared with."""
        try:
            info = self._catalog.find(dataset_id)
        except Corrupt:  # it may be encrypted
            return False
        return info is not None and self._policies.is_open(info)

    def wanted(self, members: Sequence[str]) -> Wanted:
        """Return what the logs of this node are to say.

        A dataset that was deleted is private from now on.

        Args:
            members: The other nodes of the network.

        Raises:
            Corrupt: It is not known which datasets are shared.
        """
        found = Wanted()
        for dataset_id in self._table.ids():
            audiences: tuple[str, ...] | None = None
            try:
                share = self._table.get(dataset_id)
                if share is None:
                    continue
                audiences = share.audiences
                described = self._describe(dataset_id, share, members)
            except Corrupt as problem:
                _log.warning("a shared dataset stays as it was published: %s", problem)
                found.damaged[dataset_id] = audiences
                with suppress(Corrupt):
                    if (ciphertext := self.ciphertexts.find_id(dataset_id)) is not None:
                        found.damaged[ciphertext] = audiences
                continue
            if described is None:
                with suppress(StorageFull):  # it is withdrawn all the same
                    self._table.remove(dataset_id)
                    self._handovers.remove(dataset_id)
                continue
            for audience, shared in described:
                found.items[audience, shared.id] = shared
        self._add_moved(found)
        self._forget_ciphertexts(found)
        return found

    def _add_moved(self, wanted: Wanted) -> None:
        """Add what this node says of datasets that it has handed over: which node writes them.

        A withdrawal would make readers delete them which have not yet seen what that node publishes.
        """
        for dataset_id in self._handovers.ids():
            try:
                row = self._handovers.get(dataset_id)
                info = self._catalog.find_known(dataset_id) if row.audiences else None
            except Corrupt as problem:
                _log.warning("what is published of a dataset stays as it was: %s", problem)
                wanted.damaged.setdefault(dataset_id, None)
                continue
            if info is None or info.node is None:
                continue
            # Without a version, which only the next writer knows.
            moved = SharedDataset(
                dataset_id, info.name, "", "", "", 1, info.created_at, row.audiences, Placement(),
                handovers=row.chain,
            )  # fmt: skip
            wanted.moved |= {(audience, dataset_id): moved for audience in row.audiences}

    def _forget_ciphertexts(self, wanted: Wanted) -> None:
        ids = {shared.id for shared in wanted.items.values() if shared.encrypted}
        with suppress(Corrupt, StorageFull):  # later
            self.ciphertexts.keep(ids | wanted.damaged.keys())

    def _describe(
        self, dataset_id: str, share: ShareInfo, members: Sequence[str]
    ) -> list[tuple[str, SharedDataset]] | None:
        """Return the audiences of a dataset with its descriptions; None if it was deleted."""
        info = self._catalog.find(dataset_id)
        if info is None or info.head is None:
            return None
        chain = self._handovers.get(dataset_id).chain
        policy = self._policies.get(dataset_id)
        if policy is None and not info.encrypted:
            manifest, version = self._catalog.adopter.manifest_of(info, info.head)
            whole = SharedDataset(
                info.id, info.name, info.owner, info.head, manifest, version, info.created_at,
                share.nodes, share.placement, self._newest(info.id, manifest),
                read_only=share.read_only, handovers=chain,
                purges=self._catalog.adopter.purge_count(info.id), fork=self.forks.get(info.id),
            )  # fmt: skip
            return [(audience, whole) for audience in share.audiences]
        found: list[tuple[str, SharedDataset]] = []
        if info.encrypted and share.placement.is_elsewhere:
            held = self.ciphertexts.current(info)
            ciphertext = SharedDataset(
                held.id, f"ciphertext-{held.id}", "", held.snapshot, held.manifest, held.version,
                info.created_at, share.nodes, share.placement, encrypted=True,
            )  # fmt: skip
            found += [(audience, ciphertext) for audience in share.audiences]
        if policy is not None and self._is_outdated(info, policy):
            return found
        # In a log for each node, as others do not see the same of it.
        nodes = members if EVERYONE in share.nodes else share.nodes
        shown = [(node, _shown_to(info, share, policy, node)) for node in nodes]
        return found + [
            (node, replace(shared, handovers=chain)) for node, shared in shown if shared is not None
        ]

    def _newest(self, dataset_id: str, head: str) -> tuple[str, ...]:
        """Return the manifests of the newest versions of a dataset."""
        # All changes of a history change its head's manifest, or, as expiry does, its length.
        state = (head, self._catalog.adopter.count_of(dataset_id))
        known = self._histories.get(dataset_id)
        if known is None or known[0] != state:
            found = self._catalog.adopter.newest_manifests(dataset_id, VERSIONS_KEPT)
            known = self._histories[dataset_id] = (state, found)
        return known[1]

    def _is_outdated(self, info: DatasetInfo, policy: Policy) -> bool:
        """Return whether a column of the policy is another one now, whose name may be a hidden one."""
        head = self._catalog.manifest(info.id).snapshot
        ids = dict(zip(head.schema.names, column_ids(head), strict=True))
        named = {column.name for rule in policy.rules for column in rule.columns}
        try:
            Access(rows="true", known=policy.columns).check_columns(info.name, ids)
        except SennitError:
            return True
        return not named <= ids.keys()


def _shown_to(
    info: DatasetInfo, share: ShareInfo, policy: Policy | None, node: str
) -> SharedDataset | None:
    """Return the description of a restricted dataset for a node; None if none of its users sees it."""
    # Of an encrypted dataset without a policy, every user of the nodes that it is shared with sees all.
    rules = (SharedRule("*"),) if policy is None else tuple(rules_for(policy, node))
    names = info.schema.names
    seen = {name for rule in rules if rule.read for name in names if name not in rule.hidden}
    if not seen:
        return None
    columns = Schema(tuple(field for field in info.schema if field.name in seen))
    # Without the names of columns that none of its users sees.
    rules = tuple(replace(r, hidden=tuple(n for n in r.hidden if n in seen)) for r in rules)
    return SharedDataset(
        info.id, info.name, info.owner, "", "", 1, info.created_at, (node,), share.placement,
        restricted=True, columns=columns, rules=rules,
    )  # fmt: skip


def read_shared(item: Mapping[str, Any], dataset: str) -> SharedDataset:
    """Return the description of a dataset that another node has published.

    Raises:
        SennitError: It is not one, or of another dataset.
    """
    found = SharedDataset.from_known(item)
    found.check()
    if found.id != dataset:
        raise UsageError(f"the description of dataset {dataset[:40]} is of another one")
    return found
