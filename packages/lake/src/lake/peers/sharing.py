"""What a node shares: rows of the tree, and how it describes a shared dataset to others.

A dataset is private, and no other node learns that it exists, until it is shared with some nodes or with
all. What is published is the newest snapshot, by the object id of its manifest, so that a reader can
verify everything below it, and where copies are to be.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from elkyn.records import CheckedTable
from lake.catalog import Catalog
from lake.peers.placement import Placement
from lake.peers.publications import EVERYONE
from lake.policies import Policies
from sennit_core.errors import Conflict, Corrupt, Denied, StorageFull, Unsupported, UsageError
from sennit_core.ids import is_id
from sennit_core.logs import get_logger
from sennit_core.records import Record

if TYPE_CHECKING:
    from elkyn import ElkynStore

__all__ = ["ShareInfo", "SharedDataset", "Shares", "Wanted", "read_shared"]

_log = get_logger(__name__)
_DATASETS_MAX = 2000
_NODES_MAX = 200
"""Together what fits into a log of publications (`LOG_BYTES_MAX`): each node has 64 digits."""


@dataclass(frozen=True, slots=True)
class ShareInfo(Record):
    """How a dataset of this node is shared.

    Args:
        dataset: Its id.
        nodes: The ids of the nodes that may read and hold it; `*` alone for all members.
        placement: Where copies are to be.
    """

    dataset: str
    nodes: tuple[str, ...]
    placement: Placement

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
        head: The newest snapshot.
        manifest: Object id of its manifest.
        version: Its number.
        created_at: Unix seconds of the dataset's creation.
        nodes: As of `ShareInfo`.
        placement: Where copies are to be.
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

    def check(self) -> None:
        """Refuse a description that no writer of this version makes.

        Raises:
            UsageError: A member is out of range.
        """
        self.placement.check()
        is_named = is_id(self.id) and 0 < len(self.name) <= 128 and len(self.owner) <= 255
        if not is_named or self.version < 1:
            raise UsageError(f"the description of dataset {self.id[:40]} is not valid")


@dataclass(slots=True)
class Wanted:
    """What a node's logs are to say.

    Args:
        items: The descriptions of datasets, by the audience and the dataset's id.
        damaged: Shared datasets that cannot be described, with their audiences; None if these are not known
            either.
    """

    items: dict[tuple[str, str], SharedDataset] = field(default_factory=dict)
    damaged: dict[str, tuple[str, ...] | None] = field(default_factory=dict)

    def keeps(self, audience: str, dataset: str) -> bool:
        """Return whether a dataset that is published for an audience is to stay so."""
        if dataset in self.damaged:
            audiences = self.damaged[dataset]
            return audiences is None or audience in audiences
        return (audience, dataset) in self.items


class Shares:
    """The datasets that a node shares.

    Args:
        tree: The namespace `sys`.
        catalog: The datasets.
        policies: Access policies; a dataset with one cannot be shared in this version.
    """

    def __init__(self, tree: ElkynStore, catalog: Catalog, policies: Policies) -> None:
        self._table = CheckedTable(tree, "/shares", ShareInfo)
        self._catalog = catalog
        self._policies = policies

    def all(self) -> dict[str, ShareInfo]:
        """Return how datasets are shared, by the id of the dataset."""
        return self._table.all()

    def get(self, dataset_id: str) -> ShareInfo | None:
        """Return how a dataset is shared; None if it is private."""
        return self._table.get(dataset_id)

    def set(self, dataset: str, nodes: Iterable[str], placement: Placement) -> ShareInfo:
        """Share a dataset of this node.

        Args:
            dataset: Id or name.
            nodes: The ids of nodes, or `*`.
            placement: Where copies are to be.

        Raises:
            NotFound: There is no such dataset.
            Denied: Another node writes it.
            Conflict: This node shares too many datasets, or this one with too many nodes by name.
            Unsupported: It is encrypted, has an access policy, or is a linked file not yet ingested.
        """
        placement.check()
        info = self._catalog.get(dataset)
        if info.node is not None:
            raise Denied(f"sharing dataset {info.name!r}, which another node writes")
        what = f"sharing dataset {info.name!r}"
        if info.encrypted:
            raise Unsupported(f"{what}, which is encrypted: other nodes have no key of it")
        if self._policies.get(info.id) is not None:
            raise Unsupported(
                f"{what}, which has an access policy: other nodes would hold all of its rows",
                hint="create a table of the rows that they may see, and share that",
            )
        if info.head is None:
            raise Unsupported(f"{what}, which has no rows yet", hint="wait until it is ingested")
        found = ShareInfo(info.id, tuple(dict.fromkeys(nodes)), placement)
        if len(found.nodes) > _NODES_MAX:
            raise Conflict(f"{what} with {len(found.nodes)} nodes", hint="--with all")
        shared = self._table.ids()
        if info.id not in shared and len(shared) >= _DATASETS_MAX:
            raise Conflict(
                f"this node shares {_DATASETS_MAX} datasets, the most that are possible",
                hint="make one private: platform unshare",
            )
        if not found.nodes:
            raise UsageError(
                "a dataset is shared with at least one node", hint="--with NODE or all"
            )
        self._table.put(info.id, found)
        return found

    def remove(self, dataset: str) -> ShareInfo | None:
        """Make a dataset private again; return how it was shared.

        Args:
            dataset: Id or name.
        """
        dataset_id = self._catalog.get(dataset).id
        known = self._table.get(dataset_id)
        if known is not None:
            self._table.remove(dataset_id)
        return known

    def clear(self) -> None:
        """Make all datasets private, whether or not their rows can be read."""
        for dataset_id in self._table.ids():
            self._table.remove(dataset_id)

    def wanted(self) -> Wanted:
        """Return what the logs of this node are to say.

        A dataset that was deleted, or has got a policy meanwhile, is private from now on.

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
                described = self._describe(dataset_id, share)
            except Corrupt as problem:
                _log.warning("a shared dataset stays as it was published: %s", problem)
                found.damaged[dataset_id] = audiences
                continue
            if described is None:
                with suppress(StorageFull):  # it is withdrawn all the same
                    self._table.remove(dataset_id)
                continue
            for audience in audiences:
                found.items[audience, dataset_id] = described
        return found

    def _describe(self, dataset_id: str, share: ShareInfo) -> SharedDataset | None:
        info = self._catalog.find(dataset_id)
        if info is None or info.head is None or self._policies.get(dataset_id) is not None:
            return None
        manifest, version = self._catalog.adopter.manifest_of(info, info.head)
        return SharedDataset(
            info.id, info.name, info.owner, info.head, manifest, version, info.created_at,
            share.nodes, share.placement,
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
