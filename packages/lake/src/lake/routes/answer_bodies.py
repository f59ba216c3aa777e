"""What the body of a streamed answer ends with: its regular end, or the reason why it was cut.

A body that is cut must not look complete to a reader that ignores how its HTTP connection ended.
"""

from __future__ import annotations

import json
from collections.abc import Callable

from sennit_core.errors import SennitError

__all__ = ["BODIES", "TextBody"]

_HELD_BACK = 2
_ALIGNMENT = 8  # every message of an Arrow IPC stream ends at a multiple of it


class TextBody:
    """A body of text: what was emitted and, where it is cut, the reason in words."""

    def pass_on(self, piece: bytes) -> bytes:
        """What to send now that one more piece is there."""
        return piece

    def end(self) -> bytes:
        """What to send last."""
        return b""

    def cut(self, error: SennitError) -> bytes:
        """What to send last when the rest will not come."""
        # A quote that is never closed: no reader of CSV takes this for a record.
        return f'\n"error: {error}'.encode()


class JsonBody(TextBody):
    def cut(self, error: SennitError) -> bytes:
        # Without the brace that would close the document, so that it stays no JSON.
        return f'\n],"error":{json.dumps(error.to_json())}\n'.encode()


class ArrowBody(TextBody):
    """An Arrow IPC stream, its last bytes held back until it is known that it is whole.

    Readers take the end of a stream between two messages for its regular end. So a body that is
    cut is made to end inside of one, which they report.
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

    def cut(self, error: SennitError) -> bytes:
        return self._held[:1] if self._sent % _ALIGNMENT == 0 else b""


BODIES: dict[str, Callable[[], TextBody]] = {
    "arrow": ArrowBody,
    "json": JsonBody,
    "csv": TextBody,
}
