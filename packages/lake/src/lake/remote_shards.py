"""Shards of datasets that other nodes write, which this node may not have."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from typing import Any

from lake.objects import ObjectStore
from sennit_core.errors import Unavailable

__all__ = ["RemoteShards"]

Fetch = Callable[[Collection[str]], object]
Distribute = Callable[..., Any]
"""See `lake.peers.service.PeerService.distribute`; returns a `lake.peers.distributed_query.Distributed`."""


class RemoteShards:
    """Fetches what a reader needs, or lets the nodes that have it compute.

    The network sets `fetch` and `distribute` when the node takes part in one.

    Args:
        objects: The store.
    """

    def __init__(self, objects: ObjectStore) -> None:
        self._objects = objects
        self.fetch: Fetch = _refuse
        self.distribute: Distribute = _distribute_nothing

    def lacks_any(self, names: Iterable[str]) -> bool:
        """Return whether an object is not here."""
        return any(name not in self._objects for name in names)

    def ensure(self, names: Iterable[str]) -> None:
        """Fetch the objects that are not here; the caller holds a lease on all of them.

        Raises:
            Unavailable: No node that can be reached has one of them.
            DeadlineExceeded: It took too long.
        """
        missing = [name for name in names if name not in self._objects]
        if missing:
            self.fetch(missing)


def _distribute_nothing(*_arguments: object, **_options: object) -> None:
    return None


def _refuse(names: Collection[str]) -> None:
    raise Unavailable(
        f"{len(names)} shards that are on other nodes",
        hint="open the lake as a node of its network: platform up",
    )
