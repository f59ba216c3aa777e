"""What is done to a plan before it runs: plain functions from plan to plan, in this order."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from emsqrt.expr import columns_of
from emsqrt.plan import (
    Aggregate,
    Filter,
    Plan,
    Project,
    Rename,
    Scan,
    WithColumn,
    chain,
)
from sennit_core.errors import UsageError

Rule = Callable[[Plan, Path], Plan]
"""Takes a plan and the folder where its relative paths start."""


def find_schema(plan: Plan, folder: Path) -> Plan:
    """Give a scan without a schema the one that its first file has."""
    scan = scan_of(plan)
    if scan.schema is not None:
        return plan
    from emsqrt.io.scan import infer_schema

    return with_scan(plan, replace(scan, schema=infer_schema(scan.source, folder)))


def prune_columns(plan: Plan, folder: Path) -> Plan:
    """Read only the columns that something above the scan looks at."""
    del folder
    scan = scan_of(plan)
    needed: set[str] | None = None
    for node in reversed(chain(plan)[1:]):
        needed = _needed_below(node, needed)
    if needed is None or scan.schema is None:
        return plan
    present = scan.schema.names if scan.columns is None else scan.columns
    kept = tuple(name for name in present if name in needed) or present[:1]
    return with_scan(plan, replace(scan, columns=kept))


RULES: tuple[Rule, ...] = (find_schema, prune_columns)


def scan_of(plan: Plan) -> Scan:
    """Return the scan that a plan begins with."""
    scan = chain(plan)[0]
    if not isinstance(scan, Scan):
        raise UsageError(f"a plan begins with a scan, not with {type(scan).__name__.lower()}")
    return scan


def with_scan(plan: Plan, scan: Scan) -> Plan:
    """Return the plan with another scan at its beginning."""
    rebuilt: Plan = scan
    for node in chain(plan)[1:]:
        rebuilt = replace(cast("Any", node), input=rebuilt)
    return rebuilt


def _needed_below(node: Plan, needed: set[str] | None) -> set[str] | None:
    """Return the columns that a node wants of its input, given what is wanted of it."""
    match node:
        case Project(columns=columns):
            return _used(expr for _, expr in columns)
        case Aggregate(keys=keys, aggs=aggs, phase=phase):
            if phase == "final":  # it reads states, whose names are the partial phase's affair
                return None
            return _used([*(expr for _, expr in keys), *(agg for _, agg in aggs)])
        case _ if needed is None:
            return None
        case Filter(predicate=predicate):
            return needed | _used([predicate])
        case WithColumn(columns=columns):
            made = {name for name, _ in columns}
            return (needed - made) | _used(expr for _, expr in columns)
        case Rename(names=names):
            old_names = {new: old for old, new in names}
            return {old_names.get(name, name) for name in needed}
    return needed


def _used(exprs: Any) -> set[str]:
    return {name for expr in exprs for name in columns_of(expr)}
