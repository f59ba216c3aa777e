"""Errors about a plan name the step of the pipeline that they are about."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

from emsqrt.plan import DatasetRef, Plan, Scan, check, explain, rewrite, walk
from sennit_core.errors import SennitError, UsageError
from sennit_core.schema import Schema


@contextmanager
def naming_step(plan: Plan, schema_of: Callable[[DatasetRef], Schema]) -> Iterator[None]:
    """Add the step to an error about the plan that is raised inside the `with`.

    Args:
        plan: A pipeline's plan.
        schema_of: Returns the columns of a source; may ask the node.
    """
    try:
        yield
    except UsageError as error:
        step = _first_failing(plan, schema_of)
        if step is not None:
            error.message = f"{step}: {error}"
        raise


def _first_failing(plan: Plan, schema_of: Callable[[DatasetRef], Schema]) -> str | None:
    """Return the step whose columns or types are wrong; None if the error is about something else."""

    def with_schema(node: Plan) -> Plan:
        if isinstance(node, Scan) and isinstance(node.source, DatasetRef):
            return replace(node, schema=schema_of(node.source))
        return node

    try:
        typed = rewrite(plan, with_schema)
    except SennitError:  # the source is not there
        return None
    # From the sources up, as `walk` goes: the inputs of a step are right when it is reached.
    for node in walk(typed):
        try:
            check(node)
        except SennitError:
            number = sum(not isinstance(each, Scan) for each in walk(node))
            return f"step {number}, {explain(node).splitlines()[0][:120]}"
    return None
