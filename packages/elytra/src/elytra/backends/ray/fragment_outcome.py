"""How a fragment of a query ends, for the thread that waits for it."""

from __future__ import annotations

from threading import Event
from typing import TYPE_CHECKING, Any

from sennit_core.errors import SennitError, Unavailable, error_from_json

if TYPE_CHECKING:
    from sennit_core.records import Progress

__all__ = ["FragmentOutcome"]


class FragmentOutcome:
    """Receives the report of one fragment.

    Args:
        worker: The worker that runs it.
    """

    def __init__(self, worker: str) -> None:
        self._worker = worker
        self._error: SennitError | None = None
        self._ended = Event()

    def wait(self) -> None:
        """Wait for its end; raises its error."""
        self._ended.wait()
        if self._error is not None:
            raise self._error

    def lost(self) -> Unavailable:
        """Return the error of a worker that is gone; another one may run the fragment."""
        return Unavailable(f"worker {self._worker} of Ray")

    def started(self) -> None:
        """Only the end is of interest."""

    def progressed(self, progress: Progress) -> None:
        """Only the end is of interest."""

    def finished(self, result: dict[str, Any]) -> None:
        """Note that its rows are in the file."""
        del result
        self._ended.set()

    def failed(self, error: dict[str, Any], *, retryable: bool) -> None:
        """Note its error."""
        del retryable
        self._error = error_from_json(error)
        self._ended.set()

    def gone(self) -> None:
        """Note that its worker is gone."""
        self._error = self.lost()
        self._ended.set()
