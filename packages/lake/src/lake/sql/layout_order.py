"""Sort rows by the layout of a dataset: DuckDB's external sort, under the memory and disk of the process.

Rows come by partition first, so that the writer has one shard open at a time.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from contextlib import suppress

import duckdb
import pyarrow as pa
from duckdb.sqltypes import DuckDBPyType

from lake.catalog.layouts import Layout
from lake.ingest.partitions import buckets
from sennit_core.records import SortField

__all__ = ["in_layout_order"]

_BUCKET = "__lake_bucket"
"""Begins the names of functions; a query that calls one computes a hash, and nothing else."""


def in_layout_order(
    connection: duckdb.DuckDBPyConnection,
    relation: duckdb.DuckDBPyRelation,
    layout: Layout,
    columns: Sequence[int],
) -> duckdb.DuckDBPyRelation:
    """Return the rows by partition, and in each by the sort order; as they are without a layout.

    Args:
        connection: The relation's.
        relation: The rows.
        layout: The layout.
        columns: The id of each column of the relation.
    """
    if not layout:
        return relation
    places = {column: index + 1 for index, column in enumerate(columns)}
    terms = []
    for field in layout.partitioning:
        place = places[field.column]
        if field.transform == "bucket":
            name = _bucket_function(connection, relation.types[place - 1], field.buckets)
            terms.append(f"{name}(#{place})")
        else:
            identity = field.transform == "identity"
            terms.append(f"#{place}" if identity else f"date_trunc('{field.transform}', #{place})")
    terms += [_sort_term(field, places[field.column]) for field in layout.sort_order]
    return relation.order(", ".join(terms))


def _sort_term(field: SortField, place: int) -> str:
    order = "DESC" if field.descending else "ASC"
    return f"#{place} {order} NULLS {'FIRST' if field.nulls_first else 'LAST'}"


def _bucket_function(connection: duckdb.DuckDBPyConnection, kind: DuckDBPyType, count: int) -> str:
    """Return the name of the function for a type, which the connection has from then on."""

    def bucket(column: pa.Array) -> pa.Array:
        chunks = column.chunks if isinstance(column, pa.ChunkedArray) else [column]
        return pa.chunked_array([buckets(each, count) for each in chunks], pa.int32())

    name = f"{_BUCKET}_{count}_{zlib.crc32(str(kind).encode())}"
    with suppress(duckdb.NotImplementedException):  # an earlier part of the statement created it
        connection.create_function(
            name, bucket, [kind], "INTEGER", type="arrow", null_handling="special"
        )
    return name
