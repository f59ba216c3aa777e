"""Convert plan nodes to JSON objects, omitting members with default values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from emsqrt.expr import SortKey, expr_to_json
from emsqrt.expr.document import Json
from emsqrt.expr.errors import BadPlan
from emsqrt.plan.expectations import spell_rows
from emsqrt.plan.nodes import (
    NODES_MAX,
    SUFFIX,
    Aggregate,
    Custom,
    DatasetRef,
    Distinct,
    Expect,
    Explode,
    Files,
    FileTarget,
    Filter,
    Join,
    Limit,
    Named,
    Plan,
    Project,
    Rename,
    Sample,
    Scan,
    Sink,
    Sort,
    Source,
    StreamTarget,
    Target,
    TopK,
    Union,
    WithColumn,
)
from emsqrt.plan.tree import walk
from emsqrt.plan.window import Window, WindowCall


def write_plan(plan: Plan) -> Json:
    """Return the JSON object of `plan`, without the version.

    Raises:
        BadPlan: more operators or a deeper expression than a reader accepts.
    """
    written: list[Json] = []
    for count, node in enumerate(walk(plan), start=1):
        if count > NODES_MAX:
            raise BadPlan(pointer="", reason=f"more than {NODES_MAX} operators")
        document: Json = _WRITERS[type(node)](node)
        match node:
            case Scan():
                pass
            case Join():
                right, left = written.pop(), written.pop()
                document |= {"left": left, "right": right}
            case Union(inputs=inputs) | Custom(inputs=inputs):
                first = len(written) - len(inputs)
                document |= {"inputs": written[first:]}
                del written[first:]
            case _:
                document |= {"input": written.pop()}
        written.append(document)
    return written[0]


def _write_scan(node: Scan) -> Json:
    scan: Json = {"op": "scan", "source": _write_source(node.source)}
    if node.schema is not None:
        scan["schema"] = node.schema.to_json()
    if node.columns is not None:
        scan["columns"] = list(node.columns)
    if node.predicate is not None:
        scan["predicate"] = expr_to_json(node.predicate)
    return scan


def _write_source(source: Source) -> Json:
    match source:
        case Files(paths, format, options):
            files: Json = {"files": list(paths), "format": format}
            return {**files, "options": dict(options)} if options else files
        case DatasetRef(dataset, snapshot, version, timestamp):
            named = {"snapshot": snapshot, "version": version, "timestamp": timestamp}
            chosen = {name: value for name, value in named.items() if value is not None}
            return {"dataset": dataset, **chosen}


def _write_target(target: Target) -> Json:
    match target:
        case FileTarget(path, format, options):
            file: Json = {"file": path, "format": format}
            return {**file, "options": dict(options)} if options else file
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


def _write_keys(keys: Sequence[SortKey]) -> list[Json]:
    return [
        {"expr": expr_to_json(key.expr)}
        | _flags(descending=key.descending, nullsFirst=key.nulls_first)
        for key in keys
    ]


def _flags(**flags: bool) -> Json:
    """Return only the flags that are true."""
    return {name: True for name, value in flags.items() if value}


def _write_top_k(node: TopK) -> Json:
    top_k: Json = {"op": "top_k", "keys": _write_keys(node.keys), "count": node.count}
    return {**top_k, "offset": node.offset} if node.offset else top_k


def _write_distinct(node: Distinct) -> Json:
    columns: Json = {} if node.columns is None else {"columns": list(node.columns)}
    return {"op": "distinct", **columns}


def _write_join(node: Join) -> Json:
    join: Json = {"op": "join"}
    if node.how != "inner":
        join["how"] = node.how
    if node.on:
        join["on"] = [{"left": left, "right": right} for left, right in node.on]
    return join if node.suffix == SUFFIX else {**join, "suffix": node.suffix}


def _write_window(node: Window) -> Json:
    window: Json = {"op": "window"}
    if node.partition_by:
        window["partitionBy"] = [expr_to_json(expr) for expr in node.partition_by]
    if node.order_by:
        window["orderBy"] = _write_keys(node.order_by)
    calls = [{"name": name, "call": _write_call(call)} for name, call in node.functions]
    return {**window, "functions": calls}


def _write_call(call: WindowCall) -> Json:
    document: Json = {"window": call.fn}
    if call.arg is not None:
        document["arg"] = expr_to_json(call.arg)
    if call.params:
        document["params"] = [expr_to_json(param) for param in call.params]
    if call.frame is not None:
        bounds = {"start": call.frame.start, "end": call.frame.end}
        present = {name: bound for name, bound in bounds.items() if bound is not None}
        document["frame"] = {"unit": call.frame.unit, **present}
    return document


def _write_explode(node: Explode) -> Json:
    explode: Json = {"op": "explode", "column": node.column, **_flags(outer=node.outer)}
    if node.as_name is not None:
        explode["as"] = node.as_name
    return explode if node.position is None else {**explode, "position": node.position}


def _write_sample(node: Sample) -> Json:
    sample: Json = {"op": "sample"}
    if node.fraction is not None:
        sample["fraction"] = float(node.fraction).hex()
    if node.count is not None:
        sample["count"] = node.count
    if node.first_row:
        sample["firstRow"] = node.first_row
    if node.phase != "full":
        sample["phase"] = node.phase
    return {**sample, "seed": node.seed} if node.seed else sample


def _write_expect(node: Expect) -> Json:
    expect: Json = {"op": "expect"}
    if node.unique:
        expect["unique"] = list(node.unique)
    if node.not_null:
        expect["notNull"] = list(node.not_null)
    return expect if node.rows is None else {**expect, "rows": spell_rows(node.rows)}


def _write_custom(node: Custom) -> Json:
    custom: Json = {"op": "custom", "name": node.name}
    if node.options:
        custom["options"] = dict(node.options)
    return custom if node.schema is None else {**custom, "schema": node.schema.to_json()}


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
    Sort: lambda node: {
        "op": "sort",
        "keys": _write_keys(node.keys),
        **_flags(merge=node.merge),
    },
    TopK: _write_top_k,
    Distinct: _write_distinct,
    Join: _write_join,
    Union: lambda node: {"op": "union", **_flags(byName=node.by_name)},
    Window: _write_window,
    Explode: _write_explode,
    Sample: _write_sample,
    Expect: _write_expect,
    Custom: _write_custom,
    Sink: lambda node: {"op": "sink", "target": _write_target(node.target)},
}
