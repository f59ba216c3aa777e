"""SHA-256 of a file that was not hashed while it was received, on a thread of its own."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Self

from emsqrt.background import thread_stack
from lake.encryption.files import Source
from lake.ingest.source import PartsFile
from sennit_core.units import MIB

__all__ = ["SourceHash"]

_WAIT_SECONDS = 0.02
_STACK_BYTES = 256 << 10


class SourceHash:
    """Hashes files while others are read; leaving the context ends the thread.

    Args:
        paths: The files, as one.
        is_busy: Returns whether others need the processor; then it waits, until `finish`.
    """

    def __init__(self, paths: Sequence[Source], is_busy: Callable[[], bool]) -> None:
        self._paths = paths
        self._is_busy = is_busy
        self._hash = hashlib.sha256()
        self._error: BaseException | None = None
        self._ended = threading.Event()
        self._stop = threading.Event()
        self._is_last = threading.Event()  # the ingest has read everything
        self._thread = threading.Thread(target=self._run, name="lake-source-hash", daemon=True)

    def __enter__(self) -> Self:
        with thread_stack(_STACK_BYTES):
            self._thread.start()
        return self

    def finish(self, check: Callable[[], object]) -> str:
        """Wait until the files are hashed; return the digest as hex.

        Args:
            check: Called while it waits; raises to stop.

        Raises:
            OSError: A file could not be read.
        """
        self._is_last.set()
        while not self._ended.wait(_WAIT_SECONDS):
            check()
        if self._error is not None:
            raise self._error
        return self._hash.hexdigest()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        try:
            with PartsFile(self._paths) as file:
                while not self._stop.is_set() and (piece := file.read(MIB)):
                    self._hash.update(piece)
                    while self._is_busy() and not self._is_last.is_set():
                        if self._stop.wait(_WAIT_SECONDS):
                            return
        except BaseException as error:  # noqa: BLE001 - raised again by `finish`
            self._error = error
        finally:
            self._ended.set()
