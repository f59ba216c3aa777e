"""Rows that changes of other nodes' datasets read: offered by the sender, fetched by the writer.

    sender                                        writer
    lease; offered(writer, dataset, objects)
    change (inputs) ────────────────────────▶     may it? lease
      ◀──────────────────── list, chunks ───      obtain each object, verified by its hash
                                                  run the statement, commit, release and discard

An object is offered to the writer alone, while the change is sent. The writer fetches it also if an equal
object is in its store for another dataset: a sender that names it must have it.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from typing import TYPE_CHECKING

from lake.distributed.staged_inputs import StagedInput, bytes_of, objects_of
from lake.peers.copies.transfers import at_most
from sennit_core.errors import DeadlineExceeded

if TYPE_CHECKING:
    from lake.maintenance.retention import Retention
    from lake.objects.disk_space import DiskSpace
    from lake.peers.copies.downloads import Downloads

__all__ = ["Offers", "Staging"]


class Offers:
    """Objects that nodes may fetch for changes, each by its node, dataset and id."""

    def __init__(self) -> None:
        self._offered: Counter[tuple[str, str, str]] = Counter()

    @contextmanager
    def open(self, node: str, dataset: str, names: Sequence[str]) -> Iterator[None]:
        """Offer objects until the context is left."""
        keys = [(node, dataset, name) for name in names]
        self._offered.update(keys)
        try:
            yield
        finally:
            self._offered.subtract(keys)
            self._offered += Counter()  # without those that are offered no more

    def has(self, node: str, dataset: str, name: str) -> bool:
        """Return whether a node may fetch an object for a change of a dataset."""
        return (node, dataset, name) in self._offered


class Staging:
    """The inputs of changes, in the event loop of the network.

    Args:
        offers: What other nodes may fetch.
        downloads: Fetches.
        retention: Keeps what was fetched until the change is made.
        space: The disk.
    """

    def __init__(
        self, offers: Offers, downloads: Downloads, retention: Retention, space: DiskSpace
    ) -> None:
        self._offers = offers
        self._downloads = downloads
        self._retention = retention
        self._space = space

    @contextmanager
    def offered(self, node: str, dataset: str, inputs: Sequence[StagedInput]) -> Iterator[None]:
        """Let the writer of a dataset fetch the rows of a change until the context is left."""
        with self._offers.open(node, dataset, list(objects_of(inputs))):
            yield

    @asynccontextmanager
    async def fetched(
        self, node: str, dataset: str, inputs: Sequence[StagedInput], seconds: float
    ) -> AsyncIterator[None]:
        """Fetch the rows of a change, and keep them until the context is left.

        Args:
            node: The sender.
            dataset: The dataset that is changed.
            inputs: The rows.
            seconds: The longest time for that.

        Raises:
            Unavailable: The sender does not have them, or cannot be reached.
            StorageFull: They have no room.
            DeadlineExceeded: The time is over.
        """
        wanted = {name: at_most(size) for name, size in objects_of(inputs).items()}
        await asyncio.to_thread(self._space.check, "the rows of another node", bytes_of(inputs))
        try:
            async with AsyncExitStack() as stack:
                try:
                    async with asyncio.timeout(seconds):
                        held = self._downloads.held(dataset, wanted, [node])
                        await stack.enter_async_context(held)
                except TimeoutError:
                    raise DeadlineExceeded("fetching the rows of a change", seconds) from None
                yield
        finally:
            await asyncio.to_thread(self._retention.discard, tuple(wanted))
