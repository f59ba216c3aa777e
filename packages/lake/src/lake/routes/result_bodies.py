"""The end of a streamed response body: its regular end, or the error that aborted it.

An aborted body must not look complete to a reader that ignores how its HTTP connection ended.
"""

from __future__ import annotations

import json
from collections.abc import Callable

from sennit_core.errors import SennitError

__all__ = ["BODIES", "TextBody"]

_HELD_BACK = 2
_ALIGNMENT = 8  # every message of an Arrow IPC stream ends at a multiple of it


class TextBody:
    """A text body: the emitted pieces and, if it is aborted, the error message."""

    def pass_on(self, piece: bytes) -> bytes:
        """Return the bytes to send for the next piece."""
        return piece

    def end(self) -> bytes:
        """Return the last bytes of a complete body."""
        return b""

    def abort(self, error: SennitError) -> bytes:
        """Return the last bytes of an aborted body."""
        # An unclosed quote: no CSV reader accepts this as a record.
        return f'\n"error: {error}'.encode()


class JsonBody(TextBody):
    def abort(self, error: SennitError) -> bytes:
        # Without the closing brace, so that the body is not valid JSON.
        return f'\n],"error":{json.dumps(error.to_json())}\n'.encode()


class ArrowBody(TextBody):
    """An Arrow IPC stream, whose last bytes are held back until the stream is complete.

    Readers accept the end of a stream between two messages as its regular end. So an aborted body
    ends inside a message, which readers report.
    """

    def __init__(self) -> None:
        self._held = b""
        self._sent = 0

    def pass_on(self, piece: bytes) -> bytes:
        whole = self._held + piece if self._held else piece
        ready, self._held = whole[:-_HELD_BACK], whole[-_HELD_BACK:]
        self._sent += len(ready)
        return ready

    def end(self) -> bytes:
        return self._held

    def abort(self, error: SennitError) -> bytes:
        return self._held[:1] if self._sent % _ALIGNMENT == 0 else b""


class FileBody(TextBody):
    """A file whose end makes it readable: without it, the body is no file."""

    def abort(self, error: SennitError) -> bytes:
        return b""


BODIES: dict[str, Callable[[], TextBody]] = {
    "arrow": ArrowBody,
    "json": JsonBody,
    "csv": TextBody,
    "jsonl": TextBody,
    "parquet": FileBody,
    "xlsx": FileBody,
}
