"""The records that the parts of Sennit exchange, store in the tree and show to users.

Python names are snake_case, their JSON is camelCase. Times are Unix seconds, sizes are bytes.
`apps/playground/lib/records.ts` is generated from here by `sennit_core.records_ts`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sennit_core._codec import Record
from sennit_core.schema import Schema
from sennit_core.states import (
    ATTEMPT_TRANSITIONS,
    JOB_TRANSITIONS,
    TASK_TRANSITIONS,
    TERMINAL,
    TRANSITIONS,
    AttemptState,
    JobState,
    TaskState,
    check_transition,
    is_terminal,
)

__all__ = [
    "ATTEMPT_TRANSITIONS",
    "JOB_TRANSITIONS",
    "RECORDS",
    "TASK_TRANSITIONS",
    "TERMINAL",
    "TRANSITIONS",
    "AttemptInfo",
    "AttemptState",
    "ColumnDefault",
    "DatasetInfo",
    "FileSchema",
    "JobInfo",
    "JobState",
    "NodeInfo",
    "PartitionField",
    "Progress",
    "Record",
    "ShardInfo",
    "SnapshotInfo",
    "SortField",
    "TaskInfo",
    "TaskState",
    "WorkerInfo",
    "check_transition",
    "is_terminal",
]


@dataclass(frozen=True, slots=True)
class Progress(Record):
    """Progress of a job or an attempt; a total that is not known yet is None.

    Args:
        done: finished tasks, or other units of `phase`.
        total: number of tasks.
        bytes_done: input bytes read.
        bytes_total: all input bytes.
        rows: rows produced.
        memory_bytes: memory in use, measured.
        cap_bytes: the memory cap.
        spilled_bytes: bytes spilled to disk.
        phase: the current phase, in one word.
    """

    done: int = 0
    total: int | None = None
    bytes_done: int = 0
    bytes_total: int | None = None
    rows: int = 0
    memory_bytes: int = 0
    cap_bytes: int | None = None
    spilled_bytes: int = 0
    phase: str = ""


@dataclass(frozen=True, slots=True)
class DatasetInfo(Record):
    """A dataset in the catalog.

    Args:
        head: id of its newest snapshot; None until the first is committed.
        rows: rows of the newest snapshot.
        bytes: stored bytes of the newest snapshot.
        shards: how many shards the newest snapshot has.
        visibility: `private` to its node, or shared with the network.
        replication: replication factor: how many nodes should store each shard.
        encrypted: whether its shards are encrypted; never changes.
        damaged: why it cannot be read, in one sentence; None while no damage is known. Never
            stored: each node determines it.
        node: the id of the node that writes it; None for this one.
    """

    id: str
    name: str
    owner: str
    schema: Schema
    head: str | None = None
    rows: int = 0
    bytes: int = 0
    shards: int = 0
    created_at: float = 0.0
    visibility: str = "private"
    replication: int = 1
    damaged: str | None = None
    encrypted: bool = False
    node: str | None = None


@dataclass(frozen=True, slots=True)
class ShardInfo(Record):
    """One Parquet object of a snapshot.

    Args:
        object: its object id.
        partition: the values of the partition fields that it was written with, which all its rows
            share, by `PartitionField.key`; empty if the dataset was not partitioned.
        stats: `{"min", "max", "nulls"}` of each column, where known.
        source_object: object id, or name, of the source it was cut from.
        byte_start: where its rows begin in the source.
        byte_end: where they end.
        file_schema: index of its columns in the snapshot's `file_schemas`.
    """

    object: str
    rows: int
    bytes: int
    partition: Mapping[str, Any]
    stats: Mapping[str, Any]
    source_object: str | None = None
    byte_start: int | None = None
    byte_end: int | None = None
    file_schema: int = 0


@dataclass(frozen=True, slots=True)
class FileSchema(Record):
    """The columns of shards that were written before the dataset's columns changed.

    Args:
        schema: their names and types in the files.
        columns: the id of each.
    """

    schema: Schema
    columns: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class PartitionField(Record):
    """A field that new shards of a dataset are partitioned by, as in Apache Iceberg.

    Args:
        column: the id of its column.
        transform: `identity`, `year`, `month`, `day`, `hour` or `bucket`.
        buckets: the number of buckets; 0 if it is no `bucket`.
    """

    column: int
    transform: str
    buckets: int = 0

    @property
    def key(self) -> str:
        """Its name in `ShardInfo.partition`, which does not depend on the columns' names."""
        count = f"{self.buckets}," if self.buckets else ""
        return f"{self.transform}({count}{self.column})"


@dataclass(frozen=True, slots=True)
class SortField(Record):
    """A column that the rows of new shards are sorted by.

    Args:
        column: its id.
        descending: whether greater values come first.
        nulls_first: whether rows without a value come first.
    """

    column: int
    descending: bool = False
    nulls_first: bool = False


