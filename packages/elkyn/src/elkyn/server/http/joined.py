"""The head of a response and the first part of its body in one write.

An app sends the two apart, and uvicorn writes each at once: two system calls, and a client that wakes up
for the head alone.
"""

from __future__ import annotations

import asyncio

__all__ = ["JoinedWrites"]

_CONTINUE = b"HTTP/1.1 100 "


class JoinedWrites:
    """The transport of one cycle: what the cycle calls of it.

    A head without a body waits for the end of the step in which it was sent, not longer: the body of a
    stream of events may follow in an hour.

    Args:
        transport: The connection.
    """

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        # None before the head is sent, b"" afterwards.
        self._head: bytes | None = None

    def write(self, data: bytes) -> None:
        """Write the head, or a part of the body."""
        if self._head is None and not data.startswith(_CONTINUE):
            self._head = data
            asyncio.get_running_loop().call_soon(self.flush)
        elif self._head:
            head, self._head = self._head, b""
            self._transport.writelines((head, data))
        else:
            self._transport.write(data)

    def flush(self) -> None:
        """Write the head if it still waits."""
        head = self._head
        if head:
            self._head = b""
            if not self._transport.is_closing():
                self._transport.write(head)

    def close(self) -> None:
        """Close the connection when everything was written."""
        self.flush()
        self._transport.close()

    def is_closing(self) -> bool:
        """Whether the connection is closed or about to be."""
        return self._transport.is_closing()
