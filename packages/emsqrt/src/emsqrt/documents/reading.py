"""Convert a document's text to a plan and settings."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from emsqrt.documents.config import read_config
from emsqrt.documents.errors import BadDocument
from emsqrt.documents.steps import NamedInputs, build
from emsqrt.documents.tree import TEXT_BYTES_MAX, Node, from_data
from emsqrt.documents.variables import fill_in
from emsqrt.documents.yaml_text import read_yaml
from emsqrt.plan import Plan, plan_from_json
from sennit_core.errors import BadInput, TooLarge

MEMBERS = ("name", "vars", "config", "inputs", "steps")
YAML_SUFFIXES = (".yaml", ".yml")


@dataclass(frozen=True, slots=True)
class Document:
    """The content of a document: a plan, and settings for the engine by their full names."""

    plan: Plan
    config: Mapping[str, Any] = field(default_factory=dict)
    name: str = ""


def read_document(
    path: str | Path,
    variables: Mapping[str, str] | None = None,
    environment: Mapping[str, str] | None = None,
) -> Document:
    """Read the file at `path`: YAML by its suffix, else JSON.

    Args:
        path: a document of steps, or plan JSON (`{"v": 1, …}`).
        variables: values for `${name}`, which override the document's `vars`.
        environment: the values of `${env:NAME}`, such as `os.environ`; None refuses such
            references.

    Raises:
        BadInput: not JSON, or not UTF-8.
        BadDocument: an invalid part of the document, with file, line and column.
        BadPlan: plan JSON that violates its schema.
        Unsupported: it is YAML and PyYAML is not installed.
        TooLarge: over 1 MiB.
    """
    file = Path(path)
    with file.open("rb") as opened:
        data = opened.read(TEXT_BYTES_MAX + 1)  # a device may have no end
    if len(data) > TEXT_BYTES_MAX:
        raise TooLarge(
            what=str(file),
            limit_bytes=TEXT_BYTES_MAX,
            hint="a document of steps or a plan is expected here, not data",
        )
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise BadInput(str(file), reason=f"not UTF-8: {error}") from error
    if file.suffix.lower() in YAML_SUFFIXES:
        return document_from(read_yaml(text, str(file)), variables, environment)
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BadInput(str(file), reason=f"not JSON: {error}") from error
    if isinstance(value, list) or (isinstance(value, Mapping) and "steps" in value):
        return document_from(from_data(value, str(file)), variables, environment)
    return Document(plan_from_json(value))


def document_from(
    root: Node,
    variables: Mapping[str, str] | None = None,
    environment: Mapping[str, str] | None = None,
) -> Document:
    """Return the content of a document that was already parsed; raises as `read_document`."""
    if isinstance(root.value, list):  # a document may be only its list of steps
        root = Node({"steps": root}, root.place)
    root.only(MEMBERS, "a document")
    members = fill_in(root, variables or {}, environment).members()
    if "steps" not in members:
        root.fail("a document needs steps")
    config = read_config(members.get("config"))
    inputs = NamedInputs(members["inputs"].members() if "inputs" in members else {})
    for name, each in members["inputs"].members().items() if "inputs" in members else ():
        inputs.of(Node(name, each.place))
    plan = build(members["steps"], inputs).plan
    name = members["name"].text() if "name" in members else ""
    return Document(plan, config, name)


def steps_to_plan(steps: Any) -> Plan:
    """Return the plan of steps in the form of Python values.

    Raises:
        BadDocument: a step is not understood; the message names it and suggests the nearest word.
    """
    if not isinstance(steps, list | tuple):
        raise BadDocument("steps", f"expected a list of steps, found {steps!r}"[:200])
    return build(from_data(list(steps), path="steps"), NamedInputs({})).plan
