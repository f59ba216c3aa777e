"""Plans as JSON and back, and the canonical text whose SHA-256 names a plan.

`{"v": 1, "op": "filter", "input": {…}, "predicate": {…}}`: the version stands at the root only;
a member that has its default value is left out when written and may be given when read.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from emsqrt.expr import expr_to_json
from emsqrt.expr.document import Entry, Json, open_document
from emsqrt.expr.errors import BadPlan
from emsqrt.plan.nodes import (
    NODES_MAX,
    Aggregate,
    DatasetRef,
    Files,
    FileTarget,
    Filter,
    Limit,
    Named,
    Plan,
    Project,
    Rename,
    Scan,
    Sink,
    Source,
    StreamTarget,
    Target,
    WithColumn,
    chain,
)
from emsqrt.plan.reading import read_plan
from sennit_core.errors import Unsupported
from sennit_core.hashing import canonical_json, sha256_hex

VERSION = 1


def plan_to_json(plan: Plan) -> Json:
    """Return the JSON object of `plan`.

    Raises:
        BadPlan: more operators or a deeper expression than a reader accepts.
    """
    nodes = chain(plan)
    if len(nodes) > NODES_MAX:
        raise BadPlan(pointer="", reason=f"more than {NODES_MAX} operators")
    document: Json = {}
    for node in nodes:
        document = _WRITERS[type(node)](node) | ({"input": document} if document else {})
    return {"v": VERSION, **document}


def canonical_plan(plan: Plan) -> bytes:
    """Return the one text of `plan`: RFC 8785 JSON, UTF-8."""
    return canonical_json(plan_to_json(plan))


def plan_hash(plan: Plan) -> str:
    """Return the lower-case hex SHA-256 of `canonical_plan(plan)`."""
    return sha256_hex(canonical_plan(plan))


def plan_from_json(source: str | bytes | Mapping[str, Any]) -> Plan:
    """Return the plan written in untrusted JSON; nothing is resolved or typed yet.

    Raises:
        BadPlan: not a plan; the error's `pointer` leads to the place.
        Unsupported: it names an operator, function or type that is reserved for later.
        TooLarge: over the bounds of `open_document`.
    """
    root = open_document(source)
    if not isinstance(root.value, dict) or "v" not in root.value:
        root.fail("member 'v', the version of the plan format, is missing", hint='begin {"v": 1,')
    if root.value["v"] != VERSION or isinstance(root.value["v"], bool):
        raise Unsupported(f"plan version {root.value['v']!r}: this engine reads version {VERSION}")
    body = {key: value for key, value in root.value.items() if key != "v"}
    return read_plan(Entry(body))


def _write_scan(node: Scan) -> Json:
    scan: Json = {"op": "scan", "source": _write_source(node.source)}
    if node.schema is not None:
        scan["schema"] = node.schema.to_json()
    if node.columns is not None:
        scan["columns"] = list(node.columns)
    return scan


def _write_source(source: Source) -> Json:
    match source:
        case Files(paths, format, options):
            files: Json = {"files": list(paths), "format": format}
            return {**files, "options": dict(options)} if options else files
        case DatasetRef(dataset, snapshot):
            ref: Json = {"dataset": dataset}
            return ref if snapshot is None else {**ref, "snapshot": snapshot}


def _write_target(target: Target) -> Json:
    match target:
        case FileTarget(path, format):
            return {"file": path, "format": format}
        case StreamTarget(format):
            return {"stream": format}


def _write_named(columns: tuple[Named, ...]) -> list[Json]:
    return [{"name": name, "expr": expr_to_json(expr)} for name, expr in columns]


def _write_aggregate(node: Aggregate) -> Json:
    aggregate: Json = {
        "op": "aggregate",
        "keys": _write_named(node.keys),
        "aggs": [{"name": name, "agg": expr_to_json(agg)} for name, agg in node.aggs],
    }
    return aggregate if node.phase == "full" else {**aggregate, "phase": node.phase}


def _write_limit(node: Limit) -> Json:
    limit: Json = {"op": "limit", "count": node.count}
    return {**limit, "offset": node.offset} if node.offset else limit


_WRITERS: dict[type[Plan], Any] = {
    Scan: _write_scan,
    Filter: lambda node: {"op": "filter", "predicate": expr_to_json(node.predicate)},
    Project: lambda node: {"op": "project", "columns": _write_named(node.columns)},
    Rename: lambda node: {
        "op": "rename",
        "names": [{"from": old, "to": new} for old, new in node.names],
    },
    WithColumn: lambda node: {"op": "with_column", "columns": _write_named(node.columns)},
    Aggregate: _write_aggregate,
    Limit: _write_limit,
    Sink: lambda node: {"op": "sink", "target": _write_target(node.target)},
}
