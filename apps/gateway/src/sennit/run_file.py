"""`<data>/run.json`: the address and process of the node that serves a data folder."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from sennit_core.errors import Conflict
from sennit_core.private_files import FILE_MODE, make_private_folder

LOGIN_PAGE = "login.html"
"""Stored in the data folder while a node runs whose page was opened in a browser."""


@dataclass(frozen=True, slots=True)
class RunFile:
    """A running node: its process (pid and start time, since pids are reused), addresses, version.

    `flight` is the URL of Flight SQL, None if it is off.
    """

    pid: int
    start_ticks: int
    url: str
    version: str
    flight: str | None = None

    def alive(self) -> bool:
        """Whether the same process is still running."""
        return start_ticks(self.pid) == self.start_ticks

    def write(self, data: Path) -> None:
        """Write the run file atomically."""
        document = {
            "pid": self.pid,
            "startTicks": self.start_ticks,
            "url": self.url,
            "version": self.version,
            "flight": self.flight,
        }
        staged = data / f".run.json.{os.getpid()}"
        staged.touch(mode=FILE_MODE)
        staged.write_text(json.dumps(document) + "\n", encoding="utf-8")
        staged.replace(data / "run.json")


def read(data: Path) -> RunFile | None:
    """Return the node that serves `data`, or None; the file of a dead node is ignored."""
    try:
        document = json.loads((data / "run.json").read_text(encoding="utf-8"))
        found = RunFile(
            int(document["pid"]),
            int(document["startTicks"]),
            str(document["url"]),
            str(document["version"]),
            document.get("flight"),
        )
    except (FileNotFoundError, ValueError, KeyError, TypeError, OverflowError):
        return None
    return found if found.alive() else None


def remove(data: Path) -> None:
    """Remove the run file if it is this process's."""
    found = read(data)
    if found is not None and found.pid == os.getpid():
        (data / "run.json").unlink(missing_ok=True)


def start_ticks(pid: int) -> int | None:
    """Return the start time of `pid` in clock ticks since boot; None if it is gone or a zombie."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    except OSError:
        return None
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] in {"Z", "X"} else int(fields[19])


@contextmanager
def sole_owner(data: Path) -> Iterator[None]:
    """Lock the data folder for this process; the kernel releases the lock when the process dies."""
    make_private_folder(data)
    descriptor = os.open(data / "node.lock", os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, FILE_MODE)
    with os.fdopen(descriptor, "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise _in_use(data) from None
        yield


def is_owned(data: Path) -> bool:
    """Return whether a running, starting or stopping node holds the data folder."""
    try:
        descriptor = os.open(data / "node.lock", os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    with os.fdopen(descriptor) as lock:
        try:
            # A shared lock, so that two concurrent checks do not mistake each other for a node.
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def check_free(data: Path) -> None:
    """Raise Conflict if a node holds the data folder."""
    if is_owned(data):
        raise _in_use(data)


def _in_use(data: Path) -> Conflict:
    other = read(data)
    if other is None:
        return Conflict(
            f"another node is starting or stopping in {data}",
            hint="wait a few seconds, then see `platform status`",
        )
    return Conflict(
        f"a node already serves {data}: {other.url} (pid {other.pid})",
        hint="use that one, stop it with `platform down`, or name another --data",
    )
