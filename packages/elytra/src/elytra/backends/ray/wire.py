"""Messages between the node and the driver: JSON objects, one on a line, over a socket pair."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, TypeAlias

from elytra.backends.task_spec import TEXT_BYTES_MAX
from sennit_core.errors import TooLarge

__all__ = ["LINE_BYTES_MAX", "Channel", "Message"]

Message: TypeAlias = dict[str, Any]

LINE_BYTES_MAX = 2 * TEXT_BYTES_MAX
"""A task, whose text is an item of a message, and the paths of its inputs."""


class Channel:
    """One end of the connection; any thread may send, one receives.

    Args:
        end: A connected stream socket, which the channel owns.
    """

    def __init__(self, end: socket.socket) -> None:
        self._socket = end
        self._sending = threading.Lock()
        self._file = end.makefile("rb")

    def send(self, message: Message) -> None:
        """Send a message.

        Raises:
            TooLarge: It has more than `LINE_BYTES_MAX`; nothing was sent.
            OSError: The other end is gone.
        """
        line = json.dumps(message, separators=(",", ":")).encode() + b"\n"
        if len(line) > LINE_BYTES_MAX:
            raise TooLarge("a message to Ray's driver", LINE_BYTES_MAX, len(line))
        with self._sending:
            self._socket.sendall(line)

    def receive(self) -> Iterator[Message]:
        """Yield the messages of the other end until it is gone."""
        while True:
            try:
                line = self._file.readline(LINE_BYTES_MAX + 1)
            except (OSError, ValueError):  # closed, perhaps by this end
                return
            if not line.endswith(b"\n"):
                return
            yield json.loads(line)

    def shut_down(self) -> None:
        """End the connection: the other end receives no more, and `receive` ends."""
        with suppress(OSError):  # the other end did
            self._socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Release the socket; `receive` has ended."""
        self._file.close()
        self._socket.close()
