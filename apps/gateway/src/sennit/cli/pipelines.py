"""Start the job that the options of `platform run` describe."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from elytra.client.job_choices import request_members
from emsqrt.expr import parse_expr
from sennit_core.errors import UsageError

if TYPE_CHECKING:
    from elytra.client.job_handle import Job
    from elytra.pipelines.pipeline import Pipeline
    from sennit.client import Session


@dataclass(frozen=True, slots=True)
class Steps:
    """The steps that the options of `platform run` describe, in order of execution."""

    where: str | None
    group_by: str | None
    agg: list[str]
    select: str | None
    limit: int | None
    version: str | None = None
    timestamp: str | None = None

    @property
    def empty(self) -> bool:
        """Whether no option is set."""
        steps = (self.where, self.group_by, self.agg, self.select, *self.place)
        return not any(steps) and self.limit is None

    @property
    def place(self) -> dict[str, int | str]:
        """Which version of the dataset is read: arguments of `Session.pipeline`."""
        found: dict[str, int | str] = {}
        if self.version is not None:
            # What is no number is a tag, as in SQL.
            found["version"] = int(self.version) if self.version.isdecimal() else self.version
        if self.timestamp is not None:
            found["timestamp"] = self.timestamp
        return found


def job_from(
    session: Session,
    source: str,
    steps: Steps,
    *,
    engine: str,
    mem_cap: str | None,
    choices: dict[str, Any],
) -> Job:
    """Start the plan of a JSON file, or the steps over a dataset."""
    if not source.endswith(".json"):
        pipeline = session.pipeline(source, **steps.place)
        return _grown(pipeline, steps).submit(engine=engine, mem_cap=mem_cap, **choices)
    if not steps.empty:
        raise UsageError("a plan file cannot be combined with other options", hint="omit them")
    options = request_members(choices) | ({"memCap": mem_cap} if mem_cap else {})
    return session.submit(_read_plan(Path(source)), engine=engine, **options)


def _grown(pipeline: Pipeline, steps: Steps) -> Pipeline:
    if steps.where:
        pipeline = pipeline.filter(parse_expr(steps.where))
    if steps.group_by or steps.agg:
        aggregates = dict(map(_named, steps.agg)) or {"count": "count()"}
        named = {name: parse_expr(text) for name, text in aggregates.items()}
        pipeline = pipeline.group_by(*_names(steps.group_by)).agg(**named)
    if steps.select:
        pipeline = pipeline.select(*_names(steps.select))
    return pipeline if steps.limit is None else pipeline.limit(steps.limit)


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
