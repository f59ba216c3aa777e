"""Which plans may have Python functions: those of admins, where the node's operator allows functions at all."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from elytra.backends import NODE_ENGINE
from elytra.functions.sandbox import why_not
from elytra.functions.step import FunctionLimits, FunctionStep, function_steps
from lake.statements.running import AUDIT_LOGGER
from sennit_core.errors import Denied, SennitError, TooLarge, Unsupported
from sennit_core.logs import get_logger

if TYPE_CHECKING:
    from elytra.functions.javascript import JavascriptStep
    from emsqrt.plan import Plan
    from lake.statements.limits import Requester

__all__ = ["FunctionRules", "audit_fields"]

SETTING = "elytra.allow_python"
FUNCTIONS_MAX = 8
"""Of one plan: each is a process with memory of its own."""
_ENGINES = ("auto", NODE_ENGINE, "ray")
"""Those whose machines are the node's own, or of its site; the others are other people's."""
_audit = get_logger(AUDIT_LOGGER)


class FunctionRules:
    """Decides, before a plan is queued and again when it is resumed, whether its functions may run.

    Nothing here looks into a function: its program stays text.

    Args:
        limits: What functions may use; None if the node runs none.
    """

    def __init__(self, limits: FunctionLimits | None) -> None:
        self._limits = limits

    def check(self, plan: Plan, engine: str, requester: Requester) -> bool:
        """Return whether a plan has Python functions, which may run.

        Args:
            plan: As it was submitted.
            engine: As it was requested.
            requester: The user.

        Raises:
            UsageError: The options of a function are not valid.
            Denied: The node runs no functions, or none of this user.
            Unsupported: The engine runs none, or this machine cannot confine them.
        """
        steps = function_steps(plan)
        if not steps:
            return False
        try:
            self._check(steps, engine, requester)
        except SennitError as refusal:
            _audit.warning(
                "python refused: %s", refusal, extra={"fields": audit_fields(steps, requester)}
            )
            raise
        return True

    def record(self, plan: Plan, job_id: str, requester: Requester) -> None:
        """Write the functions of a plan that was accepted to the audit log: by label, size and hash."""
        fields = {"job": job_id, **audit_fields(function_steps(plan), requester)}
        _audit.info("python ok", extra={"fields": fields})

    def describe(self, requester: Requester) -> dict[str, Any]:
        """Return whether a user's pipelines may have functions here: `GET /api/plans/functions`."""
        refusal: SennitError | None = None
        try:
            self._check([], "auto", requester)
        except SennitError as found:
            refusal = found
        limits = None if refusal is not None or self._limits is None else self._limits.to_json()
        return {
            "allowed": refusal is None,
            "reason": None if refusal is None else str(refusal),
            "limits": limits,
        }

    def _check(self, steps: list[FunctionStep], engine: str, requester: Requester) -> None:
        if not requester.is_trusted:
            raise Denied(
                "Python functions of pipelines on this node",
                needed="the role admin",
                hint="write them with expressions, or collect the rows and call them on these",
            )
        if self._limits is None:
            raise Denied(
                "Python functions of pipelines on this node",
                needed=f"the setting {SETTING} = true",
                hint="see docs/pipelines.md, Python functions, before it is set",
            )
        if engine not in _ENGINES:
            raise Unsupported(
                f'engine "{engine}" runs no Python functions: they are not sent to machines of others',
                hint=f'use "{NODE_ENGINE}", or "ray" at a node with a Ray cluster',
            )
        if len(steps) > FUNCTIONS_MAX:
            raise TooLarge("the Python functions of a pipeline", FUNCTIONS_MAX, len(steps))
        if (reason := why_not()) is not None:
            raise Unsupported(f"this node cannot confine Python functions: {reason}")


def audit_fields(
    steps: Sequence[FunctionStep | JavascriptStep], requester: Requester
) -> dict[str, Any]:
    """Return what the audit log says of functions: label, size and hash, and not their text."""
    functions = [
        {
            "step": step.label,
            "bytes": len(step.program.encode()),
            "sha256": hashlib.sha256(step.program.encode()).hexdigest(),
        }
        for step in steps
    ]
    return {"user": requester.name, "functions": functions}
