"""Plans as Python: the verbs of `Pipeline`, with expressions as text."""

from __future__ import annotations

import keyword
from collections.abc import Sequence
from typing import Any

from elytra.cli.codegen.steps import leading_columns, no_form, spine_of, text_of
from emsqrt.expr import Column, Expr, SortKey
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

__all__ = ["python_text"]

FORM = "Python"


def python_text(plan: Plan) -> str:
    """Return a module with a function `pipeline(source)`; raises Unsupported for what has no verb.

    Args:
        plan: Without a Sink. Over datasets, `source` is an `Elytra(url)`; over files, a local session.
    """
    writer = _Writer()
    body = writer.rows(plan, "    ")
    imports = "".join(f"{line}\n" for line in sorted(writer.imports))
    return f"{imports}\n\ndef pipeline(source):\n    return {body}\n".lstrip("\n")


class _Writer:
    """Writes one plan, and collects the imports that it needs."""

    def __init__(self) -> None:
        self.imports: set[str] = set()

    def rows(self, plan: Plan, indent: str) -> str:
        """Return a plan as an expression over lines."""
        scan, steps = spine_of(plan)
        inner = indent + "    "
        lines = [self._scan(scan), *(f".{self._step(step, inner)}" for step in steps)]
        return "(\n" + "".join(f"{inner}{line}\n" for line in lines) + f"{indent})"

    def _scan(self, scan: Scan) -> str:
        source = scan.source
        if not isinstance(source, DatasetRef):
            self.imports.add("from emsqrt.plan import plan_from_json")
            return f"source.pipeline(plan_from_json({plan_to_json(scan)!r}))"
        place = [("snapshot", source.snapshot), ("version", source.version)]
        place.append(("timestamp", source.timestamp))
        named = [f"{name}={value!r}" for name, value in place if value is not None]
        return f"source.remote({', '.join([repr(source.dataset), *named])})"

    def _step(self, step: Plan, indent: str) -> str:  # noqa: C901 - one case for each verb
        match step:
            case Filter():
                return f"filter({self._formula(step.predicate)})"
            case Project():
                return f"select({self._columns(step.columns)})"
            case WithColumn():
                return f"with_columns({self._named(step.columns)})"
            case Rename():
                return f"rename({dict(step.names)!r})"
            case Aggregate(phase="full"):
                grouped = f"group_by({self._columns(step.keys)})." if step.keys else ""
                return f"{grouped}agg({self._named(step.aggs)})"
            case Sort():
                return f"sort({self._keys(step.keys)})"
            case TopK():
                more = f", offset={step.offset}" if step.offset else ""
                return f"top_k({step.count}, {self._keys(step.keys)}{more})"
            case Limit():
                return f"limit({step.count}{f', {step.offset}' if step.offset else ''})"
            case Distinct():
                return f"distinct({', '.join(map(repr, step.columns or ()))})"
            case Sample(phase="full"):
                size = _arguments(fraction=step.fraction, count=step.count, seed=step.seed or None)
                return f"sample({size})"
            case Explode():
                options = _arguments(
                    as_name=step.as_name, outer=step.outer or None, position=step.position
                )
                return f"explode({', '.join(filter(None, [repr(step.column), options]))})"
            case Expect():
                checks = _arguments(
                    unique=list(step.unique) or None,
                    not_null=list(step.not_null) or None,
                    rows=step.rows,
                )
                return f"expect({checks})"
            case Join():
                return self._join(step, indent)
            case Union():
                others = [self.rows(each, indent) for each in step.inputs[1:]]
                return f"union({', '.join([*others, *(['by_name=True'] if step.by_name else [])])})"
            case Window():
                return self._window(step)
        raise no_form(f"the operator {type(step).__name__}", FORM)

    def _join(self, join: Join, indent: str) -> str:
        on: Any = [left if left == right else (left, right) for left, right in join.on]
        on = on[0] if len(on) == 1 and isinstance(on[0], str) else on
        options = _arguments(
            how=None if join.how == "inner" else join.how,
            suffix=None if join.suffix == SUFFIX else join.suffix,
        )
        keys = [repr(on)] if join.on else []
        return (
            f"join({', '.join([self.rows(join.right, indent), *keys, *filter(None, [options])])})"
        )

    def _window(self, window: Window) -> str:
        parts = [self._part(expr) for expr in window.partition_by]
        named: list[str] = []
        if parts:
            named.append(f"partition_by=[{', '.join(parts)}]")
        if window.order_by:
            named.append(f"order_by=[{self._keys(window.order_by)}]")
        calls = {
            name: str(call) + (f" {call.frame}" if call.frame is not None else "")
            for name, call in window.functions
        }
        return f"window({', '.join([*named, _keywords(calls)])})"

    def _formula(self, expr: Expr) -> str:
        return repr(text_of(expr, FORM))

    def _parsed(self, expr: Expr) -> str:
        self.imports.add("from emsqrt.expr import parse_expr")
        return f"parse_expr({self._formula(expr)})"

    def _part(self, expr: Expr) -> str:
        return repr(expr.name) if isinstance(expr, Column) else self._parsed(expr)

    def _columns(self, columns: tuple[tuple[str, Expr], ...]) -> str:
        plain = leading_columns(columns)
        names = [repr(name) for name, _ in columns[:plain]]
        return ", ".join([*names, *filter(None, [self._named(columns[plain:])])])

    def _named(self, columns: Sequence[tuple[str, Expr]]) -> str:
        return _keywords({name: text_of(expr, FORM) for name, expr in columns})

    def _keys(self, keys: Sequence[SortKey]) -> str:
        return ", ".join(map(self._key, keys))

    def _key(self, key: SortKey) -> str:
        # Names with other characters might be read as a direction.
        if isinstance(key.expr, Column) and key.expr.name.isidentifier():
            marks = ":desc" * key.descending + ":nulls_first" * key.nulls_first
            return repr(key.expr.name + marks)
        self.imports.add("from emsqrt.expr import SortKey, parse_expr")
        return f"SortKey({self._parsed(key.expr)}, {key.descending}, {key.nulls_first})"


def _arguments(**values: Any) -> str:
    return ", ".join(f"{name}={value!r}" for name, value in values.items() if value is not None)


def _keywords(values: dict[str, str]) -> str:
    """Return arguments by name; names that are no identifiers of Python are in a dict."""
    if all(name.isidentifier() and not keyword.iskeyword(name) for name in values):
        return _arguments(**values)
    return f"**{values!r}"
