"""Resolve the schema of every scan, and of every node above."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from emsqrt.plan import Plan, Scan, chain, node_schema, rewrite, scans_of
from emsqrt.plan.tree import fold
from sennit_core.errors import UsageError
from sennit_core.schema import Schema


def find_schema(plan: Plan, folder: Path, cap_bytes: int | None = None) -> Plan:
    """Set the schema of each scan without one to that of its first file."""

    def found(node: Plan) -> Plan:
        if not isinstance(node, Scan) or node.schema is not None:
            return node
        from emsqrt.io.inference import infer_schema

        return replace(node, schema=infer_schema(node.source, folder, cap_bytes))

    return rewrite(plan, found)


def schemas_of(plan: Plan) -> dict[int, Schema]:
    """Return the output schema of each node by its `id`; raises as `check`."""
    found: dict[int, Schema] = {}

    def visit(node: Plan, inputs: tuple[Schema, ...]) -> Schema:
        found[id(node)] = node_schema(node, inputs)
        return found[id(node)]

    fold(plan, visit)
    return found


def schemas_known(plan: Plan) -> bool:
    """Return whether each scan has a schema."""
    return all(scan.schema is not None for scan in scans_of(plan))


def scan_of(plan: Plan) -> Scan:
    """Return the one scan at the bottom of a plan."""
    scan = chain(plan)[0]
    if not isinstance(scan, Scan):
        raise UsageError(f"a plan must begin with a scan, not with {type(scan).__name__.lower()}")
    return scan
