"""Which Ray cluster a node uses, and what its workers may use."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from typing import Any

from sennit_core.errors import UsageError

__all__ = ["AUTO", "RayOptions"]

AUTO = "auto"
"""The cluster that runs on this machine, or one that the node starts for itself."""

_MIB = 1 << 20
_ADDRESS = re.compile(
    r"(?P<host>[A-Za-z0-9.-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\]):(?P<port>[0-9]{1,5})"
)


@dataclass(frozen=True, slots=True)
class RayOptions:
    """The cluster and its limits; an instance is always valid.

    Args:
        address: "auto", or "HOST:PORT" of the head of a cluster.
        workers: Workers on each machine at most; None for one per CPU that Ray has there.
        worker_bytes: Memory cap of each worker's executor.
        object_store_bytes: Memory of the object store of a cluster that the node starts.
        shuffle_bytes: From which size of its inputs a plan that is not split by shards runs on all
            workers.
        broadcast_bytes: Up to which size one side of a join is sent to all workers, so that the rows of the
            other side stay where they are. Each worker builds a table of it for each part of the other side.
        functions: What Python functions of plans may use (`FunctionLimits.to_json`); None if none run.
            A node's backend has those of the node.
        scratch: Parent of the workers' folders; None for the temporary folder of each machine.

    Raises:
        UsageError: The address does not have its form, or a limit is not positive.
    """

    address: str = AUTO
    workers: int | None = None
    worker_bytes: int = 512 * _MIB
    object_store_bytes: int = 256 * _MIB
    shuffle_bytes: int = 24 * _MIB
    broadcast_bytes: int = 16 * _MIB
    functions: dict[str, Any] | None = None
    scratch: str | None = None

    def __post_init__(self) -> None:
        if self.address != AUTO:
            self.host_and_port()
        for name in ("workers", "worker_bytes", "object_store_bytes"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UsageError(f"Ray's {name} is {value}", hint="set it to a positive number")

    def host_and_port(self) -> tuple[str, int]:
        """Return the two parts of the address, which is not "auto"."""
        found = _ADDRESS.fullmatch(self.address)
        if found is None or not 0 < int(found["port"]) < 1 << 16:
            raise UsageError(
                f"--ray is {self.address[:100]!r}",
                hint='set it to "auto", or HOST:PORT of the head of a Ray cluster',
            )
        return found["host"].strip("[]"), int(found["port"])

    def to_json(self) -> dict[str, Any]:
        """Return the options for the driver."""
        return asdict(self)
