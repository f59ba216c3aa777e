"""A distributed plan for people: what runs where, what is gathered and why, and what it moves."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from lake.peers.sql.plan import DistributedPlan, Fragment, Gather, Merge, Step

__all__ = ["explain_json", "explain_text"]


def explain_text(plan: DistributedPlan) -> str:
    """Return a plan as text of several lines."""
    return "\n".join(_lines(plan))


def explain_json(plan: DistributedPlan) -> dict[str, Any]:
    """Return a plan as JSON data, with the names that the wire has."""
    return {
        "strategy": plan.strategy,
        "steps": [_step_json(step) for step in plan.steps],
        "finalSql": plan.final_sql,
        "movedBytes": plan.moved_bytes,
        "pushBytes": plan.cost.push,
        "gatherBytes": plan.cost.gather,
        "isLocal": plan.cost.is_local,
        "reasons": list(plan.reasons),
    }


def _lines(plan: DistributedPlan) -> Iterator[str]:
    if plan.strategy == "local":
        yield "local: this node has all rows"
    else:
        other = "" if plan.strategy == "gather" else f" (gather: about {plan.cost.gather})"
        yield f"{plan.strategy}: about {plan.moved_bytes} bytes over the network{other}"
    yield from (f"  because {reason}" for reason in plan.reasons)
    for step in plan.steps:
        yield from _step_lines(step)
    yield f"final: {plan.final_sql}"


def _step_lines(step: Step) -> Iterator[str]:
    match step:
        case Fragment():
            left = sum(len(objects) for unit in step.units for objects in unit.shards.values())
            yield (
                f"fragment {step.result}: {len(step.units)} units by {step.by} "
                f"({left} of {step.shards} shards), about {step.bytes} bytes"
            )
            sources = [f"{name} of the unit" for name in step.sharded]
            sources += [f"{name} whole" for name in step.replicated]
            sources += [f"{name} sent along" for name in step.broadcasts]
            yield f"  {'; '.join(sources)}"
        case Gather():
            columns = ", ".join(step.columns)
            yield (
                f"gather {step.result}: {step.table} ({columns}), {len(step.objects)} of "
                f"{step.shards} shards, about {step.bytes} bytes"
            )
            yield f"  because {step.reason}"
        case Merge():
            yield f"merge {step.result}: about {step.rows} rows"
    yield f"  {step.sql}"


def _step_json(step: Step) -> dict[str, Any]:
    shared: dict[str, Any] = {"result": step.result, "sql": step.sql, "bytes": step.bytes}
    match step:
        case Fragment():
            return shared | {
                "kind": "fragment",
                "by": step.by,
                "sharded": list(step.sharded),
                "replicated": list(step.replicated),
                "broadcasts": list(step.broadcasts),
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
