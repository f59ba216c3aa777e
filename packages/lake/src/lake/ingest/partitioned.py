"""Write rows that are sorted by partition as shards, each of one partition."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from lake.ingest.partitions import PARTITIONS_MAX, partition_runs
from lake.ingest.shards import ShardWriter
from sennit_core.errors import UsageError
from sennit_core.records import PartitionField

__all__ = ["PartitionedWriter"]


class PartitionedWriter:
    """Writes batches, and starts a new shard with each change of the partition.

    Rows that come sorted by partition make one run of shards for each, with one file open at a time,
    whatever the number of partitions is.

    Args:
        writer: Writes the shards.
        fields: What they are partitioned by, with the columns' names; () for no partitions.
        partitions: Those that this ingest or statement has written; this writer adds to it.
    """

    def __init__(
        self,
        writer: ShardWriter,
        fields: tuple[tuple[PartitionField, str], ...],
        partitions: set[tuple[Any, ...]],
    ) -> None:
        self._writer = writer
        self._fields = fields
        self._partitions = partitions
        self._current: tuple[Any, ...] | None = None

    def write(self, batch: pa.RecordBatch) -> None:
        """Append rows.

        Raises:
            UsageError: There are too many partitions.
        """
        if not self._fields:
            self._writer.write(batch, start=None, stop=None)
            return
        runs = []
        for run in partition_runs(batch, self._fields):
            self._admit(run[0])  # all of them, before any becomes a file
            runs.append(run)
        for found, start, stop in runs:
            if found != self._current:
                self._start(found)
            self._writer.write(batch.slice(start, stop - start), start=None, stop=None)

    def _admit(self, found: tuple[Any, ...]) -> None:
        self._partitions.add(found)
        if len(self._partitions) > PARTITIONS_MAX:
            raise UsageError(
                f"the rows are in more than {PARTITIONS_MAX:,} partitions, each of which is a file",
                hint="partition by bucket(n, column), or by a longer time, or write fewer at once",
            )

    def _start(self, found: tuple[Any, ...]) -> None:
        self._writer.cut()
        self._current = found
        keys = (field.key for field, _ in self._fields)
        self._writer.partition = dict(zip(keys, found, strict=True))
