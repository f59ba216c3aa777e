"""Render a plan as text: one line per operator, the sink on top."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from emsqrt.expr import SortKey
from emsqrt.plan.nodes import (
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
    NamedAgg,
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
from emsqrt.plan.tree import inputs_of
from emsqrt.plan.window import Window, WindowCall


def explain(plan: Plan, note: Callable[[Plan], str] = lambda node: "") -> str:
    """Return the operators of `plan` from the last to the scans, each below its consumer.

    Args:
        plan: any plan.
        note: returns text to append to an operator's line; empty by default.
    """
    lines: list[str] = []
    pending = [(plan, 0)]
    while pending:
        node, depth = pending.pop()
        behind = note(node)
        lines.append(f"{'  ' * depth}{line_of(node)}{f'  {behind}' if behind else ''}")
        pending += [(below, depth + 1) for below in reversed(inputs_of(node))]
    return "\n".join(lines)


def line_of(node: Plan) -> str:
    """Return one operator as a line of text, without its inputs."""
    return _LINES[type(node)](node)


def _scan(node: Scan) -> str:
    listed = f" [{', '.join(node.columns)}]" if node.columns else ""
    blocks = "" if node.predicate is None else f" blocks where {node.predicate!s}"
    return f"scan {_source(node.source)}{listed}{blocks}"


def _aggregate(node: Aggregate) -> str:
    word = "" if node.phase == "full" else f" {node.phase}"
    by = f" by {_named(node.keys)}" if node.keys else ""
    return f"aggregate{word} {_named(node.aggs)}{by}"


def _sink(node: Sink) -> str:
    if isinstance(node.target, FileTarget):
        return f"sink {node.target.format} {node.target.path}"
    return f"sink {node.target.format} stream"


def _join(node: Join) -> str:
    pairs = ", ".join(one if one == other else f"{one} = {other}" for one, other in node.on)
    return f"join {node.how}" + (f" on {pairs}" if pairs else "")


def _explode(node: Explode) -> str:
    words = [f"explode {node.column}"]
    words += [f"as {node.as_name}"] if node.as_name else []
    words += ["outer"] if node.outer else []
    words += [f"with position {node.position}"] if node.position else []
    return " ".join(words)


def _sample(node: Sample) -> str:
    much = f"{node.count} rows" if node.fraction is None else f"{node.fraction:g} of the rows"
    after = f", after {node.first_row} rows" if node.first_row else ""
    word = "" if node.phase == "full" else f" {node.phase}"
    return f"sample{word} {much}, seed {node.seed}{after}"


def _expect(node: Expect) -> str:
    wishes = [f"{', '.join(node.unique)} unique"] if node.unique else []
    wishes += [f"{', '.join(node.not_null)} not null"] if node.not_null else []
    wishes += [f"rows {node.rows}"] if node.rows else []
    return f"expect {'; '.join(wishes)}"


def _source(source: Files | DatasetRef) -> str:
    if isinstance(source, DatasetRef):
        place = source.snapshot or source.version or source.timestamp
        return f"dataset {source.dataset}" + ("" if place is None else f" at {place}")
    more = len(source.paths) - 1
    return f"{source.format} {source.paths[0]}" + (f" and {more} more" if more else "")


def _named(columns: tuple[Named, ...] | tuple[NamedAgg, ...]) -> str:
    return ", ".join(name if str(expr) == name else f"{expr!s} as {name}" for name, expr in columns)


def _keys(keys: tuple[SortKey, ...]) -> str:
    return ", ".join(map(str, keys))


def _offset(offset: int) -> str:
    return f" offset {offset}" if offset else ""


def _window(node: Window) -> str:
    by = f" by {', '.join(map(str, node.partition_by))}" if node.partition_by else ""
    order = f" in order of {_keys(node.order_by)}" if node.order_by else ""
    calls = ", ".join(f"{_call(call)} as {name}" for name, call in node.functions)
    return f"window {calls}{by}{order}"


def _call(call: WindowCall) -> str:
    return f"{call!s}" if call.frame is None else f"{call!s} over {call.frame!s}"


_LINES: dict[type[Plan], Callable[[Any], str]] = {
    Scan: _scan,
    Filter: lambda node: f"filter {node.predicate!s}",
    Project: lambda node: f"project {_named(node.columns)}",
    WithColumn: lambda node: f"with_column {_named(node.columns)}",
    Rename: lambda node: f"rename {', '.join(f'{old} as {new}' for old, new in node.names)}",
    Aggregate: _aggregate,
    Limit: lambda node: f"limit {node.count}{_offset(node.offset)}",
    Sort: lambda node: f"{'merge' if node.merge else 'sort'} by {_keys(node.keys)}",
    TopK: lambda node: f"top_k {node.count}{_offset(node.offset)} by {_keys(node.keys)}",
    Distinct: lambda node: "distinct" + (f" by {', '.join(node.columns)}" if node.columns else ""),
    Join: _join,
    Union: lambda node: "union by name" if node.by_name else "union",
    Window: _window,
    Explode: _explode,
    Sample: _sample,
    Expect: _expect,
    Custom: lambda node: " ".join(f"custom {node.name} {node.options.get('label', '')}".split()),
    Sink: _sink,
}
