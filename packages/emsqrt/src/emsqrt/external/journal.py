"""What a run of the engine writes down beside its segments, so that a killed one can be resumed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from emsqrt.spill import Segment


@dataclass(frozen=True, slots=True)
class SavedRuns:
    """Finished runs of one operator.

    Args:
        rows: of its input that lie in them, the first so many.
        complete: whether that is all of its input.
        runs: in input order, each with the merges that its rows went through.
    """

    rows: int
    complete: bool
    runs: tuple[tuple[Segment, int], ...]


class Journal(Protocol):
    """One operator's page."""

    def found(self) -> SavedRuns | None:
        """Return what an earlier run left, None when it left nothing."""

    def save(self, rows: int, runs: Sequence[tuple[Segment, int]], *, complete: bool) -> None:
        """Write down which segments there are; those not named any more are removed after it."""
