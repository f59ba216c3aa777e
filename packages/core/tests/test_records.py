"""The fields and states here are those of CONTRACTS.md; changing one needs a design note."""

import json
from dataclasses import FrozenInstanceError, fields, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sennit_core import records
from sennit_core.errors import UsageError
from sennit_core.records import DatasetInfo, JobInfo, Progress, ShardInfo, SnapshotInfo, TaskInfo
from sennit_core.records_ts import to_typescript
from sennit_core.schema import Schema
from sennit_core.text import camel_case

ROOT = Path(__file__).parents[3]

FIELDS = {
    "DatasetInfo": (
        "id name owner schema head rows bytes shards createdAt visibility replication damaged "
        "encrypted node"
    ),
    "SnapshotInfo": (
        "id parent dataset schema shards stats author query inputs signature version columns "
        "lastColumn fileSchemas partitioning sortOrder defaults"
    ),
    "FileSchema": "schema columns",
    "PartitionField": "column transform buckets",
    "SortField": "column descending nullsFirst",
    "ColumnDefault": "column sql",
    "ShardInfo": "object rows bytes partition stats sourceObject byteStart byteEnd fileSchema",
    "JobInfo": (
        "id kind plan planHash engine state progress submittedBy createdAt startedAt finishedAt "
        "error result check rerunOf"
    ),
    "TaskInfo": "id job shard state attempts partial",
    "AttemptInfo": "id job task worker state startedAt finishedAt error",
    "WorkerInfo": "id kind node threads engineVersion state",
    "NodeInfo": "id addresses zone capacity used state lastSeen",
    "Progress": "done total bytesDone bytesTotal rows memoryBytes capBytes spilledBytes phase",
}
SHARD: dict[str, Any] = {
    "object": "ab" * 32,
    "rows": 10,
    "bytes": 2048,
    "partition": {"year": 2013},
    "stats": {"delay": {"min": -3, "max": None, "nulls": 2}},
    "sourceObject": "cd" * 32,
    "byteStart": 0,
    "byteEnd": 4096,
    "fileSchema": 1,
}
PARTITION_FIELD = {"column": 2, "transform": "bucket", "buckets": 16}
COLUMN_DEFAULT = {"column": 1, "sql": "now()"}
SORT_FIELD = {"column": 1, "descending": True, "nullsFirst": False}
FILE_SCHEMA: dict[str, Any] = {
    "schema": {"fields": [{"name": "late", "type": "Int32", "nullable": True}]},
    "columns": [1],
}
GOLDEN: dict[str, dict[str, Any]] = {
    "DatasetInfo": {
        "id": "01h",
        "name": "flights",
        "owner": "admin",
        "schema": {"fields": [{"name": "delay", "type": "Int64", "nullable": True}]},
        "head": "01j",
        "rows": 10,
        "bytes": 2048,
        "shards": 1,
        "createdAt": 1700000000.5,
        "visibility": "private",
        "replication": 1,
        "damaged": "its manifest is missing",
        "encrypted": True,
    },
    "SnapshotInfo": {
        "id": "01j",
        "parent": "01i",
        "dataset": "01h",
        "schema": {"fields": [{"name": "delay", "type": "Int64", "nullable": True}]},
        "shards": [SHARD],
        "stats": {},
        "author": "node-1",
        "query": "select 1",
        "inputs": ["01a"],
        "signature": "00ff",
        "version": 4,
        "columns": [1],
        "lastColumn": 3,
        "fileSchemas": [FILE_SCHEMA],
        "partitioning": [PARTITION_FIELD],
        "sortOrder": [SORT_FIELD],
        "defaults": [COLUMN_DEFAULT],
    },
    "FileSchema": FILE_SCHEMA,
    "PartitionField": PARTITION_FIELD,
    "SortField": SORT_FIELD,
    "ColumnDefault": COLUMN_DEFAULT,
    "ShardInfo": SHARD,
    "JobInfo": {
        "id": "01k",
        "kind": "plan",
        "plan": {"v": 1, "op": "scan"},
        "planHash": "ef" * 32,
        "engine": "local",
        "state": "failed",
        "progress": {"done": 1, "bytesDone": 5, "rows": 2, "memoryBytes": 7, "spilledBytes": 0}
        | {"phase": "merging", "total": 2, "bytesTotal": 9, "capBytes": 64},
        "submittedBy": "admin",
        "createdAt": 1.0,
        "startedAt": 2.0,
        "finishedAt": 3.0,
        "error": {"error": "no", "code": "busy", "hint": None, "details": {}},
        "result": {"rows": 3},
        "check": {"state": "corrected", "token": "5f", "since": 4.0, "savedAs": ["tops"]},
        "rerunOf": "01j",
    },
    "TaskInfo": {
        "id": "t000000",
        "job": "01k",
        "shard": "ab" * 32,
        "state": "poisoned",
        "attempts": 3,
        "partial": "ee" * 32,
    },
    "AttemptInfo": {
        "id": "01k-t000000-3",
        "job": "01k",
        "task": "t000000",
        "worker": "local/executor-0",
        "state": "failed",
        "startedAt": 1.0,
        "finishedAt": 2.0,
        "error": {"error": "no", "code": "busy", "hint": None, "details": {}},
    },
    "WorkerInfo": {
        "id": "w1",
        "kind": "local",
        "node": "n1",
        "threads": 2,
        "engineVersion": "1",
        "state": "idle",
    },
    "NodeInfo": {
        "id": "n1",
        "addresses": ["wss://127.0.0.1:8601"],
        "zone": "a",
        "capacity": 10,
        "used": 3,
        "state": "up",
        "lastSeen": 9.25,
    },
    "Progress": {"done": 1, "total": 4, "bytesDone": 5, "bytesTotal": 9, "rows": 2}
    | {"memoryBytes": 7, "capBytes": 64, "spilledBytes": 1, "phase": "scan"},
}


