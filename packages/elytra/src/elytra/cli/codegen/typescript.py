"""Plans as TypeScript: the verbs of `@sennit/elytra`."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from elytra.cli.codegen.steps import leading_columns, no_form, spine_of
from emsqrt.expr import Agg, Call, Case, Cast, Column, Expr, Literal, SortKey
from emsqrt.expr.wire import expr_to_json
from emsqrt.plan import (
    Aggregate,
    DatasetRef,
    Distinct,
    Expect,
    Explode,
    Filter,
    Join,
    Limit,
    Plan,
    Project,
    Rename,
    Sample,
    Scan,
    Sort,
    TopK,
    Union,
    WithColumn,
    plan_to_json,
)
from emsqrt.plan.nodes import SUFFIX
from emsqrt.plan.window import Window

__all__ = ["typescript_text"]

FORM = "TypeScript"
_SAFE_INTEGER = (1 << 53) - 1
_IDENTIFIER = re.compile(r"[A-Za-z_$][A-Za-z0-9_$]*")
_METHODS = frozenset(
    ["add", "sub", "mul", "div", "idiv", "mod", "eq", "ne", "lt", "le", "gt", "ge"]
)
"""Functions of two arguments that are methods of an expression."""


def typescript_text(plan: Plan) -> str:
    """Return a module with a function `pipeline(node)`; raises Unsupported for what has no verb."""
    writer = _Writer()
    body = writer.rows(plan, "  ")
    names = ", ".join(sorted(writer.names))
    return (
        f"import {{ {names}, type AnyRow, type Elytra }} from '@sennit/elytra'\n\n"
        if names
        else "import type { AnyRow, Elytra } from '@sennit/elytra'\n\n"
    ) + f"export function pipeline(node: Elytra) {{\n  return {body}\n}}\n"


class _Writer:
    """Writes one plan, and collects the names that it imports."""

    def __init__(self) -> None:
        self.names: set[str] = set()

    def rows(self, plan: Plan, indent: str) -> str:
        """Return a plan as an expression over lines."""
        scan, steps = spine_of(plan)
        inner = indent + "  "
        lines = (f"\n{inner}.{self._step(step, inner)}" for step in steps)
        return self._scan(scan) + "".join(lines)

    def _scan(self, scan: Scan) -> str:
        source = scan.source
        if (
            not isinstance(source, DatasetRef)
            or scan.schema is not None
            or scan.columns is not None
        ):
            raise no_form("a source that is not a dataset of a node", FORM)
        place = {"snapshot": source.snapshot, "version": source.version}
        place["timestamp"] = source.timestamp
        named = _object({name: _js(value) for name, value in place.items() if value is not None})
        at = "" if named == "{}" else f", {named}"
        return f"node.remote<AnyRow>({_js(source.dataset)}{at})"

    def _step(self, step: Plan, indent: str) -> str:  # noqa: C901 - one case for each verb
        match step:
            case Filter():
                return f"filter({self._expr(step.predicate)})"
            case Project():
                return f"select({self._columns(step.columns)})"
            case WithColumn():
                return f"withColumns({self._named(step.columns)})"
            case Rename():
                return f"rename({_object({old: _js(new) for old, new in step.names})})"
            case Aggregate(phase="full") if step.aggs:
                grouped = f"groupBy({self._columns(step.keys)})." if step.keys else ""
                return f"{grouped}agg({self._named(step.aggs)})"
            case Sort():
                return f"sort({self._keys(step.keys)})"
            case TopK(offset=0):
                return f"topK({step.count}, {self._keys(step.keys)})"
            case Limit():
                return f"limit({step.count}{f', {step.offset}' if step.offset else ''})"
            case Distinct():
                return f"distinct({', '.join(map(_js, step.columns or ()))})"
            case Sample(phase="full"):
                size = {"fraction": step.fraction, "count": step.count, "seed": step.seed or None}
                return f"sample({_given(size)})"
            case Explode():
                named = {"as": step.as_name, "position": step.position, "outer": step.outer or None}
                more = _given(named)
                return f"explode({_js(step.column)}{'' if more == '{}' else f', {more}'})"
            case Expect():
                unique, not_null = list(step.unique) or None, list(step.not_null) or None
                return (
                    f"expect({_given({'unique': unique, 'notNull': not_null, 'rows': step.rows})})"
                )
            case Join():
                return self._join(step, indent)
            case Union():
                others = ", ".join(self.rows(each, indent) for each in step.inputs[1:])
                return f"{'unionByName' if step.by_name else 'union'}({others})"
            case Window():
                return self._window(step)
        raise no_form(f"the operator {type(step).__name__}", FORM)

    def _join(self, join: Join, indent: str) -> str:
        pairs = [list(pair) for pair in join.on]
        more = [_js(join.how)] if join.how != "inner" or join.suffix != SUFFIX else []
        more += [_js(join.suffix)] if join.suffix != SUFFIX else []
        return f"join({', '.join([self.rows(join.right, indent), _js(pairs), *more])})"

    def _window(self, window: Window) -> str:
        if not all(isinstance(part, Column) for part in window.partition_by):
            raise no_form("a window partitioned by a formula", FORM)
        document = plan_to_json(window)["functions"]
        self.names.add("WindowCall")
        calls = {each["name"]: f"new WindowCall({_js(each['call'])})" for each in document}
        options: dict[str, str] = {}
        if window.partition_by:
            options["partitionBy"] = _js([str_name(part) for part in window.partition_by])
        if window.order_by:
            options["orderBy"] = f"[{self._keys(window.order_by)}]"
        return f"window({_object(calls)}, {_object(options)})"

    def _columns(self, columns: tuple[tuple[str, Expr], ...]) -> str:
        plain = leading_columns(columns)
        names = [_js(name) for name, _ in columns[:plain]]
        rest = columns[plain:]
        return ", ".join([*names, *([self._named(rest)] if rest else [])])

    def _named(self, columns: Sequence[tuple[str, Expr]]) -> str:
        return _object({name: self._expr(expr) for name, expr in columns})

    def _keys(self, keys: Sequence[SortKey]) -> str:
        return ", ".join(map(self._key, keys))

    def _key(self, key: SortKey) -> str:
        options = "{ nullsFirst: true }" if key.nulls_first else ""
        return f"{self._expr(key.expr)}.{'desc' if key.descending else 'asc'}({options})"

    def _expr(self, expr: Expr) -> str:
        match expr:
            case Column(name):
                self.names.add("col")
                return f"col({_js(name)})"
            case Call(fn, (left, right)) if fn in _METHODS:
                return f"{self._expr(left)}.{fn}({self._operand(right)})"
            case Call(fn, args):
                self.names.add("call")
                return f"call({', '.join([_js(fn), *map(self._expr, args)])})"
            case Cast(arg, kind, strict):
                return f"{self._expr(arg)}.{'cast' if strict else 'tryCast'}({_js(str(kind))})"
            case Case(branches, default):
                self.names.add("when")
                pairs = (f"when({self._expr(w)}).then({self._expr(t)})" for w, t in branches)
                last = "" if default is None else f".otherwise({self._expr(default)})"
                return ".".join(pairs) + last
            case Agg():
                self.names.add("Agg")
                return f"new Agg({_js(expr_to_json(expr))})"
        assert isinstance(expr, Literal)
        if (plain := _plain(expr)) is not None:
            self.names.add("lit")
            return f"lit({plain})"
        self.names.add("Expr")
        return f"new Expr({_js(expr_to_json(expr))})"

    def _operand(self, expr: Expr) -> str:
        plain = _plain(expr) if isinstance(expr, Literal) else None
        return self._expr(expr) if plain is None else plain


def str_name(expr: Expr) -> str:
    """Return the name of a column."""
    assert isinstance(expr, Column)
    return expr.name


def _plain(literal: Literal) -> str | None:
    """Return a constant whose type in a plan is that of JavaScript's value; None for others."""
    value, kind = literal.value, "" if literal.type is None else literal.type.name
    is_plain = (
        (kind == "Utf8" and isinstance(value, str))
        or (kind == "Bool" and isinstance(value, bool))
        or (kind == "Int64" and isinstance(value, int) and abs(value) <= _SAFE_INTEGER)
    )
    if kind == "Float64" and isinstance(value, float):  # JavaScript has one type of numbers
        is_plain = math.isfinite(value) and not value.is_integer()
    return _js(value) if is_plain else None


def _given(values: Mapping[str, Any]) -> str:
    return _object({name: _js(value) for name, value in values.items() if value is not None})


def _object(members: Mapping[str, str]) -> str:
    """Return an object; members whose names are numbers would come first, whatever their order is."""
    for name in members:
        if name.isdigit() or name == "__proto__":
            raise no_form(f"a column with the name {name}", FORM)
    inner = ", ".join(
        f"{name if _IDENTIFIER.fullmatch(name) else _js(name)}: {value}"
        for name, value in members.items()
    )
    return f"{{ {inner} }}" if inner else "{}"


def _js(value: Any) -> str:
    """Return a value of JSON as TypeScript; JSON is a part of it."""
    return json.dumps(value, ensure_ascii=False)