@dataclass(frozen=True, slots=True)
class ColumnDefault(Record):
    """What a new row has in a column for which it has no value.

    Args:
        column: the column's id.
        sql: an expression without columns, as in SQL.
    """

    column: int
    sql: str


@dataclass(frozen=True, slots=True)
class SnapshotInfo(Record):
    """An immutable state of a dataset.

    Args:
        parent: the snapshot it was made from; None for the first.
        stats: over all shards, as in `ShardInfo`.
        author: who committed it.
        query: what computed it, when it was computed.
        inputs: ids of the snapshots it was computed from.
        signature: the author's node's signature over all else.
        version: its number in the dataset, from 1; later snapshots have greater ones.
        columns: the id of each column of `schema`, which stays when the column gets another name,
            type or place; empty if they are 1, 2, 3 and so on.
        last_column: the greatest id that a column of the dataset has had; 0 if `columns` is empty.
        file_schemas: the columns of the shards' files; empty if all have those of `schema`.
        partitioning: what new shards are partitioned by; each of them has one value of each field.
        sort_order: what the rows of each new shard are sorted by.
        defaults: those of the columns that have one other than NULL.
    """

    id: str
    parent: str | None
    dataset: str
    schema: Schema
    shards: tuple[ShardInfo, ...]
    stats: Mapping[str, Any]
    author: str
    query: str | None
    inputs: tuple[str, ...]
    signature: str | None = None
    version: int = 0
    columns: tuple[int, ...] = ()
    last_column: int = 0
    file_schemas: tuple[FileSchema, ...] = ()
    partitioning: tuple[PartitionField, ...] = ()
    sort_order: tuple[SortField, ...] = ()
    defaults: tuple[ColumnDefault, ...] = ()


@dataclass(frozen=True, slots=True)
class JobInfo(Record):
    """A unit of work that a client submitted.

    Args:
        kind: `plan` for a pipeline, `ingest` for an upload becoming a dataset.
        plan: the plan's JSON; None for an ingest.
        plan_hash: SHA-256 of the canonical plan.
        engine: which backend runs it: `auto`, `local`, `browser`, `ray`, `peers`.
        submitted_by: the principal.
        error: the wire form of a `SennitError`, once failed.
        result: its result, once done; an ingest's result has `file`, the name of the uploaded file,
            from the start.
        check: of a job whose rows came from a worker that was found to be wrong later:
            `{"state", "token", "since"}`, the state `doubted`, `running`, `confirmed`, `corrected` or
            `failed`, then with `reason`. Once corrected, `savedAs` has the datasets with the wrong rows.
        rerun_of: the job that this one computes again, for its `check`.
    """

    id: str
    kind: str
    plan: Mapping[str, Any] | None
    plan_hash: str | None
    engine: str
    state: JobState
    progress: Progress | None
    submitted_by: str
    created_at: float
    started_at: float | None = None
    finished_at: float | None = None
    error: Mapping[str, Any] | None = None
    result: Mapping[str, Any] | None = None
    check: Mapping[str, Any] | None = None
    rerun_of: str | None = None


@dataclass(frozen=True, slots=True)
class TaskInfo(Record):
    """A part of a job: one shard's partial, or a merge.

    Args:
        id: its key, `t000000` and so on.
        shard: object id of its shard; None for a merge.
        attempts: how many attempts were made.
        partial: object id, or location, of its result.
    """

    id: str
    job: str
    shard: str | None
    state: TaskState
    attempts: int = 0
    partial: str | None = None


@dataclass(frozen=True, slots=True)
class AttemptInfo(Record):
    """One execution of a task by a worker.

    Args:
        id: the job, the task's key and a number: `<job>-t000000-1`.
        worker: engine and name, `local/executor-0`.
        error: the wire form of a `SennitError`, once failed or expired.
    """

    id: str
    job: str
    task: str
    worker: str
    state: AttemptState
    started_at: float
    finished_at: float | None = None
    error: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class WorkerInfo(Record):
    """A worker that runs tasks; `kind` is the backend it belongs to."""

    id: str
    kind: str
    node: str
    threads: int
    engine_version: str
    state: str


@dataclass(frozen=True, slots=True)
class NodeInfo(Record):
    """A node of the network; `capacity` and `used` are bytes of storage."""

    id: str
    addresses: tuple[str, ...]
    zone: str | None
    capacity: int
    used: int
    state: str
    last_seen: float


RECORDS: tuple[type[Record], ...] = (
    DatasetInfo,
    SnapshotInfo,
    FileSchema,
    PartitionField,
    SortField,
    ColumnDefault,
    ShardInfo,
    JobInfo,
    TaskInfo,
    AttemptInfo,
    WorkerInfo,
    NodeInfo,
    Progress,
)
