"""What large answers wait to be sent, of all clients together: so much and no more."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sennit_core.errors import Busy

__all__ = ["LARGE_BYTES", "Unsent"]

LARGE_BYTES = 256 * 1024
"""More goes out in parts of this size: the next one when the client has taken enough before it."""


class Unsent:
    """Counts the bytes of large answers from when they are made until they have gone out.

    Args:
        bytes_max: a further one is refused; one alone may have more.

    Attributes:
        bytes: how many wait now.
    """

    def __init__(self, bytes_max: int) -> None:
        self.bytes = 0
        self._bytes_max = bytes_max

    def check(self, size: int) -> None:
        """Refuse what would be too much.

        Raises:
            Busy: so many bytes more are too many.
        """
        if size > LARGE_BYTES and self.bytes and self.bytes + size > self._bytes_max:
            raise Busy("too many large answers are being sent; try again in a second")

    @contextmanager
    def hold(self, size: int) -> Iterator[None]:
        """Count an answer for a block.

        Raises:
            Busy: see `check`.
        """
        self.check(size)
        counted = size if size > LARGE_BYTES else 0
        self.bytes += counted
        try:
            yield
        finally:
            self.bytes -= counted
