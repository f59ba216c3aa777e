"""Plans as people write them: a document of steps, turned into the plan tree.

```json
{"steps": [
  {"scan": {"source": "logs.csv", "schema": [{"name": "uid", "type": "Utf8"}]}},
  {"filter": {"expr": "amount > 1000"}},
  {"aggregate": {"group_by": ["uid"], "aggs": ["COUNT(*)", "SUM(amount)"]}},
  {"sink": {"destination": "summary.csv", "format": "csv"}}
]}
```
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from emsqrt.pipeline import Pipeline, scan
from emsqrt.plan import Plan, plan_from_json
from sennit_core.errors import BadInput, Unsupported, UsageError, nearest
from sennit_core.schema import Schema

Json = Mapping[str, Any]


def read_plan_file(path: Path) -> Plan:
    """Return the plan in a JSON file: plan JSON (`{"v": 1, …}`) or a document of steps.

    Raises:
        Unsupported: it is YAML.
        BadInput: it is not JSON.
        UsageError: it is neither form.
    """
    if path.suffix.lower() in (".yaml", ".yml"):
        raise Unsupported(f"{path} is YAML; plans are read as JSON", hint="write it as JSON")
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise BadInput(str(path), reason=f"not JSON: {error}") from error
    if isinstance(document, Mapping) and "steps" in document:
        return plan_from_steps(document["steps"])
    return plan_from_json(document)


def plan_from_steps(steps: Any) -> Plan:
    """Return the plan of a list of steps, each `{verb: arguments}`.

    Raises:
        UsageError: a step is not understood; names it and the nearest verb.
    """
    pipeline: Pipeline | None = None
    for number, step in enumerate(steps, start=1):
        verb, arguments = _open_step(number, step)
        if (verb == "scan") != (pipeline is None):
            raise UsageError(f"step {number}: a document begins with its one scan")
        try:
            pipeline = _VERBS[verb](pipeline, arguments)
        except KeyError as error:
            raise UsageError(f"step {number}: {verb} needs {error}") from error
    if pipeline is None:
        raise UsageError("a document of steps needs at least a scan and a sink")
    return pipeline.plan


def _open_step(number: int, step: Any) -> tuple[str, Json]:
    if not isinstance(step, Mapping) or len(step) != 1:
        raise UsageError(f"step {number} is not one verb with its arguments: {step!r}")
    ((verb, arguments),) = step.items()
    if verb not in _VERBS:
        guess = nearest(str(verb), tuple(_VERBS))
        raise Unsupported(
            f"step {number}: there is no verb {verb!r}; there are {', '.join(_VERBS)}",
            hint=f'did you mean "{guess}"?' if guess else None,
        )
    if not isinstance(arguments, Mapping):
        raise UsageError(f"step {number}: {verb} takes an object, not {arguments!r}")
    return str(verb), arguments


def _scan(_: Any, step: Json) -> Pipeline:
    schema = Schema.from_json({"fields": step["schema"]}) if "schema" in step else None
    source = step["source"]
    paths = [source] if isinstance(source, str) else source
    return scan(*paths, format=step.get("format"), schema=schema, **step.get("options", {}))


_VERBS: dict[str, Callable[[Any, Json], Pipeline]] = {
    "scan": _scan,
    "filter": lambda rows, step: rows.filter(step["expr"]),
    "project": lambda rows, step: rows.select(*step["columns"]),
    "rename": lambda rows, step: rows.rename(step["names"]),
    "with_column": lambda rows, step: rows.with_column(step["name"], step["expr"]),
    "aggregate": lambda rows, step: rows.group_by(*step.get("group_by", ())).agg(*step["aggs"]),
    "limit": lambda rows, step: rows.limit(step["count"], step.get("offset", 0)),
    "sink": lambda rows, step: rows.sink(step["destination"], step.get("format")),
}
