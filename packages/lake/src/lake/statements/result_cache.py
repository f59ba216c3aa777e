"""Results of queries in memory, so that a repeated query runs no executor.

A result is found by everything that its executor was sent: the text, its parameters, the format, the
row limit, and of each dataset the columns, the snapshot and the user's policy. An executor knows
nothing else, so what a later version adds to its requests is part of the key without being named
here. The requested engine and the versions of both engines complete it.

The executor says whether a result may be kept (`lake.sql.volatility`). Only whole, small results of
DuckDB are. They go when they have not been used for longest, and with their datasets.
"""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Self

import ormsgpack

from sennit_core.records import Progress

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["CachedQuery", "CachedResult", "ResultCache", "result_key"]

_ENTRY_BYTES_MAX = 256 << 10
_ENTRIES_MAX = 10_000
_OVERHEAD_BYTES = 1 << 10  # of an entry, apart from its bytes: the key and the containers
_DATASET_BYTES = 128  # an id, and its place in a set


@dataclass(frozen=True, slots=True)
class CachedResult:
    """The result of a query.

    Args:
        payload: Its bytes, in the format that was requested.
        packed: What the execution reported (rows, columns, snapshots read, engine), in MessagePack:
            as objects, many columns would take several times the memory that is counted.
        datasets: Ids of the datasets that it may have read.
    """

    payload: bytes
    packed: bytes
    datasets: frozenset[str]

    @classmethod
    def of(cls, payload: bytes, answer: dict[str, Any], datasets: frozenset[str]) -> CachedResult:
        """Return the result of an execution."""
        return cls(payload, ormsgpack.packb(answer), datasets)

    @property
    def memory_bytes(self) -> int:
        """The memory that it takes in the cache."""
        ids = _DATASET_BYTES * len(self.datasets)
        return len(self.payload) + len(self.packed) + ids + _OVERHEAD_BYTES


class ResultCache:
    """Keeps results up to a number of bytes; thread-safe.

    Args:
        bytes_max: Memory for all results; 0 keeps none.
    """

    def __init__(self, bytes_max: int) -> None:
        self.bytes_max = bytes_max
        self._lock = threading.Lock()
        # The least recently used first.
        self._entries: OrderedDict[bytes, CachedResult] = OrderedDict()
        self._bytes = 0

    @property
    def entry_bytes_max(self) -> int:
        """The most memory that one result may take."""
        return min(_ENTRY_BYTES_MAX, self.bytes_max)

    def find(self, key: bytes) -> CachedResult | None:
        """Return a result, which then counts as used; None if there is none."""
        with self._lock:
            found = self._entries.get(key)
            if found is not None:
                self._entries.move_to_end(key)
            return found

    def put(self, key: bytes, result: CachedResult, exists: Callable[[str], bool]) -> None:
        """Keep a result.

        Args:
            key: The key of its query.
            result: The result; not kept if it takes more than `entry_bytes_max`.
            exists: Whether a dataset still exists.
        """
        if result.memory_bytes > self.entry_bytes_max:
            return
        with self._lock:
            self._remove(key)
            self._entries[key] = result
            self._bytes += result.memory_bytes
            while self._bytes > self.bytes_max or len(self._entries) > _ENTRIES_MAX:
                self._remove(next(iter(self._entries)))
        # After it was added: a dataset that is deleted from now on drops it. One that was deleted
        # while the query ran, did not find it.
        if not all(map(exists, result.datasets)):
            with self._lock:
                self._remove(key)

    def drop_dataset(self, dataset: str) -> None:
        """Remove all results that may have rows of a dataset."""
        with self._lock:
            for key in [key for key, each in self._entries.items() if dataset in each.datasets]:
                self._remove(key)

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def memory_bytes(self) -> int:
        """The memory in use."""
        return self._bytes

    def _remove(self, key: bytes) -> None:
        removed = self._entries.pop(key, None)
        if removed is not None:
            self._bytes -= removed.memory_bytes


def result_key(members: dict[str, Any], engine: str) -> bytes | None:
    """Return the key of a query's result; None if its parameters cannot be sent to an executor.

    Args:
        members: The request to the executor.
        engine: The engine that was asked for.
    """
    try:
        # The lengths in MessagePack keep the parts apart, and 1, 1.0 and True are different.
        whole = ormsgpack.packb([_versions(), engine, members])
    except TypeError:
        return None
    return hashlib.sha256(whole).digest()


@cache
def _versions() -> tuple[str, ...]:
    return version("duckdb"), version("sennit-emsqrt"), version("sennit-lake")


class CachedQuery:
    """A query that was answered from the cache, with the methods of `QueryExecution`."""

    cache = "hit"
    done = True
    pid = 0  # no process runs it

    def __init__(self, found: CachedResult) -> None:
        self._payload = found.payload
        self._answer: dict[str, Any] = ormsgpack.unpackb(found.packed)

    @property
    def engine(self) -> str:
        """The engine that computed the result."""
        return str(self._answer["engine"])

    @property
    def progress(self) -> Progress:
        """The rows of the result."""
        return Progress(rows=self._answer["rows"])

    def payloads(self) -> Iterator[memoryview]:
        """Yield the result's bytes."""
        yield memoryview(self._payload)

    def batches(self) -> Iterator[pa.RecordBatch]:
        """Yield the result as Arrow batches (format `arrow` only)."""
        import pyarrow as pa

        from sennit_core.arrow_ipc import open_arrow

        with pa.BufferReader(self._payload) as file, open_arrow(file, "the result") as stream:
            yield from stream

    def result(self, timeout: float | None = None) -> dict[str, Any]:
        """Return what `QueryExecution.result` returned for the query."""
        del timeout  # it is there
        return self._answer | {"cache": self.cache}

    def cancel(self) -> None:
        """Do nothing: it has ended."""

    def close(self) -> None:
        """Do nothing: it holds no lease."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
