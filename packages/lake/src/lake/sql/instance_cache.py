"""A cache of locked DuckDB instances, by the set of snapshots that they can read.

A query uses the instance whose views are exactly the snapshots that it names, or opens one. The
instance is returned to the cache only if the query ended normally and left no temporary folder.
Otherwise it is closed, so a query that spilled, was cancelled, ran out of memory or hit an internal
error of DuckDB cannot affect later queries. Instances keep the memory of their queries, which is
faulted in page by page otherwise, as long as all of them together keep no more than allowed.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TypeAlias

import duckdb

from lake.sql.session import Instance, SqlLimits
from lake.sql.tables import Table

__all__ = ["InstanceCache", "InstanceKey", "instance_key"]

InstanceKey: TypeAlias = tuple[object, ...]

_MARGIN = 16
"""An instance is opened with the available memory and disk less this fraction (1/N)."""
_ORDINARY = (duckdb.ProgrammingError, duckdb.DataError)
"""Errors of the statement or of a value: parser, binder, catalog, cast, range. They do not affect
the instance; every other error closes it."""


class InstanceCache:
    """Caches up to `size` instances; the least recently used is evicted first.

    Args:
        size: Maximum number of idle instances; each uses 2 to 4 MiB.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        # What the queries of an instance in `_kept` have left in the process.
        self._held_bytes: dict[InstanceKey, int] = {}
        # Idle instances, the least recently used first. An instance in use is not in here, so it
        # can be neither evicted nor used by two queries.
        self._kept: OrderedDict[InstanceKey, Instance] = OrderedDict()

    @contextmanager
    def connect(  # noqa: PLR0913 - what a query may use
        self,
        key: InstanceKey,
        tables: Sequence[Table],
        names: Sequence[str],
        limits: SqlLimits,
        left: Callable[[], int | None],
        held_bytes_max: int,
        opened: Callable[[], None] = lambda: None,
        *,
        read_only: bool = True,
    ) -> Iterator[duckdb.DuckDBPyConnection]:
        """Open a connection for one query to an instance that has these tables and no others.

        Args:
            key: The result of `instance_key` for the other arguments.
            tables: Datasets that the query reads.
            names: Their names as written in the query.
            limits: Resource limits; an instance with other limits is replaced.
            left: Called after the query: the bytes by which it has grown the process; None closes
                the instance.
            held_bytes_max: The most memory that kept instances may hold together.
            opened: Called when an instance was opened for the query.
            read_only: Whether it may not have temporary tables, which end with the connection.
        """
        instance = self._kept.pop(key, None)
        held_bytes = self._held_bytes.pop(key, 0)
        # What it holds itself is not free, but it may use it.
        own = replace(limits, memory_bytes=limits.memory_bytes + held_bytes)
        if instance is not None and not _fits(instance.limits, own):
            instance.close()
            instance, held_bytes = None, 0
        is_new = instance is None
        if instance is None:
            instance = Instance(tables, names, _rounded(limits))
        # Set only where the query ended in a known way: any other exception, such as the reason for
        # a stop, closes the instance.
        grown_bytes = None
        try:
            if is_new:
                opened()
            with instance.connect(read_only=read_only) as connection:
                yield connection
            grown_bytes = left()
        except _ORDINARY:
            grown_bytes = left()
            raise
        finally:
            # Spill files remain until the instance is closed.
            if grown_bytes is None or instance.has_spilled:
                instance.close()
            else:
                self._put(key, instance, held_bytes + grown_bytes, held_bytes_max)

    def clear(self) -> None:
        """Close all cached instances."""
        while self._kept:
            self._close_oldest()

    def __len__(self) -> int:
        return len(self._kept)

    def _put(
        self, key: InstanceKey, instance: Instance, held_bytes: int, held_bytes_max: int
    ) -> None:
        self._kept[key], self._held_bytes[key] = instance, held_bytes
        while len(self._kept) > self._size or sum(self._held_bytes.values()) > held_bytes_max:
            self._close_oldest()

    def _close_oldest(self) -> None:
        key, instance = self._kept.popitem(last=False)
        self._held_bytes.pop(key)
        instance.close()


def instance_key(
    tables: Sequence[Table], names: Sequence[str], threads: int, rights: str = ""
) -> InstanceKey:
    """Return the cache key: queries with equal keys can use one instance in sequence.

    Args:
        tables: Datasets that the query reads.
        names: Their names as written in the query.
        threads: Number of threads.
        rights: Identifies the policy that the views were created under; "" while all readers see
            all rows. Readers with different rights never share an instance.
    """
    wanted = {name.casefold() for name in names}
    # Sorted, so that the order in which a query names its datasets does not matter. The schema is
    # part of the key because a dataset without shards has nothing else to distinguish it.
    by_name = sorted(tables, key=lambda table: (table.name, table.id))
    views = tuple(
        (
            table.name,
            table.id,
            table.id in wanted,
            table.snapshot or "",
            table.schema.fields,
            table.paths or (),
            table.explained,
            "" if table.link is None else repr(table.link),
        )
        for table in by_name
    )
    return (rights, threads, views)


def _rounded(limits: SqlLimits) -> SqlLimits:
    """Return slightly lower limits, so that small changes of memory use need no new instance."""
    return replace(
        limits,
        memory_bytes=limits.memory_bytes - limits.memory_bytes // _MARGIN,
        temp_bytes=limits.temp_bytes - limits.temp_bytes // _MARGIN,
    )


def _fits(opened: SqlLimits, wanted: SqlLimits) -> bool:
    """Return whether an instance's fixed limits suit a query.

    An executor's memory cap is hard, so an instance must not have more than is free now. One that
    has much less is replaced too, so that queries can use memory that was freed since.
    """
    return (
        opened.temp_folder == wanted.temp_folder
        and _is_near(opened.memory_bytes, wanted.memory_bytes)
        and _is_near(opened.temp_bytes, wanted.temp_bytes)
    )


def _is_near(opened_bytes: int, wanted_bytes: int) -> bool:
    # A new instance has 1/16 less than was free (`_rounded`), so it still fits after small changes.
    # One with more than a quarter less is replaced.
    return wanted_bytes - wanted_bytes // 4 <= opened_bytes <= wanted_bytes
