"""Whether statements run, as a locked file: ingests leave them a core, or wait for them.

An ingest works on two threads, and on one while statements run. That of a linked file waits for them:
the file can be queried at once, and is ingested in the background. Without waiting, the ingest takes a core
from the first queries. A lower priority of the process is no way: it could not be raised again.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from sennit_core.private_files import FILE_MODE

__all__ = ["FOREGROUND", "Background", "Foreground"]

FOREGROUND = "statements.lock"
"""The file, in the folder `lake/`."""
_POLL_SECONDS = 0.01
_WAIT_SHARE = 4.0
_WAIT_SECONDS = 2.0


class Foreground:
    """Locks the file while statements run.

    Args:
        folder: The folder `lake/`.
    """

    def __init__(self, folder: Path) -> None:
        self._file = -1
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
        with suppress(OSError):  # a full disk has no room for it: nothing waits then
            self._file = os.open(folder / FOREGROUND, flags, FILE_MODE)

    def hold(self, *, busy: bool) -> None:
        """Lock the file, or unlock it."""
        if self._file < 0:  # no room for it, or a statement that ends after the lake was closed
            return
        # A process may test the lock at this moment: then the statement runs beside the ingest.
        with suppress(OSError):
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB if busy else fcntl.LOCK_UN)

    def close(self) -> None:
        """Close the file."""
        if self._file >= 0:
            os.close(self._file)
        self._file = -1


class Background:
    """Lets statements go first, at most some times as long as it has worked: it must end once.

    Args:
        file: The locked file; None for none.
        waits: Whether `wait` waits.
        clock: Returns seconds.
    """

    def __init__(
        self,
        file: str | None,
        clock: Callable[[], float] = time.monotonic,
        *,
        waits: bool = True,
    ) -> None:
        self._file = None if file is None else Path(file)
        self._waits = waits
        self._clock = clock
        self._began = clock()
        self._waited = 0.0

    def wait(self, check: Callable[[], object]) -> None:
        """Wait until no statement runs.

        Args:
            check: Called while it waits; raises to stop.
        """
        if self._file is None or not self._waits:
            return
        start = self._clock()
        worked = start - self._began - self._waited
        most = _WAIT_SECONDS + _WAIT_SHARE * worked - self._waited
        while self.statements_run() and self._clock() - start < most:
            check()
            time.sleep(_POLL_SECONDS)
        self._waited += self._clock() - start

    def statements_run(self) -> bool:
        """Return whether a statement runs."""
        if self._file is None:
            return False
        try:
            file = os.open(self._file, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return False
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            return True
        else:
            return False
        finally:
            os.close(file)
