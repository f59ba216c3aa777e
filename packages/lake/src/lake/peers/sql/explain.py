"""A distributed plan for people: what runs where, what is gathered and why, and what it moves."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from lake.peers.sql.plan import DistributedPlan, Fragment, Gather, Merge, Step

__all__ = ["StepRun", "explain_json", "explain_text"]


@dataclass(frozen=True, slots=True)
class StepRun:
    """Where a step runs, or has run.

    Args:
        units: The number of its units at each node, by the node's name.
        missing: The number of units whose shards no node has that can be reached.
        attempts: How many requests there were, repeated ones too; 0 if it did not run.
        bytes: What came from other nodes, by the node's name.
        sent: The rows that were sent along to other nodes, in bytes, by the node's name.
        rows: The rows of its result; None if it did not run.
    """

    units: Mapping[str, int]
    missing: int = 0
    attempts: int = 0
    bytes: Mapping[str, int] | None = None
    rows: int | None = None
    sent: Mapping[str, int] | None = None


Runs = Mapping[str, StepRun]
"""How each step runs, by the name of its result."""


def explain_text(plan: DistributedPlan, runs: Runs | None = None) -> str:
    """Return a plan, and how it runs, as text of several lines."""
    return "\n".join(_lines(plan, runs or {}))


def explain_json(plan: DistributedPlan, runs: Runs | None = None) -> dict[str, Any]:
    """Return a plan, and how it runs, as JSON data, with the names that the wire has."""
    runs = runs or {}
    return {
        "strategy": plan.strategy,
        "steps": [_step_json(step) | _run_json(runs.get(step.result)) for step in plan.steps],
        "finalSql": plan.final_sql,
        "movedBytes": plan.moved_bytes,
        "pushBytes": plan.cost.push,
        "gatherBytes": plan.cost.gather,
        "isLocal": plan.cost.is_local,
        "reasons": list(plan.reasons),
    }


def _lines(plan: DistributedPlan, runs: Runs) -> Iterator[str]:
    if plan.strategy == "local":
        yield "local: this node has all rows"
    else:
        other = "" if plan.strategy == "gather" else f" (gather: about {plan.cost.gather})"
        yield f"{plan.strategy}: about {plan.moved_bytes} bytes over the network{other}"
    came = [sum(run.bytes.values()) for run in runs.values() if run.bytes is not None]
    if came:
        sent = sum(sum((run.sent or {}).values()) for run in runs.values())
        along = f", {sent} of them sent along" if sent else ""
        yield f"moved: {sum(came) + sent} bytes{along}"
    yield from (f"  because {reason}" for reason in plan.reasons)
    for step in plan.steps:
        yield from _step_lines(step)
        if step.result in runs:
            yield from _run_lines(runs[step.result])
        yield f"  {step.sql}"
    yield f"final: {plan.final_sql}"


def _step_lines(step: Step) -> Iterator[str]:
    match step:
        case Fragment():
            left = sum(len(objects) for unit in step.units for objects in unit.shards.values())
            yield (
                f"fragment {step.result}: {_counted(len(step.units))} by {step.by}, "
                f"about {step.bytes} bytes"
            )
            if step.sharded:
                yield f"  {', '.join(step.sharded)}: shards: {left} of {step.shards}"
            whole = [f"{name} whole" for name in step.replicated]
            whole += [
                f"{each.result} sent along, of {', '.join(each.tables) or 'no table'}"
                for each in step.broadcasts
            ]
            yield from (f"  {each}" for each in whole)
        case Gather():
            columns = ", ".join(step.columns)
            yield f"gather {step.result}: columns {columns}, about {step.bytes} bytes"
            yield f"  {step.table}: shards: {len(step.objects)} of {step.shards}"
            yield f"  because {step.reason}"
        case Merge():
            yield f"merge {step.result}: about {step.rows} rows"


def _counted(units: int) -> str:
    return f"{units} unit{'' if units == 1 else 's'}"


def _run_lines(run: StepRun) -> Iterator[str]:
    for node, units in run.units.items():
        moved = "" if run.bytes is None else f", {run.bytes.get(node, 0)} bytes"
        sent = (run.sent or {}).get(node, 0)
        along = f", {sent} bytes sent along" if sent else ""
        yield f"  at {node}: {_counted(units)}{moved}{along}"
    if run.missing:
        yield f"  nowhere: {run.missing} of the units, as no node has them that can be reached"
    if run.attempts > len(run.units):
        yield f"  requests: {run.attempts}, as some were repeated or divided"
    if run.rows is not None:
        yield f"  rows: {run.rows}"


def _run_json(run: StepRun | None) -> dict[str, Any]:
    if run is None:
        return {}
    found: dict[str, Any] = {"unitsByNode": dict(run.units), "missingUnits": run.missing}
    if run.bytes is not None:
        found |= {"requests": run.attempts, "bytesByNode": dict(run.bytes)}
    if run.sent:
        found["sentBytesByNode"] = dict(run.sent)
    return found if run.rows is None else found | {"rows": run.rows}


def _step_json(step: Step) -> dict[str, Any]:
    shared: dict[str, Any] = {"result": step.result, "sql": step.sql, "bytes": step.bytes}
    match step:
        case Fragment():
            return shared | {
                "kind": "fragment",
                "by": step.by,
                "sharded": list(step.sharded),
                "replicated": list(step.replicated),
                "broadcasts": [
                    {"result": each.result, "tables": list(each.tables)} for each in step.broadcasts
                ],
                "units": [
                    {"name": unit.name, "shards": {k: list(v) for k, v in unit.shards.items()}}
                    for unit in step.units
                ],
                "shards": step.shards,
            }
        case Gather():
            return shared | {
                "kind": "gather",
                "table": step.table,
                "columns": list(step.columns),
                "condition": step.condition,
                "objects": list(step.objects),
                "shards": step.shards,
                "reason": step.reason,
            }
        case Merge():
            return shared | {"kind": "merge", "reads": list(step.reads), "rows": step.rows}
