"""Figures of each operator of a run: rows, bytes, seconds, and memory."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from typing import Any, TypeVar

T = TypeVar("T")

_STATS = ("runs", "passes", "fan_in", "block_bytes", "partitions", "spilled_bytes", "peak_bytes")


class Meter:
    """One operator's figures.

    Args:
        node: its id in the physical plan.
        operator: such as "sort".
        inputs: the meters of the operators that it reads from.
    """

    def __init__(self, node: int, operator: str, inputs: Sequence[Meter] = ()) -> None:
        self.node = node
        self.operator = operator
        self.rows = 0
        self.bytes = 0
        self.granted_bytes = 0
        self.first_at: float | None = None
        self._inputs = inputs
        self._last_at = 0.0
        self._stats: dict[str, int] = {}

    def watch(self, items: Generator[T], measure: Callable[[T], tuple[int, int]]) -> Generator[T]:
        """Yield the items and count them.

        Args:
            items: batches or blocks.
            measure: returns an item's rows and bytes.
        """
        if not self._inputs:
            self.first_at = time.perf_counter()
        with closing(items):
            for item in items:
                rows, size = measure(item)
                self.rows += rows
                self.bytes += size
                if self.first_at is None:
                    self.first_at = time.perf_counter()
                yield item
                del item
        self._last_at = time.perf_counter()

    def note(self, stats: object) -> None:
        """Add the statistics of an external algorithm, named as the fields of `BlockInfo`."""
        for name in _STATS:
            value = int(getattr(stats, name, 0))
            if name in ("fan_in", "passes", "block_bytes"):
                value = max(value, self._stats.get(name, 0))
            else:
                value += self._stats.get(name, 0)
            self._stats[name] = value

    @property
    def began_at(self) -> float | None:
        """When its first input row arrived, None when none did."""
        starts = [meter.first_at for meter in self._inputs]
        known = [start for start in starts if start is not None]
        return min(known) if known else self.first_at

    def to_json(self) -> dict[str, Any]:
        """Return the JSON of a `BlockInfo`, without the planned figures."""
        began = self.began_at
        ended = max(self._last_at, self.first_at or 0.0)
        stats = self._stats
        return {
            "node": self.node,
            "operator": self.operator,
            "rowsIn": sum(meter.rows for meter in self._inputs) if self._inputs else self.rows,
            "rowsOut": self.rows,
            "bytesIn": sum(meter.bytes for meter in self._inputs) if self._inputs else self.bytes,
            "seconds": 0.0 if began is None else max(0.0, round(ended - began, 6)),
            "grantedBytes": self.granted_bytes,
            "peakBytes": stats.get("peak_bytes", 0),
            "runs": stats.get("runs", 0),
            "fanIn": stats.get("fan_in", 0),
            "passes": stats.get("passes", 0),
            "blockBytes": stats.get("block_bytes", 0),
            "partitions": max(1, stats.get("partitions", 0)),
            "spilledBytes": stats.get("spilled_bytes", 0),
        }


@contextmanager
def prefetch_first(stream: Generator[T]) -> Iterator[Iterator[T]]:
    """Return a stream once its first item has arrived, so its reader reserves memory then.

    By that time every blocking operator below has consumed its input and released what it could.
    """
    with closing(stream):
        try:
            first = [next(stream)]
        except StopIteration:
            first = []
        yield _resumed(first, stream)


def _resumed(first: list[T], stream: Iterator[T]) -> Iterator[T]:
    while first:
        yield first.pop()  # keep no reference to the item
    yield from stream
