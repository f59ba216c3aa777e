"""Copies of shared datasets from a bundle, which count as if a node had sent them.

Which objects a bundle may add follows from what this node knows itself: the roster, the logs and the
versions that are here. An object from it counts like one that another node has sent for the dataset
(`lake.peers.sharing.held`), since the author of the bundle had its bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable, Iterator
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from typing import TYPE_CHECKING, Any, Protocol

from lake.bundles.importing import SeedTarget
from lake.objects.durable import PLACE
from lake.peers.copies.placement import Placement
from sennit_core.errors import Conflict, Denied, StorageFull, Unavailable
from sennit_core.units import format_bytes

if TYPE_CHECKING:
    from lake.peers.copies.copies import Copies
    from lake.peers.sharing.adoption import Adoption, AdoptionHost
    from lake.peers.sharing.shared_index import SharedIndex

__all__ = ["Seeder", "Seeds"]

_CALL_SECONDS = 30.0
_LOOK_SECONDS = 1.0
_ADOPT_LOOKS = 180
"""Longer than an adoption from a writer that does not answer, which may be under way."""


class Seeds:
    """What of a bundle this node may have; used in the network's event loop.

    Args:
        node: This node's id.
        host: The network.
        adoption: Adopts what is published.
        index: The shared datasets that are here.
        copies: The copies.
        copied_bytes: Returns the bytes of these.
    """

    def __init__(
        self,
        node: str,
        host: AdoptionHost,
        adoption: Adoption,
        index: SharedIndex,
        copies: Copies,
        copied_bytes: Callable[[], int],
    ) -> None:
        self._node = node
        self._host = host
        self._adoption = adoption
        self._index = index
        self.copies = copies
        self._copied_bytes = copied_bytes

    def is_other_member(self, node: str) -> bool:
        """Return whether a node is a member, and not this one."""
        return node != self._node and self._host.roster.is_member(node)

    def target(self, dataset: str, name: str) -> SeedTarget:
        """Return what is known here of a dataset that a bundle has.

        Args:
            dataset: Its id.
            name: Its name at the node that has exported it.

        Raises:
            Denied: It is not shared with this node, or is restricted.
            Conflict: This node is not to hold copies of it.
        """
        known = self._index.get(dataset)
        if known is not None and known.writer == self._node:
            raise Conflict(f"this node writes dataset {name!r}, and has all of it")
        found = self._adoption.published_here(dataset)
        if found is None:
            raise Denied(
                f"importing dataset {name!r}, which is not shared with this node",
                needed="its owner to share it",
                hint="at the node that writes it: `platform share NAME --with NODE`",
            )
        writer, shared = found
        if shared.restricted or shared.encrypted:
            raise Denied(f"importing dataset {name!r}, whose rows its writer keeps")
        if not self._may_hold(writer, shared.placement):
            raise Conflict(
                f"this node is to hold no copies of {name!r}, and would drop them",
                hint="at the node that writes it: `platform share NAME --with NODE --hold-on NODE`",
            )
        return SeedTarget(
            dataset, name, writer, shared.version,
            frozenset((shared.manifest, *shared.manifests)),
            frozenset() if known is None else frozenset(known.names),
        )  # fmt: skip

    def _may_hold(self, writer: str, placement: Placement) -> bool:
        if self._node in placement.pins:
            return True
        is_allowed = not placement.only or self._node in placement.only
        return is_allowed and placement.factor > len({writer, *placement.pins})

    def check_room(self, size: int) -> None:
        """Refuse copies for which the node offers no room.

        Raises:
            StorageFull: It does not.
        """
        room = max(self._host.members.own.capacity - self._copied_bytes(), 0)
        if size > room:
            raise StorageFull(
                PLACE, size, room,
                message=f"the bundle needs {format_bytes(size)}, and {format_bytes(room)} are left "
                "of the room that the node offers for copies",
                hint="raise the setting storage.copy_bytes of the node",
            )  # fmt: skip

    def adopt(self, target: SeedTarget) -> None:
        """Adopt a dataset, and look which copies are missing now."""
        self._adoption.expect(target.writer, target.dataset)
        self.copies.replication.soon()

    async def adopted(self, targets: Iterable[SeedTarget]) -> None:
        """Return when the versions that were published are here."""
        for target in targets:
            await self._index.versions.wait(target.dataset, target.version)


class SeededExchange(Protocol):
    """What a seeder needs of `lake.peers.exchange.Exchange`."""

    @property
    def seeds(self) -> Seeds:
        """What of a bundle the node may have."""
        ...


class SeededNetwork(Protocol):
    """What a seeder needs of the network."""

    @property
    def exchange(self) -> SeededExchange | None:
        """The shared datasets of the node's lake; None if it has none."""
        ...


class Seeder:
    """See `lake.bundles.importing.Seeder`; for any thread but the loop's.

    Args:
        submit: Runs a coroutine in the loop.
        network: Returns the network; None while the node is in none.
    """

    def __init__(
        self,
        submit: Callable[[Coroutine[Any, Any, Any]], Future[Any]],
        network: Callable[[], SeededNetwork | None],
    ) -> None:
        self._submit = submit
        self._network = network

    def is_other_member(self, node: str) -> bool:
        """Return whether a node is a member, and not this one."""
        seeds = self._seeds()
        return seeds is not None and bool(self._call(lambda: seeds.is_other_member(node)))

    def was_received(self, dataset: str, name: str) -> bool:
        """Return whether another node has sent an object as one of a dataset."""
        seeds = self._seeds()
        return seeds is not None and seeds.copies.held.was_received(dataset, name)

    def target(self, dataset: str, name: str) -> SeedTarget:
        """Return what is known here of a dataset; raises as `Seeds.target`."""
        seeds = self._required()
        found: SeedTarget = self._call(lambda: seeds.target(dataset, name))
        return found

    def check_room(self, size: int) -> None:
        """Refuse copies for which the node offers no room; raises as `Seeds.check_room`."""
        seeds = self._required()
        self._call(lambda: seeds.check_room(size))

    def receive(self, target: SeedTarget, names: Iterable[str]) -> None:
        """Note objects as those of a dataset, and adopt it; raises as `Seeds.target`."""
        seeds = self._required()
        self.target(target.dataset, target.name)  # it may have been withdrawn meanwhile
        seeds.copies.held.receive(target.dataset, *names)
        self._call(lambda: seeds.adopt(target))

    def await_adoption(self, targets: Iterable[SeedTarget]) -> Iterator[None]:
        """Wait until the newest versions are here; yield each second.

        Raises:
            Unavailable: One is not, after three minutes.
        """
        future = self._submit(self._required().adopted(targets))
        try:
            for _ in range(_ADOPT_LOOKS):
                try:
                    future.result(_LOOK_SECONDS)
                except FutureTimeout:
                    yield
                else:
                    return
        finally:
            future.cancel()
        raise Unavailable(
            "the newest version of a dataset of the bundle",
            hint="it is newer than the bundle: import it again when its writer can be reached",
        )

    def _seeds(self) -> Seeds | None:
        network = self._network()
        return None if network is None or network.exchange is None else network.exchange.seeds

    def _required(self) -> Seeds:
        seeds = self._seeds()
        if seeds is None:
            raise Conflict("this node has left its network", hint="import the bundle again")
        return seeds

    def _call(self, compute: Callable[[], Any]) -> Any:
        async def run() -> Any:
            return compute()

        return self._submit(run()).result(_CALL_SECONDS)
