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
_FILES_MAX = 16
_CLOSE_ON_EXEC = getattr(socket, "MSG_CMSG_CLOEXEC", 0)
_LAST_WORD_SECONDS = 0.2


@dataclass(frozen=True, slots=True)
class Task:
    """One request to run, as its frame says it, with the descriptor of its ring."""

    attempt: str
    name: str
    entry: str
    request: dict[str, Any]
    cap_bytes: int
    deadline_seconds: float | None
    spill_dir: Path
    ring: int


class Control:
    """Sends from any thread, receives on one."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._lock = threading.Lock()
        self._reader = FrameReader()
        self._rings: list[int] = []

    def send(self, frame: bytes) -> None:
        """Send a frame; a parent that is gone is noticed by whoever receives."""
        with self._lock, suppress(OSError):
            self._sock.sendall(frame)

    def send_last(self, frame: bytes) -> None:
        """Send a frame just before the process ends, unless another thread is stuck in sending."""
        if self._lock.acquire(timeout=_LAST_WORD_SECONDS):
            self._sock.settimeout(_LAST_WORD_SECONDS)
            with suppress(OSError):
                self._sock.sendall(frame)

    def receive(self) -> list[Frame | Task]:
        """Wait for frames; tasks come with their rings. Raises `Closed` when the parent is gone."""
        try:
            data, files, _, _ = socket.recv_fds(
                self._sock, _RECEIVE_BYTES, _FILES_MAX, _CLOSE_ON_EXEC
            )
        except ConnectionError:
            data, files = b"", []
        if not data:
            raise Closed("the control socket")
        self._rings += files
        return [self._as_task(frame) for frame in self._reader.feed(data)]

    def _as_task(self, frame: Frame) -> Frame | Task:
        if frame["word"] != "task":
            return frame
        return Task(
            attempt=frame["attempt"],
            name=frame["name"],
            entry=frame["entry"],
            request=frame["request"],
            cap_bytes=frame["capBytes"],
            deadline_seconds=frame["deadlineSeconds"],
            spill_dir=Path(frame["spillDir"]),
            ring=self._rings.pop(0),
        )


def send_task(sock: socket.socket, frame: bytes, ring: int) -> None:
    """Send a task from the pool's side, its ring's descriptor with the first byte."""
    sent = socket.send_fds(sock, [frame], [ring])
    if sent < len(frame):
        sock.sendall(memoryview(frame)[sent:])
