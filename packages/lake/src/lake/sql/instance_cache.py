"""The locked DuckDB instances that an executor keeps, by the set of snapshots they can see.

A query takes the instance whose views are exactly the snapshots that it names, or opens one. The
instance goes back only after a query that ended in an ordinary way and left its memory and its
temporary folder as they were; any other is closed, so a query that spilled, was cancelled, ran out
of memory or met an internal error of DuckDB has nothing in common with the next one.
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
"""An instance is opened with one part in so many less than there is."""
_ORDINARY = (duckdb.ProgrammingError, duckdb.DataError)
"""Errors of the statement or of a value: parser, binder, catalog, cast, range. They say nothing
about the instance, which DuckDB leaves as it was; every other error closes it."""


class InstanceCache:
    """Keeps up to `size` instances, the least recently used of them is closed first.

    Args:
        size: How many are kept while none is in use; each holds 2 to 4 MiB.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._kept: OrderedDict[InstanceKey, Instance] = OrderedDict()

    @contextmanager
    def connect(
        self,
        key: InstanceKey,
        tables: Sequence[Table],
        names: Sequence[str],
        limits: SqlLimits,
        may_keep: Callable[[], bool],
    ) -> Iterator[duckdb.DuckDBPyConnection]:
        """Open a connection for one query to an instance that sees the tables and no others.

        Args:
            key: As `instance_key` makes it of the other arguments.
            tables: Datasets that the query reads.
            names: What it calls them, as written.
            limits: What it may use; an instance with other limits is replaced.
            may_keep: Asked after the query; False closes the instance.
        """
        instance = self._kept.pop(key, None)
        if instance is not None and not _fits(instance.limits, limits):
            instance.close()
            instance = None
        if instance is None:
            instance = Instance(tables, names, _rounded(limits))
        keep = False
        try:
            with instance.connect() as connection:
                yield connection
            keep = may_keep()
        except _ORDINARY:
            keep = may_keep()
            raise
        finally:
            if keep and not instance.has_spilled:
                self._put(key, instance)
            else:
                instance.close()

    def clear(self) -> None:
        """Close every instance that is kept."""
        while self._kept:
            self._kept.popitem()[1].close()

    def __len__(self) -> int:
        return len(self._kept)

    def _put(self, key: InstanceKey, instance: Instance) -> None:
        self._kept[key] = instance
        while len(self._kept) > self._size:
            self._kept.popitem(last=False)[1].close()


def instance_key(
    tables: Sequence[Table], names: Sequence[str], threads: int, rights: str = ""
) -> InstanceKey:
    """What two queries must have in common to use one instance, one after the other.

    Args:
        tables: Datasets that the query reads.
        names: What it calls them, as written.
        threads: How many work on it.
        rights: Identifies the policy that the views were made under; "" while every reader sees
            every row. Readers with different rights never share an instance.
    """
    wanted = {name.casefold() for name in names}
    views = sorted(
        (
            table.name,
            table.id,
            table.id in wanted,
            table.snapshot or "",
            table.schema.fingerprint(),
            table.paths or (),
        )
        for table in tables
    )
    return (rights, threads, tuple(views))


def _rounded(limits: SqlLimits) -> SqlLimits:
    """Take a little less than there is, so that small changes of use need no new instance."""
    return replace(
        limits,
        memory_bytes=limits.memory_bytes - limits.memory_bytes // _MARGIN,
        temp_bytes=limits.temp_bytes - limits.temp_bytes // _MARGIN,
    )


def _fits(opened: SqlLimits, wanted: SqlLimits) -> bool:
    """Whether limits that cannot be changed any more are those that a query should have.

    An executor's cap is a hard one, so an instance never has more than is free now. One that has
    much less is replaced too: after something large has ended, queries get the room.
    """
    return (
        opened.temp_folder == wanted.temp_folder
        and _is_near(opened.memory_bytes, wanted.memory_bytes)
        and _is_near(opened.temp_bytes, wanted.temp_bytes)
    )


def _is_near(opened_bytes: int, wanted_bytes: int) -> bool:
    return wanted_bytes - wanted_bytes // 4 <= opened_bytes <= wanted_bytes
