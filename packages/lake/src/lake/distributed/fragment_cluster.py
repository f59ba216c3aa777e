"""What a cluster of workers of the node's own site does for queries: it runs fragments over shards of this node."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from lake.objects.verification import ShardFile
    from lake.peers.transport.stop import Stop

__all__ = ["ClusterFragment", "ClusterInput", "FragmentCluster"]


@dataclass(frozen=True, slots=True)
class ClusterInput:
    """A file that a fragment reads.

    Args:
        name: As the fragment's request names it, in place of its path: "shard-0".
        path: Its path on this node.
        shard: The shard that it is; None for rows that were computed for the query.
    """

    name: str
    path: str
    shard: ShardFile | None = None


@dataclass(frozen=True, slots=True)
class ClusterFragment:
    """One execution of a fragment.

    Args:
        id: Identifies it; never reused.
        request: The request of an executor's entry `lake.sql`.
        inputs: The files that it reads.
        seconds: Its time limit.
        user: The user; a worker's executor is shared fairly between users.
        output: The file on this node that gets the rows, as an Arrow IPC stream.
    """

    id: str
    request: dict[str, Any]
    inputs: tuple[ClusterInput, ...]
    seconds: float
    user: str
    output: Path


class FragmentCluster(Protocol):
    """Workers that run fragments; methods are for any thread."""

    def workers(self) -> Sequence[str]:
        """Return the workers that there are now."""
        ...

    def run_fragment(self, worker: str, fragment: ClusterFragment, stop: Stop) -> None:
        """Run a fragment; blocks.

        Args:
            worker: The worker.
            fragment: The fragment.
            stop: Stops it.

        Raises:
            Unavailable: The worker is lost.
            SennitError: The error of the fragment.
        """
        ...
