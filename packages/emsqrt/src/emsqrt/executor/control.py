"""The executor's side of the control socket."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from emsqrt.executor.frames import Frame, FrameReader
from sennit_core.errors import Closed

_RECEIVE_BYTES = 1 << 16
_LAST_WORD_SECONDS = 0.2


@dataclass(frozen=True, slots=True)
class Task:
    """One request to run, as decoded from its frame."""

    attempt: str
    name: str
    entry: str
    request: dict[str, Any]
    cap_bytes: int
    deadline_seconds: float | None
    spill_dir: Path
    ring_bytes: int


class Control:
    """Sends from any thread, receives on one."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._lock = threading.Lock()
        self._reader = FrameReader()

    def send(self, frame: bytes) -> None:
        """Send a frame; if the parent is gone, the receiving thread notices."""
        with self._lock, suppress(OSError):
            self._sock.sendall(frame)

    def send_file(self, frame: bytes, file: int) -> None:
        """Send a frame, with an open descriptor attached to its first byte."""
        with self._lock, suppress(OSError):
            sent = socket.send_fds(self._sock, [frame], [file])
            if sent < len(frame):
                self._sock.sendall(memoryview(frame)[sent:])

    def send_last(self, frame: bytes) -> None:
        """Send a frame just before the process ends, unless another thread is blocked sending."""
        if self._lock.acquire(timeout=_LAST_WORD_SECONDS):
            self._sock.settimeout(_LAST_WORD_SECONDS)
            with suppress(OSError):
                self._sock.sendall(frame)

    def receive(self) -> list[Frame | Task]:
        """Wait for frames. Raises `Closed` when the parent is gone."""
        try:
            data = self._sock.recv(_RECEIVE_BYTES)
        except ConnectionError:
            data = b""
        if not data:
            raise Closed("the control socket")
        return [
            _as_task(frame) if frame["word"] == "task" else frame
            for frame in self._reader.feed(data)
        ]


def _as_task(frame: Frame) -> Task:
    return Task(
        attempt=frame["attempt"],
        name=frame["name"],
        entry=frame["entry"],
        request=frame["request"],
        cap_bytes=frame["capBytes"],
        deadline_seconds=frame["deadlineSeconds"],
        spill_dir=Path(frame["spillDir"]),
        ring_bytes=frame["ringBytes"],
    )
