"""For tests of Elytra and of its backends; ships with the package."""

from elytra.testing.backend_contract import BackendContract, BackendWorld
from elytra.testing.opened_world import open_world

__all__ = ["BackendContract", "BackendWorld", "open_world"]
