"""Limits on the bytes of large answers that wait to be sent, in total and for each client."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from sennit_core.errors import Busy

__all__ = ["LARGE_BYTES", "ClientSendBuffer", "SendBufferLimit"]

LARGE_BYTES = 256 * 1024
"""Larger answers are sent in parts of this size, each once the transport has room for it."""


class SendBufferLimit:
    """Counts the bytes of large answers from when they are made until they are sent.

    Args:
        bytes_max: of all clients; an answer over it is refused, unless it is the only one.
        client_bytes_max: the same limit for the answers of one client.

    Attributes:
        bytes: how many bytes wait now.
    """

    def __init__(self, bytes_max: int, client_bytes_max: int) -> None:
        # The sum of `of_client`; both are changed by `ClientSendBuffer.add` only, in the event
        # loop.
        self.bytes = 0
        self.bytes_max = bytes_max
        self.client_bytes_max = client_bytes_max
        self.of_client: Counter[str] = Counter()

    def for_client(self, client: str) -> ClientSendBuffer:
        """Return the counter of the client at an address."""
        return ClientSendBuffer(self, client)


class ClientSendBuffer:
    """Counts the unsent bytes of one client, and adds them to the total."""

    def __init__(self, send_buffer: SendBufferLimit, client: str) -> None:
        self._send_buffer = send_buffer
        self._client = client

    def check(self, size: int) -> None:
        """Refuse an answer that would exceed a limit.

        Raises:
            Busy: `size` more bytes exceed the limit of all clients or of this one.
        """
        send_buffer = self._send_buffer
        own = send_buffer.of_client[self._client]
        # The only large answer is always sent, or a value over the limit could never be read. For
        # the same reason a client's first answer is not held against the client's own limit.
        if size <= LARGE_BYTES or not send_buffer.bytes:
            return
        if send_buffer.bytes + size > send_buffer.bytes_max or (
            own and own + size > send_buffer.client_bytes_max
        ):
            raise Busy("too many large answers are being sent; try again in a second")

    def add(self, size: int) -> None:
        """Add `size` bytes to the counters; a negative size subtracts."""
        send_buffer = self._send_buffer
        send_buffer.bytes += size
        send_buffer.of_client[self._client] += size
        if not send_buffer.of_client[self._client]:
            # Addresses come and go; an entry with a count of 0 would stay for ever.
            del send_buffer.of_client[self._client]

    @contextmanager
    def hold(self, size: int) -> Iterator[None]:
        """Count an answer of `size` bytes within a `with` block.

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
