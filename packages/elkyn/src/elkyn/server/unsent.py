"""What large answers wait to be sent: of all clients together, and of each, so much and no more."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from sennit_core.errors import Busy

__all__ = ["LARGE_BYTES", "SendBufferLimit", "Share"]

LARGE_BYTES = 256 * 1024
"""More goes out in parts of this size: the next one when the client has taken enough before it."""


class SendBufferLimit:
    """Counts the bytes of large answers from when they are made until they have gone out.

    Args:
        bytes_max: a further one is refused; one alone may have more.
        client_bytes_max: the same for those of one client.

    Attributes:
        bytes: how many wait now.
    """

    def __init__(self, bytes_max: int, client_bytes_max: int) -> None:
        self.bytes = 0
        self.bytes_max = bytes_max
        self.client_bytes_max = client_bytes_max
        self.of_client: Counter[str] = Counter()

    def share(self, client: str) -> Share:
        """Return the part of the client at an address."""
        return Share(self, client)


class Share:
    """The answers of one client among those of all."""

    def __init__(self, unsent: SendBufferLimit, client: str) -> None:
        self._unsent = unsent
        self._client = client

    def check(self, size: int) -> None:
        """Refuse what would be too much.

        Raises:
            Busy: so many bytes more are too many.
        """
        unsent = self._unsent
        own = unsent.of_client[self._client]
        if size <= LARGE_BYTES or not unsent.bytes:
            return
        if unsent.bytes + size > unsent.bytes_max or (own and own + size > unsent.client_bytes_max):
            raise Busy("too many large answers are being sent; try again in a second")

    def add(self, size: int) -> None:
        """Count so many bytes more, or fewer."""
        unsent = self._unsent
        unsent.bytes += size
        unsent.of_client[self._client] += size
        if not unsent.of_client[self._client]:
            del unsent.of_client[self._client]

    @contextmanager
    def hold(self, size: int) -> Iterator[None]:
        """Count an answer for a block.

        Raises:
            Busy: see `check`.
        """
        self.check(size)
        counted = size if size > LARGE_BYTES else 0
        self.add(counted)
        try:
            yield
        finally:
            self.add(-counted)
