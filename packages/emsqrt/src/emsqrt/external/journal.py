"""The journal of a run: which segments it has finished, so that a killed run can be resumed."""

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
        rows: the number of input rows in the runs; they are the first rows of the input.
        complete: whether that is the whole input.
        runs: the runs in input order, each with the number of merges that its rows went through.
        row_bytes_max: the longest row in the runs.
    """

    rows: int
    complete: bool
    runs: tuple[tuple[Segment, int], ...]
    row_bytes_max: int = 0


SavedState = tuple[tuple["Segment", ...], Mapping[str, Any]]
"""Finished segments, and JSON values that describe them."""


class Journal(Protocol):
    """One operator's page of the journal."""

    def found(self) -> SavedRuns | None:
        """Return the runs that an earlier process left, or None."""

    def save(
        self,
        rows: int,
        runs: Sequence[tuple[Segment, int]],
        *,
        complete: bool,
        row_bytes_max: int = 0,
    ) -> None:
        """Record the runs; runs that are no longer listed are removed afterwards."""


class StateJournal(Protocol):
    """The page of an operator that has segments other than runs."""

    def state(self) -> SavedState:
        """Return the state that an earlier process left, or an empty one."""

    def save_state(self, segments: Sequence[Segment], state: Mapping[str, Any]) -> None:
        """Record segments and state; segments that are no longer listed are removed afterwards."""
