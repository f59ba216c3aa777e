"""How much was exchanged with a node, and when it was heard."""

from __future__ import annotations

import time
from dataclasses import dataclass

__all__ = ["Traffic"]


@dataclass(slots=True, eq=False)
class Traffic:
    """What was exchanged with one node since this node is in the network; used in one event loop.

    Args:
        sent_bytes: Of frames, before TLS; those of connections that the node relays too.
        received_bytes: Likewise.
        heard_at: When the last frame came, Unix seconds; 0 if none did.
    """

    sent_bytes: int = 0
    received_bytes: int = 0
    heard_at: float = 0.0

    def note_sent(self, frame: bytes) -> None:
        """Count a frame that was sent."""
        self.sent_bytes += len(frame)

    def note_received(self, frame: bytes | memoryview) -> None:
        """Count a frame that came."""
        self.received_bytes += len(frame)
        self.heard_at = time.time()
