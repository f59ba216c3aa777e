"""`platform run`'s words, turned into a pipeline."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from emsqrt.expr import parse_expr
from sennit_core.errors import UsageError

if TYPE_CHECKING:
    from elytra.pipeline import Pipeline
    from sennit.client import Session


def pipeline_from(  # noqa: PLR0913 - one for each option of the verb
    session: Session,
    source: str,
    *,
    where: str | None,
    select: str | None,
    group_by: str | None,
    agg: list[str],
    limit: int | None,
) -> Pipeline:
    """A pipeline over a dataset by name, or the plan of a JSON file, with what was asked added."""
    if source.endswith(".json"):
        pipeline = session.pipeline_from_plan(_read_plan(Path(source)))
    else:
        pipeline = session.pipeline(source)
    if where:
        pipeline = pipeline.filter(parse_expr(where))
    if group_by or agg:
        aggregates = dict(map(_named, agg)) or {"count": "count()"}
        named = {name: parse_expr(text) for name, text in aggregates.items()}
        pipeline = pipeline.group_by(*_names(group_by)).agg(**named)
    if select:
        pipeline = pipeline.select(*_names(select))
    return pipeline if limit is None else pipeline.limit(limit)


def _read_plan(path: Path) -> dict[str, object]:
    try:
        plan = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as problem:
        raise UsageError(f"{path} is not JSON: {problem}", hint="see docs/plan-ir.md") from None
    if not isinstance(plan, dict):
        raise UsageError(f"{path} holds no plan", hint='a plan is an object with "v" and "op"')
    return plan


def _names(text: str | None) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()] if text else []


def _named(text: str) -> tuple[str, str]:
    name, equals, expression = text.partition("=")
    if not equals or not name.strip():
        raise UsageError(
            f"--agg {text!r} has no name", hint="write NAME=EXPRESSION, such as n=count()"
        )
    return name.strip(), expression.strip()
