"""Answers without a length to HTTP/1.0 clients, which do not support chunks (RFC 9112, 6.3, 7.1)."""

from __future__ import annotations

from typing import Any

from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

__all__ = ["UnchunkedCycle"]


class UnchunkedCycle(RequestResponseCycle):
    """A cycle whose answer without a length ends when its connection is closed.

    Attributes:
        endless: whether such an answer has begun.
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
            # The base class subtracts what is sent and raises when more comes than was announced;
            # nothing was announced here, so each part announces itself.
            self.expected_content_length = len(message.get("body", b""))
        await super().send(message)
