"""The part of a store that replication uses; `ElkynStore`, which is made above it, has all of it."""

from __future__ import annotations

from pathlib import Path as FilePath
from typing import Protocol

from elkyn.admin import StoreAdmin
from elkyn.storage.oplog import Oplog

__all__ = ["ReplicatedStore"]


class ReplicatedStore(Protocol):
    """A store that follows a leader or is followed; see `ElkynStore`."""

    namespace: str
    path: FilePath | None
    admin: StoreAdmin
    oplog: Oplog

    @property
    def position(self) -> int:
        """The number of durable writes so far."""
        ...
