"""Datasets that other nodes write: their shards, which this node may not have, and changes of them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from lake.distributed.staged_inputs import StagedInput
from lake.objects.store import ObjectStore
from lake.peers.transport.stop import Stop
from lake.statements.limits import Requester
from sennit_core.errors import Denied, Unavailable
from sennit_core.records import DatasetInfo
from sennit_core.schema import Schema

if TYPE_CHECKING:
    from lake.distributed.network_jobs import NetworkJobs

__all__ = ["Changed", "ForeignChange", "RemoteShards", "RestrictedColumns", "RestrictedRows"]


@dataclass(frozen=True, slots=True)
class ForeignChange:
    """A change of a dataset that is sent to its writer.

    Args:
        dataset: Id of the dataset.
        name: Its name in the statement.
        sql: The statement.
        params: Its parameters as JSON; "" for none.
        user: The user; at the writer with the name `user@node`, and the node.
        seconds: The time limit.
        place: File for the rows of RETURNING, as an Arrow IPC stream; None if it has none.
        max_rows: Row limit of these.
        inputs: Tables of the statement whose rows the writer fetches from here; they are leased.
        id: Names the change in a repetition of it by another process of this node; "" for a new one.
        expires_at: Unix seconds until which it is repeated; None for soon after the time limit.
        appends: Whether it only adds rows, whatever the dataset has, so that it may wait.
        queue: Whether it waits here if the writer is away (`lake.distributed.queued_appends`).
        is_repeated: Whether another process of this node may send it again after it was made.
    """

    dataset: str
    name: str
    sql: str
    params: str
    user: Requester
    seconds: float
    place: Path | None = None
    max_rows: int | None = None
    inputs: tuple[StagedInput, ...] = ()
    id: str = ""
    expires_at: float | None = None
    appends: bool = False
    queue: bool = False
    is_repeated: bool = False


@dataclass(frozen=True, slots=True)
class Changed:
    """A change that the writer of a dataset has made, or that waits for it.

    Args:
        version: Of a snapshot with the change.
        count: The number of changed rows.
        is_here: Whether that snapshot has reached this node.
        queued: The id of the change if it waits here instead; "" if it is made.
    """

    version: int
    count: int
    is_here: bool
    queued: str = ""


class Fetch(Protocol):
    """See `lake.peers.service.PeerService.fetch`."""

    def __call__(
        self,
        objects: Collection[str],
        /,
        *,
        dataset: str | None = None,
        seconds: float | None,
        stop: Stop | None,
    ) -> object:
        """Fetch objects; blocks."""
        ...


Distribute = Callable[..., Any]
"""See `lake.peers.service.PeerService.distribute`; returns a `lake.peers.queries.distributed_query.Distributed`."""

Change = Callable[[ForeignChange], "Future[Changed]"]
"""See `lake.peers.service.PeerService.change`."""


@dataclass(frozen=True, slots=True)
class RestrictedColumns:
    """What a user sees of a dataset that its writer restricts.

    Args:
        dataset: Its id.
        writer: The node that writes it.
        user: The user.
        snapshot: Its newest snapshot.
        columns: The columns that the user sees.
        secret: Whether it is encrypted there, so that no row may be on a disk in the clear.
    """

    dataset: str
    writer: str
    user: Requester
    snapshot: str
    columns: Schema
    secret: bool


class RestrictedRows(Protocol):
    """Reads datasets of which the writer sends only what a user may see."""

    def describe(self, dataset: str, writer: str, user: Requester) -> RestrictedColumns:
        """Return what a user sees of a dataset.

        Raises:
            NotFound: There is none, as far as the user can know.
            Unavailable: The writer cannot be reached.
        """
        ...

    def query(
        self,
        sql: str,
        tables: Mapping[str, RestrictedColumns],
        place: Path,
        seconds: float,
        stop: Stop,
    ) -> None:
        """Write what a query for a user returns at the writer to a file, as an Arrow IPC stream.

        Args:
            sql: The query.
            tables: The datasets of one writer that it reads, by their names in it.
            place: The file.
            seconds: Its time limit.
            stop: Stops it.

        Raises:
            SennitError: The error of the query, and as `describe`.
        """
        ...

    def read(self, table: RestrictedColumns, place: Path, bytes_max: int | None) -> None:
        """Write the rows that a user sees to a Parquet file.

        Raises:
            StorageFull: They have more than `bytes_max` bytes, or the disk has no room for them.
            SennitError: As `describe`.
        """
        ...


class RemoteShards:
    """Fetches what a reader needs, or lets the nodes that have it compute; lets writers change it.

    The network sets the functions when the node takes part in one.

    Args:
        objects: The store.
    """

    def __init__(self, objects: ObjectStore) -> None:
        self._objects = objects
        self.fetch: Fetch = _refuse
        self.distribute: Distribute = _distribute_nothing
        self.restricted: RestrictedRows = _NoNetwork()
        # Runs tasks of jobs at other nodes; None until there is a network to be in.
        self.jobs: NetworkJobs | None = None
        # Deletes a dataset, by its id or name, whose writer was removed from the network.
        self.delete: Callable[[str], DatasetInfo] = _delete_nothing
        # Returns the id of another member of the network by its name; None if there is none.
        self.find_node: Callable[[str], str | None] = lambda _name: None
        # Of a dataset and an object: whether a node has sent the object as one of the dataset.
        self.was_received: Callable[[str, str], bool] = lambda _dataset, _name: False
        # Whether this node wrote a dataset until it handed it over, and follows no other writer yet.
        self.has_written: Callable[[str], bool] = lambda _dataset: False
        self.change: Change = _change_nothing
        self.accepts_changes: Callable[[str], bool] = lambda _dataset: False
        """Whether the writer of a dataset makes changes for users of this node."""
        self.is_shared: Callable[[str], bool] = lambda _name: False
        """Whether an object is a shard of a dataset of the network, so that other nodes may have it."""
        self.may_have: Callable[[str, str], bool] = lambda _dataset, _node: False
        """Whether a node may have the rows of a dataset that another node writes."""

    def lacks_any(self, names: Iterable[str]) -> bool:
        """Return whether an object is not here."""
        return any(name not in self._objects for name in names)

    def ensure(
        self, names: Iterable[str], *, seconds: float | None = None, stop: Stop | None = None
    ) -> None:
        """Fetch the objects that are not here; the caller holds a lease on all of them.

        Args:
            names: Their ids.
            seconds: The longest time to wait; None for that of the network.
            stop: Stops it.

        Raises:
            Cancelled: It was stopped.
            Unavailable: No node that can be reached has one of them.
            DeadlineExceeded: It took too long.
        """
        missing = [name for name in names if name not in self._objects]
        if missing:
            self.fetch(missing, seconds=seconds, stop=stop)

    def ensure_received(self, dataset: DatasetInfo, names: Collection[str]) -> None:
        """Fetch objects of a dataset that another node writes, also those that are here for another one.

        A manifest may list the id of an object that is here and private (design 0151). A caller
        that sends the objects to others, or makes them part of a dataset of this node, uses this.

        Raises:
            Unavailable: No node that can be reached sends one of them as an object of the dataset.
        """
        # Its own manifests name its own shards, which no other node may have.
        is_own = self.has_written(dataset.id)
        unproven = [
            name
            for name in names
            if name not in self._objects or not (is_own or self.was_received(dataset.id, name))
        ]
        if unproven:
            self.fetch(unproven, dataset=dataset.id, seconds=None, stop=None)


class _NoNetwork:
    def describe(self, dataset: str, writer: str, user: Requester) -> RestrictedColumns:
        raise _no_network(f"dataset {dataset}, whose rows node {writer[:16]} has")

    def query(
        self,
        sql: str,
        tables: Mapping[str, RestrictedColumns],
        place: Path,
        seconds: float,
        stop: Stop,
    ) -> None:
        raise AssertionError("nothing was described")

    def read(self, table: RestrictedColumns, place: Path, bytes_max: int | None) -> None:
        raise AssertionError("nothing was described")


def _distribute_nothing(*_arguments: object, **_options: object) -> None:
    return None


def _delete_nothing(dataset: str) -> DatasetInfo:
    raise Denied(
        f"deleting dataset {dataset!r}, which another node writes",
        needed="the network, which knows whether that node was removed",
        hint="delete it at a running node: platform datasets NAME --delete",
    )


def _change_nothing(change: ForeignChange) -> Future[Changed]:
    raise Unavailable(f"the writer of dataset {change.name!r}", hint="this node is in no network")


def _refuse(names: Collection[str], /, **_options: object) -> None:
    raise _no_network(f"{len(names)} shards that are on other nodes")


def _no_network(what: str) -> Unavailable:
    return Unavailable(what, hint="open the lake as a node of its network: platform up")
