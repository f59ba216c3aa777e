"""What is known of shared datasets, for other threads than the loop's: what the interfaces call."""

from __future__ import annotations

from collections.abc import Mapping

from lake.distributed.fork_origins import ForkOrigin
from lake.peers.copies.copy_states import CopyState
from lake.peers.members.health import SharedCopies
from lake.peers.transport.loop_calls import LoopCalls
from sennit_core.errors import Conflict
from sennit_core.records import DatasetInfo

__all__ = ["SharedCalls"]


class SharedCalls(LoopCalls):
    """See `lake.peers.exchange`."""

    def copies(self) -> Mapping[str, SharedCopies]:
        """Return the shared datasets with the state of their copies, by id.

        Raises:
            Conflict: This node is in no network.
        """
        found: Mapping[str, SharedCopies] = self._call(self._exchange().shared_copies())
        return found

    def states(self) -> Mapping[str, CopyState]:
        """Return the state of the copies of each shared dataset, by id; nothing in no network."""
        try:
            exchange = self._exchange()
        except Conflict:
            return {}
        found: Mapping[str, CopyState] = self._call(exchange.states())
        return found

    def delete(self, dataset: str) -> DatasetInfo:
        """Delete a dataset whose writer was removed from the network, with its copies here.

        Args:
            dataset: Its id or name.

        Raises:
            NotFound: There is none.
            Denied: Its writer was not removed.
            Conflict: This node is in no network.
        """
        deleted: DatasetInfo = self._call(self._exchange().delete(dataset))
        return deleted

    def origins(self) -> Mapping[str, ForkOrigin]:
        """Return what shared datasets are forks of, by id, as their writers say; nothing in no network."""
        try:
            exchange = self._exchange()
        except Conflict:
            return {}
        return self._now(exchange.origins)
