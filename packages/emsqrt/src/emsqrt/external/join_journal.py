"""What a partitioned join writes down beside its partitions, so that a killed one can be resumed.

First the built side's partitions, when all of it is there. Then pairs of partitions that are still
to be joined, and runs of what the others gave; so what was joined is not joined again.
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
"""While so many pairs are left, each is written down when it ends; of more, some at a time."""

Partitions = list["Segment | None"]


@dataclass(slots=True)
class Pair:
    """A partition: both sides' rows whose keys hash alike.

    Args:
        left: None when it has no rows.
        right: likewise.
        level: how often its rows were partitioned.
        cut_from_bytes: the right side's of what it was cut from; None for input.
    """

    left: Segment | None
    right: Segment | None
    level: int = 1
    cut_from_bytes: int | None = None

    @property
    def block_bytes(self) -> int:
        """A buffer for any of its blocks."""
        return max(_block_bytes(self.left), _block_bytes(self.right))

    @property
    def joined_bytes_max(self) -> int:
        """The longest row that may come out: no row is longer than its block."""
        return _block_bytes(self.left) + _block_bytes(self.right) + JOINED_HEAD_BYTES


class JoinJournal:
    """A join's page of the journal, and the `Journal` of its runs; without a page it does nothing.

    Args:
        page: where it is written; None when nobody would resume the join.
        spill: where the segments lie.
        fits: whether segments can be joined in this run's memory, and so many partitions be made
            of the other side; those that cannot are left.
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
        """The built side's partitions, found or told."""
        self.pairs: list[Pair] | None = None
        """What is still to be joined, once the other side is there too; the next one last."""
        self._runs: Sequence[tuple[Segment, int]] = ()
        self._joined: list[Pair] = []
        self._between_pairs = True
        if page is not None:
            segments, state = page.state()
            if state and fits(segments, len(state.get("right", ())) - 1):
                self._adopt(segments, state)

    @property
    def is_kept(self) -> bool:
        """Whether anybody would resume the join."""
        return self._page is not None

    def built(self, right: Partitions) -> None:
        """Say that the built side is partitioned."""
        self.right = right
        if self._page is not None:
            segments, places = _listed(right)
            self._page.save_state(segments, {"right": places})

    def probed(self, pairs: list[Pair]) -> None:
        """Say that both sides are partitioned. The list is kept, and says later what is left."""
        self.pairs, self.right = pairs, None
        self._write()

    def began(self, pair: Pair) -> None:
        """Say that a pair was taken from the list, which is to be joined now."""
        self._joined.append(pair)
        self._between_pairs = False

    def ended(self) -> None:
        """Say that the pair was joined, its runs added, and finer pairs put on the list."""
        self._between_pairs = True
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
        """Write down which runs there are; in the middle of a pair that waits for its end."""
        self._runs = runs
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
        split = 2 * len(state["pairs"])
        sides = self._adopted(segments, state["places"][:split])
        self.pairs = [
            Pair(sides[2 * at], sides[2 * at + 1], *head) for at, head in enumerate(state["pairs"])
        ]
        runs = (segments[place] for place in state["places"][split:])
        self._runs = list(zip(runs, state["levels"], strict=True))  # who merges adopts them

    def _adopted(self, segments: Sequence[Segment], places: Sequence[int | None]) -> Partitions:
        found = [None if place is None else segments[place] for place in places]
        return [one and self._spill.adopt(one.name, one.size_bytes) for one in found]


def _listed(segments: Sequence[Segment | None]) -> tuple[list[Segment], list[int | None]]:
    """Return the segments that there are, and for each place its number among them."""
    listed: list[Segment] = []
    places: list[int | None] = []
    for segment in segments:
        places.append(None if segment is None else len(listed))
        listed += [] if segment is None else [segment]
    return listed, places


def _block_bytes(segment: Segment | None) -> int:
    return 0 if segment is None else segment.block_raw_max
