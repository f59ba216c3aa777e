"""Answers without a length to clients of HTTP/1.0, which know no chunks (RFC 9112, 6.3 and 7.1)."""

from __future__ import annotations

from typing import Any

from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

__all__ = ["UnchunkedCycle"]


class UnchunkedCycle(RequestResponseCycle):
    """A cycle whose answer ends with its connection when it has no length.

    Attributes:
        endless: whether that is so of an answer that has begun.
    """

    endless = False

    async def send(self, message: Any) -> None:
        """Send a part of the answer, as it is."""
        if message["type"] == "http.response.start":
            names = {name.lower() for name, _value in message.get("headers", ())}
            self.endless = b"content-length" not in names
            if self.endless:
                self.chunked_encoding = False
        elif self.endless:
            self.expected_content_length = len(message.get("body", b""))
        await super().send(message)
