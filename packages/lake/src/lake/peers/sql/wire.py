"""Tables and plans as plain data, between the gateway and the executor that plans."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from lake.peers.sql.explain import StepRun
from lake.peers.sql.plan import (
    Broadcast,
    Cost,
    DistributedPlan,
    Fragment,
    Gather,
    Merge,
    Step,
    Unit,
)
from lake.peers.sql.tables import Bounds, BucketKey, Column, Shard, Table

__all__ = [
    "plan_from_data",
    "plan_to_data",
    "runs_from_data",
    "runs_to_data",
    "tables_from_data",
    "tables_to_data",
]


def runs_to_data(runs: Mapping[str, StepRun]) -> dict[str, dict[str, Any]]:
    """Return where steps have run as dicts, text and numbers."""
    return {result: asdict(run) for result, run in runs.items()}


def runs_from_data(data: Mapping[str, Mapping[str, Any]]) -> dict[str, StepRun]:
    """Read the form of `runs_to_data`."""
    return {result: StepRun(**each) for result, each in data.items()}


def tables_to_data(tables: Sequence[Table]) -> list[dict[str, Any]]:
    """Return tables as lists, dicts, text and numbers."""
    return [
        {
            "name": table.name,
            "columns": [asdict(column) for column in table.columns],
            "shards": list(map(_shard_data, table.shards)),
            "key": None if table.key is None else asdict(table.key),
            "readers": table.readers,
        }
        for table in tables
    ]


def tables_from_data(data: Sequence[Mapping[str, Any]]) -> list[Table]:
    """Read the form of `tables_to_data`."""
    return [
        Table(
            name=each["name"],
            columns=_columns(each["columns"]),
            shards=tuple(map(_shard, each["shards"])),
            key=None if each["key"] is None else BucketKey(**each["key"]),
            readers=tuple(each["readers"]),
        )
        for each in data
    ]


def plan_to_data(plan: DistributedPlan) -> dict[str, Any]:
    """Return a plan as lists, dicts, text and numbers; each step has its kind."""
    steps = [{"kind": type(step).__name__, **asdict(step)} for step in plan.steps]
    return {**asdict(plan), "steps": steps}


def plan_from_data(data: Mapping[str, Any]) -> DistributedPlan:
    """Read the form of `plan_to_data`."""
    return DistributedPlan(
        sql=data["sql"],
        strategy=data["strategy"],
        steps=tuple(map(_step, data["steps"])),
        final_sql=data["final_sql"],
        reads=tuple(data["reads"]),
        columns=_columns(data["columns"]),
        cost=Cost(**data["cost"]),
        reasons=tuple(data["reasons"]),
    )


def _step(data: Mapping[str, Any]) -> Step:
    members = {name: value for name, value in data.items() if name != "kind"}
    members = {k: tuple(v) if isinstance(v, (list, tuple)) else v for k, v in members.items()}
    match data["kind"]:
        case "Fragment":
            units = tuple(
                Unit(unit["name"], {name: tuple(ids) for name, ids in unit["shards"].items()})
                for unit in data["units"]
            )
            broadcasts = tuple(map(_broadcast, data["broadcasts"]))
            return Fragment(**{**members, "units": units, "broadcasts": broadcasts})
        case "Gather":
            return Gather(**members)
        case _:
            return Merge(**members)


def _broadcast(data: Mapping[str, Any]) -> Broadcast:
    return Broadcast(data["result"], tuple(data["tables"]), _columns(data["columns"]))


def _columns(data: Sequence[Mapping[str, Any]]) -> tuple[Column, ...]:
    return tuple(Column(each["name"], each["type"]) for each in data)


def _shard_data(shard: Shard) -> dict[str, Any]:
    # Not `asdict`, which takes ten times as long: a table may have thousands of shards.
    bounds = {
        name: {"low": each.low, "high": each.high, "nulls": each.nulls}
        for name, each in shard.bounds.items()
    }
    return {
        "object": shard.object,
        "rows": shard.rows,
        "bytes": shard.bytes,
        "bounds": bounds,
        "bucket": shard.bucket,
        "nodes": shard.nodes,
    }


def _shard(data: Mapping[str, Any]) -> Shard:
    bounds = {name: Bounds(**each) for name, each in data["bounds"].items()}
    return Shard(
        data["object"], data["rows"], data["bytes"], bounds, data["bucket"], tuple(data["nodes"])
    )
