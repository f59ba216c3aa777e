"""The pool's handle of an executor process: start it, send tasks, receive frames, reap it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from typing import Protocol

from emsqrt.environment import LEAN_ENVIRONMENT
from emsqrt.executor.frames import Frame, FrameReader, encode_frame
from emsqrt.executor.loop import Loop
from emsqrt.executor.placement import WarmState
from sennit_core.errors import Corrupt
from sennit_core.logs import get_logger

_log = get_logger("emsqrt.executor")

_RECEIVE_BYTES = 1 << 17  # fits a frame with an answer of `INLINE_BYTES_MAX`
_FILES_MAX = 16
_CLOSE_ON_EXEC = getattr(socket, "MSG_CMSG_CLOEXEC", 0)


class WorkerOwner(Protocol):
    """Callbacks of a worker, always on the loop's thread."""

    def on_frame(self, worker: Worker, frame: Frame) -> None:
        """Handle a control frame; one that carries a ring has a descriptor as `file`, to close."""

    def on_death(self, worker: Worker, reason: str, exit_status: int) -> None:
        """The process has ended and was reaped; `reason` describes how."""


class Worker:
    """One executor process. Idle until `start_task`; its owner decides when it ends."""

    def __init__(self, loop: Loop, owner: WorkerOwner) -> None:
        self._loop = loop
        self._owner = owner
        self._frames = FrameReader()
        self._files: list[int] = []  # received, but not assigned to a frame yet
        self._sock, theirs = socket.socketpair()
        try:
            self._process = _start_process(theirs)
        except BaseException:
            self._sock.close()  # a process that was started nevertheless sees this, and ends
            raise
        finally:
            theirs.close()
        self._lock = threading.Lock()
        self.warm = WarmState()
        """What the process holds while it is idle; its owner keeps it up to date."""
        loop.watch(self._sock, self._receive)

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether the process has not ended yet."""
        return self._process.poll() is None

    def start_task(self, frame: bytes) -> None:
        """Send a task; raises OSError when the process is gone."""
        with self._lock:
            self._sock.sendall(frame)

    def send(self, word: str, **members: object) -> None:
        """Send a frame; if the process is gone, the loop notices."""
        try:
            with self._lock:
                self._sock.sendall(encode_frame(word, **members))
        except OSError as error:
            _log.debug("executor %d did not receive %s: %s", self.pid, word, error)

    def kill(self) -> None:
        """End the process now."""
        self._process.kill()

    def _receive(self) -> None:
        try:
            data, files, _, _ = socket.recv_fds(
                self._sock, _RECEIVE_BYTES, _FILES_MAX, _CLOSE_ON_EXEC
            )
            self._files += files
            frames = self._frames.feed(data)
        except (OSError, Corrupt) as error:
            self._bury(f"its control socket broke: {error}")
            return
        for frame in frames:
            if frame["word"] == "ring":
                frame["file"] = self._files.pop(0)
            self._owner.on_frame(self, frame)
        if not data:
            self._bury(None)

    def _bury(self, trouble: str | None) -> None:
        """Reap the process: its socket has ended, so it has ended or is about to."""
        self._loop.forget(self._sock)
        if trouble is not None:
            self._process.kill()
        status = _wait(self._process)
        with self._lock:
            self._sock.close()
        for file in self._files:
            os.close(file)
        self._files.clear()
        self._owner.on_death(self, trouble or _in_words(status), status)


def _start_process(control: socket.socket) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "emsqrt.executor.process", str(control.fileno())],
        stdin=subprocess.DEVNULL,
        stdout=_error_output(),  # an entry's prints must not mix with the caller's
        pass_fds=[control.fileno()],
        env={**os.environ, **LEAN_ENVIRONMENT},
        process_group=0,  # the parent handles a terminal's Ctrl-C
    )


def _error_output() -> int:
    try:
        os.fstat(2)
    except OSError:
        return subprocess.DEVNULL
    return 2


def _wait(process: subprocess.Popen[bytes]) -> int:
    try:
        return process.wait(timeout=1)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()


def _in_words(status: int) -> str:
    if status >= 0:
        return f"it ended with status {status}"
    try:
        return f"it was ended by {signal.Signals(-status).name}"
    except ValueError:
        return f"it was ended by signal {-status}"
