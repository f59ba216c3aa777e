"""The backends that a node opens: one entry for each."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from elytra.backends import Backend, NodeParts
from elytra.backends.local import LocalBackend
from elytra.backends.peers import PeersBackend
from elytra.backends.remote.backend import RemoteBackend

__all__ = ["BACKENDS", "OpenBackend"]

OpenBackend = Callable[[NodeParts], Backend]

BACKENDS: Mapping[str, OpenBackend] = {
    LocalBackend.name: LocalBackend,
    PeersBackend.name: PeersBackend,
    RemoteBackend.name: RemoteBackend,
}
"""By the engine that submissions name, which must be one of `ENGINES`. A node that uses a Ray cluster has
`elytra.backends.ray.RayBackend` too."""
