"""The executor's side of an answer: inline in frames while it is small, then through a ring.

Creating a ring, mapping it in both processes and joining it costs more than all else in a small
request (0.6 ms on each side), so the executor creates one when an answer outgrows
`INLINE_BYTES_MAX` and sends its descriptor then. Up to that size no back-pressure is needed: the
reader holds the bytes in its own memory until they are requested.
"""

from __future__ import annotations

import threading
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from emsqrt.executor.control import Control
from emsqrt.executor.frames import encode_frame
from strand import BLOCKS, StrandWriter, open_ring

if TYPE_CHECKING:
    from typing_extensions import Buffer

INLINE_BYTES_MAX = 64 << 10
_RING_RECORDS = 256


class PayloadSender:
    """Sends one run's payloads; a `PayloadWriter` of `EntryContext`.

    Frames and the ring keep the order: everything inline is sent before the frame that carries the
        ring. One thread writes; `flush` may be called from another.
    """

    def __init__(self, control: Control, attempt: str, ring_bytes: int) -> None:
        self._control = control
        self._attempt = attempt
        self._ring_bytes = ring_bytes
        self._lock = threading.Lock()
        self._held: list[bytes] = []  # written, but in no frame yet
        self._inline_bytes = 0  # of all payloads sent in frames
        self._writer: StrandWriter | None = None
        self._owned = ExitStack()

    @property
    def payload_bytes_max(self) -> int:
        """The largest payload that one write accepts: the limit of a ring's record."""
        return self._ring_bytes // 2

    def write_bytes(self, payload: Buffer) -> None:
        """Publish one payload; wait for room once there is a ring."""
        with self._lock:
            if self._writer is None:
                size = self._inline_bytes + memoryview(payload).nbytes
                if size <= INLINE_BYTES_MAX:
                    self._held.append(bytes(payload))
                    self._inline_bytes = size
                    return
                self._writer = self._open_ring()
        self._writer.write_bytes(payload)

    def flush(self) -> None:
        """Send buffered payloads, for a reader that needs the beginning before the end."""
        with self._lock:
            self._send_held()

    def finish(self, result: dict[str, Any]) -> bytes:
        """End with an answer; return the final frame if it is still to be sent.

        With a ring the frame is sent before the stream is marked complete, so that a reader at the
        end of the stream does not wait again.
        """
        with self._lock:
            frame = encode_frame(
                "partial", attempt=self._attempt, result=result, payloads=self._held
            )
            self._held = []
        if self._writer is None:
            return frame
        self._control.send(frame)
        self._writer.finalize()
        return b""

    def fail(self, error: dict[str, Any], reason: str) -> bytes:
        """End with an error, after everything that was written before; otherwise as `finish`."""
        self.flush()
        frame = encode_frame("failed", attempt=self._attempt, error=error)
        if self._writer is None:
            return frame
        self._control.send(frame)
        self._writer.abort(reason)
        return b""

    def close(self) -> None:
        """Free the ring in this process; its reader keeps its own mapping."""
        self._owned.close()

    def _open_ring(self) -> StrandWriter:
        self._send_held()
        ring = self._owned.enter_context(
            open_ring(BLOCKS, records=_RING_RECORDS, heap=self._ring_bytes)
        )
        writer = ring.producer()
        writer.spin_nanoseconds = 0  # spinning might use the reader's core
        self._control.send_file(encode_frame("ring", attempt=self._attempt), ring.fileno())
        return writer

    def _send_held(self) -> None:
        if self._held:
            held, self._held = self._held, []
            self._control.send(encode_frame("bytes", attempt=self._attempt, payloads=held))
