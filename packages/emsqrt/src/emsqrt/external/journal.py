"""What a run of the engine writes down beside its segments, so that a killed one can be resumed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from emsqrt.spill import Segment


@dataclass(frozen=True, slots=True)
class SavedRuns:
    """Finished runs of one operator.

    Args:
        rows: of its input that lie in them, the first so many.
        complete: whether that is all of its input.
        runs: in input order, each with the merges that its rows went through.
        row_bytes_max: the longest row that lies in them.
    """

    rows: int
    complete: bool
    runs: tuple[tuple[Segment, int], ...]
    row_bytes_max: int = 0


SavedState = tuple[tuple["Segment", ...], Mapping[str, Any]]
"""Finished segments, and plain values that say what they are."""


class Journal(Protocol):
    """One operator's page."""

    def found(self) -> SavedRuns | None:
        """Return what an earlier run left, None when it left nothing."""

    def save(
        self,
        rows: int,
        runs: Sequence[tuple[Segment, int]],
        *,
        complete: bool,
        row_bytes_max: int = 0,
    ) -> None:
        """Write down which runs there are; those not named any more are removed after it."""


class StateJournal(Protocol):
    """The page of an operator whose segments are not just runs."""

    def state(self) -> SavedState:
        """Return what an earlier run left; nothing when it left nothing."""

    def save_state(self, segments: Sequence[Segment], state: Mapping[str, Any]) -> None:
        """Write down what there is; segments not named any more are removed after it."""
