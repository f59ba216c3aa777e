"""Plans as documents of EM-√ in YAML, which `emsqrt run` and `elytra run` read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

from elytra.cli.codegen.steps import leading_columns, no_form, spine_of, text_of
from emsqrt.expr import Column, Expr, SortKey
from emsqrt.plan import (
    Aggregate,
    DatasetRef,
    Distinct,
    Expect,
    Explode,
    Files,
    FileTarget,
    Filter,
    Join,
    Limit,
    Plan,
    Project,
    Rename,
    Sample,
    Scan,
    Sink,
    Sort,
    TopK,
    Union,
    WithColumn,
)
from emsqrt.plan.nodes import SUFFIX
from emsqrt.plan.window import Window
from sennit_core.optional import import_optional

__all__ = ["yaml_text"]

Json: TypeAlias = dict[str, Any]

FORM = "YAML"


def yaml_text(plan: Plan) -> str:
    """Return a document with the steps of a plan; raises Unsupported for what has no step."""
    yaml = import_optional("yaml", "--to yaml")
    text: str = yaml.safe_dump(
        {"steps": _escaped(_rows(plan))}, sort_keys=False, allow_unicode=True, width=100
    )
    return text


def _escaped(value: Any) -> Any:
    """Escape what a document would replace by a variable."""
    if isinstance(value, str):
        return value.replace("${", "$${")
    if isinstance(value, list):
        return [_escaped(each) for each in value]
    if isinstance(value, dict):
        return {key: _escaped(each) for key, each in value.items()}
    return value


def _rows(plan: Plan) -> list[Json]:
    scan, steps = spine_of(plan)
    return [{"scan": _scan(scan)}, *map(_step, steps)]


def _scan(scan: Scan) -> Json:
    match scan.source:
        case DatasetRef(version=None, timestamp=None) as ref:
            found: Json = {"dataset": ref.dataset, "snapshot": ref.snapshot}
        case Files() as files:
            paths = list(files.paths)
            found = {
                "source": paths[0] if len(paths) == 1 else paths,
                "format": files.format,
                "options": dict(files.options) or None,
            }
        case _:
            raise no_form("an earlier version or another source", FORM)
    if scan.schema is not None:
        found["schema"] = [
            {"name": f.name, "type": str(f.type), **({} if f.nullable else {"nullable": False})}
            for f in scan.schema.fields
        ]
    if scan.columns is not None:
        found["columns"] = list(scan.columns)
    return _given(**found)


def _step(step: Plan) -> Json:  # noqa: C901 - one case for each verb
    match step:
        case Filter():
            return {"filter": text_of(step.predicate, FORM)}
        case Project():
            return {"project": {"columns": _columns(step.columns)}}
        case WithColumn():
            return {"with_column": {"columns": _named(step.columns)}}
        case Rename():
            return {"rename": {"names": dict(step.names)}}
        case Aggregate(phase="full"):
            keys = {"group_by": _columns(step.keys)} if step.keys else {}
            return {"aggregate": {**keys, "aggs": _named(step.aggs)}}
        case Sort():
            return {"sort": {"by": _keys(step.keys)}}
        case TopK():
            more = {"offset": step.offset} if step.offset else {}
            return {"top_k": {"by": _keys(step.keys), "count": step.count, **more}}
        case Limit():
            return {
                "limit": {"count": step.count, **({"offset": step.offset} if step.offset else {})}
            }
        case Distinct():
            return {"distinct": {} if step.columns is None else {"columns": list(step.columns)}}
        case Sample(phase="full"):
            return {
                "sample": _given(fraction=step.fraction, count=step.count, seed=step.seed or None)
            }
        case Explode():
            named = {"as": step.as_name} if step.as_name is not None else {}
            more = _given(outer=step.outer or None, position=step.position)
            return {"explode": {"column": step.column, **named, **more}}
        case Expect():
            return {
                "expect": _given(
                    unique=list(step.unique) or None,
                    not_null=list(step.not_null) or None,
                    rows=step.rows,
                )
            }
        case Join():
            joined = {"with": _rows(step.right)}
            on = dict(step.on) if step.on else None
            how = None if step.how == "inner" else step.how
            suffix = None if step.suffix == SUFFIX else step.suffix
            return {"join": {**joined, **_given(on=on, how=how, suffix=suffix)}}
        case Union():
            more = {"by_name": True} if step.by_name else {}
            return {"union": {"with": [_rows(each) for each in step.inputs[1:]], **more}}
        case Window():
            return {"window": _window(step)}
        case Sink(target=FileTarget() as target):
            options = dict(target.options) or None
            return {"sink": _given(destination=target.path, format=target.format, options=options)}
    raise no_form(f"the operator {type(step).__name__}", FORM)


def _window(window: Window) -> Json:
    calls = {
        name: str(call) + (f" {call.frame}" if call.frame is not None else "")
        for name, call in window.functions
    }
    parts = [text_of(expr, FORM) for expr in window.partition_by] or None
    order = _keys(window.order_by) if window.order_by else None
    return _given(partition_by=parts, order_by=order, functions=calls)


def _columns(columns: Sequence[tuple[str, Expr]]) -> list[Any]:
    plain = leading_columns(tuple(columns))
    names: list[Any] = [text_of(Column(name), FORM) for name, _ in columns[:plain]]
    rest = columns[plain:]
    return [*names, *({name: text_of(expr, FORM)} for name, expr in rest)]


def _named(columns: Sequence[tuple[str, Expr]]) -> Json:
    return {name: text_of(expr, FORM) for name, expr in columns}


def _keys(keys: Sequence[SortKey]) -> list[Json]:
    return [
        {
            "expr": text_of(key.expr, FORM),
            **({"descending": True} if key.descending else {}),
            **({"nulls_first": True} if key.nulls_first else {}),
        }
        for key in keys
    ]


def _given(**values: Any) -> Json:
    return {name: value for name, value in values.items() if value is not None}
