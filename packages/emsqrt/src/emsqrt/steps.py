"""Read plan files as the command line does; see `emsqrt.documents`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from emsqrt.documents import read_document, steps_to_plan
from emsqrt.plan import Plan


def read_plan_file(path: Path) -> Plan:
    """Return the plan in a file: a document of steps in YAML or JSON, or plan JSON.

    Raises:
        BadInput, BadDocument, BadPlan, Unsupported: as `emsqrt.documents.read_document`.
    """
    return read_document(path).plan


def plan_from_steps(steps: Any) -> Plan:
    """Return the plan of a list of steps, each `{verb: arguments}` or `{"op": verb, …}`.

    Raises:
        BadDocument: a step is not understood; the message names it and suggests the nearest word.
    """
    return steps_to_plan(steps)
