"""The sources of pipelines at a client: which version, and which columns it has."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Protocol, runtime_checkable

from elytra.client.result import Result
from emsqrt.plan import DatasetRef
from sennit_core.errors import NotFound
from sennit_core.records import DatasetInfo
from sennit_core.schema import Schema

__all__ = ["Reader", "columns_of_source", "source_at"]


@runtime_checkable
class Reader(Protocol):
    """What of a client finds the columns of a source."""

    def dataset(self, id_or_name: str) -> DatasetInfo:
        """Return the record of a dataset."""
        ...

    def sql(self, query: str) -> Result:
        """Return the result of a query."""
        ...


def source_at(
    dataset: str,
    snapshot: str | None = None,
    *,
    version: int | str | None = None,
    timestamp: datetime | str | None = None,
) -> DatasetRef:
    """Return a source as a plan names it; arguments as of `Elytra.remote`."""
    if isinstance(timestamp, datetime):
        in_utc = timestamp if timestamp.tzinfo is None else timestamp.astimezone(UTC)
        timestamp = in_utc.replace(tzinfo=None).isoformat()
    return DatasetRef(dataset, snapshot, version, timestamp)


def columns_of_source(reader: Reader, source: DatasetRef) -> Schema:
    """Return the columns of a dataset, of a version of it, or of a view.

    Raises:
        NotFound: There is none.
    """
    at = _at(source)
    if not at:
        try:
            return reader.dataset(source.dataset).schema
        except NotFound:  # views are no datasets
            if source.snapshot is not None:
                raise
    quoted = source.dataset.replace('"', '""')
    found = reader.sql(f'SELECT * FROM "{quoted}"{at} LIMIT 0')
    return Schema.from_arrow(found.to_arrow().schema)


def _at(source: DatasetRef) -> str:
    if source.version is not None:
        return f" AT (VERSION => {_literal(source.version)})"
    if source.timestamp is not None:
        return f" AT (TIMESTAMP => {_literal(source.timestamp)})"
    return ""


def _literal(value: int | str) -> str:
    return str(value) if isinstance(value, int) else "'" + value.replace("'", "''") + "'"
