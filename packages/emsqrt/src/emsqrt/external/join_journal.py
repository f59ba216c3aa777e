"""The journal of a partitioned join, so that a killed join can be resumed from its partitions.

It first records the build side's partitions once that side is complete. Then it records the pairs
of partitions that are still to be joined and the output runs of the others, so that no pair is
joined twice.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from emsqrt.external.join_output import JOINED_HEAD_BYTES
from emsqrt.external.journal import SavedRuns

if TYPE_CHECKING:
    from emsqrt.external.journal import StateJournal
    from emsqrt.spill import Segment, SpillManager

_WRITES = 16
"""Up to this many pairs left, every finished pair is recorded; with more, several at a time."""

Partitions = list["Segment | None"]


@dataclass(slots=True)
class Pair:
    """A partition: the rows of both sides whose keys have the same hash bits.

    Args:
        left: the left rows; None if there are none.
        right: the right rows; None if there are none.
        level: how often its rows were partitioned.
        cut_from_bytes: the right side's bytes of the partition it was cut from; None for input.
    """

    left: Segment | None
    right: Segment | None
    level: int = 1
    cut_from_bytes: int | None = None

    @property
    def block_bytes(self) -> int:
        """The size of a buffer for any of its blocks."""
        return max(_block_bytes(self.left), _block_bytes(self.right))

    @property
    def joined_bytes_max(self) -> int:
        """The longest row that the join may write: no row is longer than its block."""
        return _block_bytes(self.left) + _block_bytes(self.right) + JOINED_HEAD_BYTES


class JoinJournal:
    """A join's page of the journal, and the `Journal` of its runs; does nothing without a page.

    Args:
        page: the page to write; None if the join cannot be resumed.
        spill: the spill manager with the segments.
        fits: whether segments can be joined in this run's memory, with as many partitions of the
            other side; segments of an earlier run that do not fit are ignored.
    """

    def __init__(
        self,
        page: StateJournal | None,
        spill: SpillManager,
        fits: Callable[[Sequence[Segment], int], bool],
    ) -> None:
        self._page = page
        self._spill = spill
        self.right: Partitions | None = None
        """The build side's partitions, from the journal or from `built`."""
        self.pairs: list[Pair] | None = None
        """Pairs that are still to be joined, the next one last; None until both sides are there."""
        # State of the pair that is being joined:
        #
        #     pairs       what is left to do, without the pair in progress
        #     _joined     pairs whose segments are removed at the next `_remove`
        #     _runs       runs of joined rows, including unfinished work of the pair in progress
        #     _between_pairs   False while runs of a pair may be incomplete: nothing is written then
        self._runs: Sequence[tuple[Segment, int]] = ()
        self._joined: list[Pair] = []
        self._between_pairs = True
        if page is not None:
            segments, state = page.state()
            if state and fits(segments, len(state.get("right", ())) - 1):
                self._adopt(segments, state)

    @property
    def is_kept(self) -> bool:
        """Whether the join can be resumed."""
        return self._page is not None

    def built(self, right: Partitions) -> None:
        """Record that the build side is partitioned."""
        self.right = right
        if self._page is not None:
            segments, places = _listed(right)
            self._page.save_state(segments, {"right": places})

    def probed(self, pairs: list[Pair]) -> None:
        """Record that both sides are partitioned; `pairs` is kept, and later has the pairs left."""
        self.pairs, self.right = pairs, None
        self._write()

    def began(self, pair: Pair) -> None:
        """Record that a pair was removed from the list and is being joined."""
        self._joined.append(pair)
        self._between_pairs = False

    def ended(self) -> None:
        """Record that the pair was joined: its runs were added, and finer pairs put on the list."""
        self._between_pairs = True
        # Writing the journal costs time in proportion to the pairs that are left. With many left, a
        # sixteenth of them is joined between two writes; a killed run repeats at most that much.
        if not self.is_kept or len(self._joined) * _WRITES >= len(self.pairs or ()):
            self._write()
            self._remove()

    def close(self) -> None:
        """Remove the partitions that were not joined."""
        self._joined += self.pairs or ()
        self._joined += [Pair(None, segment) for segment in self.right or ()]
        self._remove()

    # The journal of the runs.

    def found(self) -> SavedRuns | None:
        """Return the runs of what was joined."""
        return SavedRuns(0, False, tuple(self._runs)) if self._runs else None

    def save(
        self,
        rows: int,
        runs: Sequence[tuple[Segment, int]],
        *,
        complete: bool,
        row_bytes_max: int = 0,
    ) -> None:
        """Record the runs; in the middle of a pair, only once the pair has ended."""
        self._runs = runs
        # A pair's first run without its other ones would make a resumed join lose rows, or write
        # them twice.
        if self._between_pairs:
            self._write()

    def _remove(self) -> None:
        """Remove the pairs that are not on the list any more."""
        for pair in self._joined:
            for segment in (pair.left, pair.right):
                if segment is not None:
                    self._spill.remove(segment)
        self._joined.clear()

    def _write(self) -> None:
        if self._page is None:
            return
        pairs = self.pairs or []
        sides = [side for pair in pairs for side in (pair.left, pair.right)]
        segments, places = _listed([*sides, *(segment for segment, _ in self._runs)])
        state = {
            "pairs": [[pair.level, pair.cut_from_bytes] for pair in pairs],
            "places": places,
            "levels": [level for _, level in self._runs],
        }
        self._page.save_state(segments, state)

    def _adopt(self, segments: Sequence[Segment], state: Any) -> None:
        if "right" in state:
            self.right = self._adopted(segments, state["right"])
            return
        # `places`: left and right of each pair, then one for each run.
        split = 2 * len(state["pairs"])
        sides = self._adopted(segments, state["places"][:split])
        self.pairs = [
            Pair(sides[2 * at], sides[2 * at + 1], *head) for at, head in enumerate(state["pairs"])
        ]
        runs = (segments[place] for place in state["places"][split:])
        self._runs = list(zip(runs, state["levels"], strict=True))  # `Runs` adopts them

    def _adopted(self, segments: Sequence[Segment], places: Sequence[int | None]) -> Partitions:
        found = [None if place is None else segments[place] for place in places]
        return [one and self._spill.adopt(one.name, one.size_bytes) for one in found]


def _listed(segments: Sequence[Segment | None]) -> tuple[list[Segment], list[int | None]]:
    """Return the segments that are not None, and for each position its index among them."""
    listed: list[Segment] = []
    places: list[int | None] = []
    for segment in segments:
        places.append(None if segment is None else len(listed))
        listed += [] if segment is None else [segment]
    return listed, places


def _block_bytes(segment: Segment | None) -> int:
    return 0 if segment is None else segment.block_raw_max
