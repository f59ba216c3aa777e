"""The forms of generated code, and the check that a text is the plan that it was made of."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from elytra.cli.codegen.python import python_text
from elytra.cli.codegen.steps import no_form
from elytra.cli.codegen.typescript import typescript_text
from elytra.cli.codegen.yaml import yaml_text
from elytra.pipelines.pipeline import Pipeline
from emsqrt.documents.reading import document_from
from emsqrt.documents.yaml_text import read_yaml
from emsqrt.plan import Plan, Sink, plan_from_json, plan_to_json
from emsqrt.plan.wire import canonical_plan
from sennit_core.errors import SennitError, Unsupported

__all__ = ["FORMS", "code_of"]


def _json_text(plan: Plan) -> str:
    return json.dumps(plan_to_json(plan), indent=2, ensure_ascii=False) + "\n"


FORMS: Mapping[str, Callable[[Plan], str]] = {
    "python": python_text,
    "typescript": typescript_text,
    "yaml": yaml_text,
    "json": _json_text,
}


def code_of(plan: Plan, form: str) -> str:
    """Return a plan as text.

    Python, YAML and JSON are read back, and must be the same plan. TypeScript is not run here.

    Args:
        plan: The plan.
        form: One of `FORMS`.

    Raises:
        Unsupported: The form has nothing for a part of the plan.
    """
    if isinstance(plan, Sink) and form in ("python", "typescript"):
        raise Unsupported(
            f"a step that writes a file is not part of a pipeline in {form}",
            hint="leave it out, and call write_csv, write_json or write_parquet",
        )
    text = FORMS[form](plan)
    reader = _READERS.get(form)
    if reader is None:
        return text
    try:
        same = canonical_plan(reader(text)) == canonical_plan(plan)
    except SennitError:
        same = False
    if not same:
        raise no_form("this plan", form)
    return text


class _Source:
    """Begins pipelines that run nowhere, as generated Python expects."""

    def remote(self, dataset: str, snapshot: str | None = None, **place: Any) -> Pipeline:
        return Pipeline.over(self, dataset, snapshot, **place)  # type: ignore[arg-type]

    def pipeline(self, plan: Plan) -> Pipeline:
        return Pipeline.over_rows(self, plan)  # type: ignore[arg-type]


def _read_python(text: str) -> Plan:
    names: dict[str, Any] = {}
    # Generated a moment ago; what comes from the plan in it is quoted.
    exec(compile(text, "<generated>", "exec"), names)
    pipeline: Pipeline = names["pipeline"](_Source())
    return pipeline.plan


_READERS: Mapping[str, Callable[[str], Plan]] = {
    "python": _read_python,
    "yaml": lambda text: document_from(read_yaml(text, "generated"), {}, None).plan,
    "json": lambda text: plan_from_json(json.loads(text)),
}