@pytest.mark.parametrize("name", FIELDS)
def test_fields_are_those_of_the_contract(name: str) -> None:
    cls = getattr(records, name)
    wire = [camel_case(field.name) for field in fields(cls)]
    assert wire == FIELDS[name].split()


def test_every_record_is_listed() -> None:
    assert {cls.__name__ for cls in records.RECORDS} == set(FIELDS)


@pytest.mark.parametrize("name", GOLDEN)
def test_wire_form_is_frozen(name: str) -> None:
    cls = getattr(records, name)
    record = cls.from_json(json.loads(json.dumps(GOLDEN[name])))
    assert record.to_json() == GOLDEN[name]
    assert cls.from_json(record.to_json()) == record


@pytest.mark.parametrize("name", GOLDEN)
def test_records_are_frozen(name: str) -> None:
    cls = getattr(records, name)
    record = cls.from_json(GOLDEN[name])
    with pytest.raises(FrozenInstanceError):
        setattr(record, fields(cls)[0].name, None)


@pytest.mark.parametrize("name", GOLDEN)
def test_unknown_field_is_named_with_the_nearest(name: str) -> None:
    first = next(iter(GOLDEN[name]))
    with pytest.raises(UsageError, match=f'{name}: unknown field "{first}x"') as raised:
        getattr(records, name).from_json(GOLDEN[name] | {f"{first}x": 1})
    assert raised.value.hint == f'did you mean "{first}"?'


def test_missing_field_is_named() -> None:
    document = {key: value for key, value in SHARD.items() if key != "rows"}
    with pytest.raises(UsageError, match='ShardInfo: the field "rows" is missing'):
        ShardInfo.from_json(document)
    with pytest.raises(UsageError, match='"rows" is missing'):
        ShardInfo.from_json(document | {"rows": None})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rows": "10"}, "ShardInfo.rows: expected a whole number, found a string"),
        ({"rows": 1.5}, "expected a whole number"),
        ({"rows": True}, "found a boolean"),
        ({"object": 3}, "ShardInfo.object: expected a string, found a number"),
        ({"stats": []}, "ShardInfo.stats: expected an object, found a list"),
    ],
)
def test_wrong_type_is_named(change: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        ShardInfo.from_json(SHARD | change)


def test_error_in_a_nested_record_names_the_way_to_it() -> None:
    document = GOLDEN["SnapshotInfo"] | {"shards": [SHARD, SHARD | {"rows": "x"}]}
    with pytest.raises(UsageError, match=r"SnapshotInfo.shards\[1\]: ShardInfo.rows"):
        SnapshotInfo.from_json(document)


def test_unknown_state_is_refused() -> None:
    with pytest.raises(UsageError, match="'lost' is none of pending, leased"):
        TaskInfo.from_json(GOLDEN["TaskInfo"] | {"state": "lost"})


@pytest.mark.parametrize("document", [None, [], "x", 3])
def test_a_non_object_is_refused(document: Any) -> None:
    with pytest.raises(UsageError, match="Progress: expected an object"):
        Progress.from_json(document)


def test_absent_is_null_and_absent_lists_are_empty() -> None:
    document = {key: GOLDEN["SnapshotInfo"][key] for key in ("id", "dataset", "schema", "author")}
    snapshot = SnapshotInfo.from_json(document)
    assert (snapshot.parent, snapshot.shards, snapshot.inputs, snapshot.stats) == (None, (), (), {})
    assert "parent" not in snapshot.to_json()


def test_whole_doubles_pass_for_integers() -> None:
    assert Progress.from_json({"rows": 3.0}).rows == 3


def test_defaults_make_the_first_record_short() -> None:
    dataset = DatasetInfo(id="01h", name="f", owner="admin", schema=Schema(()))
    assert (dataset.head, dataset.rows, dataset.visibility) == (None, 0, "private")
    assert replace(dataset, rows=3).to_json()["rows"] == 3


@pytest.mark.slow
@given(
    st.builds(
        JobInfo,
        plan=st.none() | st.dictionaries(st.text(max_size=3), st.integers(), max_size=2),
        error=st.none() | st.just({"code": "busy"}),
        result=st.none() | st.just({"rows": 3}),
    )
)
def test_any_job_reads_back(job: JobInfo) -> None:
    assert JobInfo.from_json(job.to_json()) == job


def test_typescript_is_in_step() -> None:
    generated = ROOT / "apps/playground/lib/records.ts"
    if not generated.parent.is_dir():
        pytest.skip("the playground is not here")
    command = "python -m sennit_core.records_ts > apps/playground/lib/records.ts"
    assert generated.read_text(encoding="utf-8") == to_typescript(), f"run: {command}"


@pytest.mark.parametrize("name", FIELDS)
def test_typescript_has_every_field(name: str) -> None:
    body = to_typescript().split(f"export interface {name} {{\n")[1].split("\n}")[0]
    assert [line.split(":")[0].strip(" ?") for line in body.splitlines()] == FIELDS[name].split()
