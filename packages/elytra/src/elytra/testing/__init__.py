"""For tests of Elytra and of its backends; ships with the package."""

from elytra.testing.backend_contract import BackendContract, BackendWorld

__all__ = ["BackendContract", "BackendWorld"]
