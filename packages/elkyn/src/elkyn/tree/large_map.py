"""A map too large to be held as a dict: its children in blocks (runs) packed as MessagePack.

A Python dict of a JSON document needs five to seventy times the memory of the text. A `LargeMap` needs
about as much as the text, because only the run that is being read is unpacked.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import ormsgpack

from elkyn.tree.paths import PRIORITY, Path, order_key, sorted_map

__all__ = ["LargeMap", "LargeMapBuilder", "Run"]

_BATCH_RUNS = 16
"""Runs that are unpacked together while a map is sorted: about 1 MiB of text."""
_SAMPLES_PER_RUN = 8


class Run(NamedTuple):
    """Some consecutive children of a map, in order.

    Args:
        first: the key of the first child.
        last: the key of the last child.
        children_count: the number of children.
        packed: MessagePack of the children's map without its header; the dict itself while it holds
            server values, for which MessagePack has no type; a `LargeMap` for one large child.
    """

    first: str
    last: str
    children_count: int
    packed: bytes | dict[str, Any] | LargeMap

    def items(self) -> Iterable[tuple[str, Any]]:
        """Return the keys and stored forms of the children."""
        if type(self.packed) is LargeMap:
            return ((self.first, self.packed),)
        return self.children().items()

    def children(self) -> dict[str, Any]:
        """Return the children of a run other than a single large child."""
        if type(self.packed) is dict:
            return self.packed
        assert type(self.packed) is bytes
        found: dict[str, Any] = ormsgpack.unpackb(_map_header(self.children_count) + self.packed)
        return found


class LargeMap:
    """The stored form of a large map; `elkyn.tree.values` describes that of a small one.

    Args:
        runs: the children in order, without duplicates.

    Attributes:
        dynamic: whether it contains server values, which the write resolves.
    """

    __slots__ = ("_cached", "_cached_index", "_lasts", "dynamic", "runs")

    def __init__(self, runs: list[Run]) -> None:
        self.runs = runs
        self.dynamic: bool = any(
            run.packed.dynamic if type(run.packed) is LargeMap else type(run.packed) is dict
            for run in runs
        )
        # Sort keys of the runs' last children, for `child`; made by its first call.
        self._lasts: list[tuple[int, int, str]] = []
        # Rules read one child after the other, so the last unpacked run most likely holds the next one.
        self._cached: dict[str, Any] = {}
        self._cached_index = -1

    def __len__(self) -> int:
        return sum(run.children_count for run in self.runs)

    def __getitem__(self, key: str) -> Any:
        return self.child(key)

    def items(self) -> Iterator[tuple[str, Any]]:
        """Yield keys and stored forms of the children in order."""
        for run in self.runs:
            yield from run.items()

    def keys(self) -> list[str]:
        """Return the keys of the children in order."""
        return [key for key, _child in self.items() if key != PRIORITY]

    def child(self, key: str) -> Any:
        """Return the stored form of the child `key`, None when there is none."""
        if not key:
            return None
        if not self._lasts:
            self._lasts = [order_key(run.last) for run in self.runs]
        index = bisect_left(self._lasts, order_key(key))
        if index == len(self.runs):
            return None
        run = self.runs[index]
        if type(run.packed) is LargeMap:
            return run.packed if run.first == key else None
        if index != self._cached_index:
            self._cached, self._cached_index = run.children(), index
        return self._cached.get(key)

    def packed(self) -> Iterator[bytes]:
        """Yield MessagePack of the whole map in pieces."""
        yield _map_header(len(self))
        for run in self.runs:
            if type(run.packed) is LargeMap:
                yield ormsgpack.packb(run.first)
                yield from run.packed.packed()
            else:
                assert type(run.packed) is bytes
                yield run.packed

    def resolved(self, resolve: Callable[[Any, Path], Any], path: Path) -> LargeMap:
        """Return the map with server values replaced by numbers.

        Args:
            resolve: replaces the server values of a child at a path.
            path: where the map will be written.
        """
        if not self.dynamic:
            return self
        builder = LargeMapBuilder()
        for run in self.runs:
            if type(run.packed) is LargeMap:
                builder.add_large(run.first, run.packed.resolved(resolve, (*path, run.first)))
            elif type(run.packed) is dict:
                children = run.packed.items()
                builder.add({key: resolve(child, (*path, key)) for key, child in children})
            else:
                builder.runs.append(run)
        return LargeMap(list(builder.runs))

    def whole(self) -> dict[str, Any]:
        """Return the stored form as a dict, which needs many times the memory."""
        return {
            key: child.whole() if type(child) is LargeMap else child for key, child in self.items()
        }


class LargeMapBuilder:
    """Collects the children of a `LargeMap` in any order; the last child of a key wins."""

    def __init__(self) -> None:
        # In the order in which they were added; sorted and free of duplicates iff `_in_order`.
        self.runs: deque[Run] = deque()
        self._in_order = True

    def add(
        self, children: dict[str, Any], absent: Iterable[str] = (), *, dynamic: bool = False
    ) -> None:
        """Add children.

        Args:
            children: stored forms by key, in order.
            absent: keys whose value is null: they remove earlier children of the same key.
            dynamic: whether `children` contain server values.
        """
        if self.runs:
            last = order_key(self.runs[-1].last)
            # A null removes what an earlier run may hold under its key: kept as None until the runs
            # are sorted.
            gone = [key for key in absent if not self._in_order or order_key(key) <= last]
            if gone:
                children = sorted_map({**children, **dict.fromkeys(gone)})
                self._in_order = False
        if not children:
            return
        first = next(iter(children))
        if self.runs and order_key(first) <= order_key(self.runs[-1].last):
            self._in_order = False
        self.runs.append(_run_of(children, dynamic=dynamic))

    def add_large(self, key: str, child: LargeMap) -> None:
        """Add a child that is a large map itself."""
        if self.runs and order_key(key) <= order_key(self.runs[-1].last):
            self._in_order = False
        self.runs.append(Run(key, key, 1, child))

    def finish(self) -> LargeMap | None:
        """Return the map; None when it is empty."""
        runs = list(self.runs) if self._in_order else list(self._sorted())
        self.runs.clear()
        return LargeMap(runs) if runs else None

    def _sorted(self) -> Iterator[Run]:
        """Sort by samples: each bucket between two samples has about the size of one run."""
        bounds = self._bounds()
        buckets: list[list[Run]] = [[] for _ in range(len(bounds) + 1)]
        # A bucket sort: runs are unpacked in batches, so that never more than a batch and one
        # bucket are dicts. Buckets keep the order of arrival, which decides between children of one
        # key.
        while self.runs:
            parted: dict[int, dict[str, Any]] = {}
            for _ in range(min(_BATCH_RUNS, len(self.runs))):
                for key, child in self.runs.popleft().items():
                    index = bisect_right(bounds, order_key(key))
                    parted.setdefault(index, {})[key] = child
            for index, children in parted.items():
                buckets[index] += _runs_of(children)
        for bucket in buckets:
            merged = {key: child for run in bucket for key, child in run.items()}
            bucket.clear()
            kept = {key: child for key, child in merged.items() if child is not None}
            yield from _runs_of(sorted_map(kept))

    def _bounds(self) -> list[tuple[int, int, str]]:
        samples = []
        for run in self.runs:
            keys = [key for key, _child in run.items()]
            samples += keys[:: max(1, len(keys) // _SAMPLES_PER_RUN)]
        return sorted(map(order_key, samples))[_SAMPLES_PER_RUN::_SAMPLES_PER_RUN]


def _runs_of(children: dict[str, Any]) -> Iterator[Run]:
    """Return children as runs: small ones together, each large one as a run."""
    small: dict[str, Any] = {}
    for key, child in children.items():
        if type(child) is not LargeMap:
            small[key] = child
            continue
        if small:
            yield _run_of(small)
            small = {}
        yield Run(key, key, 1, child)
    if small:
        yield _run_of(small)


def _run_of(children: dict[str, Any], *, dynamic: bool | None = None) -> Run:
    packed: bytes | dict[str, Any] = children
    if dynamic is None:
        try:
            packed = _body(children)
        except TypeError:  # server values, which the write resolves
            packed = children
    elif not dynamic:
        packed = _body(children)
    keys = iter(children)
    return Run(next(keys), next(reversed(children)), len(children), packed)


def _body(children: dict[str, Any]) -> bytes:
    # Server values are dataclasses, which must not become maps.
    packed = ormsgpack.packb(children, option=ormsgpack.OPT_PASSTHROUGH_DATACLASS)
    return packed[len(_map_header(len(children))) :]


def _map_header(count: int) -> bytes:
    """Return the MessagePack header of a map of `count` pairs (msgpack/spec.md, map format family)."""
    if count < 1 << 4:
        return bytes((0x80 | count,))
    if count < 1 << 16:
        return b"\xde" + count.to_bytes(2, "big")
    return b"\xdf" + count.to_bytes(4, "big")
