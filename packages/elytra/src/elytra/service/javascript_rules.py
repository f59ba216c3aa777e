"""Which plans may have JavaScript functions, and that remote workers alone run them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from elytra.backends.remote.plans import why_not_remote
from elytra.functions.javascript import (
    JavascriptStep,
    is_javascript,
    javascript_steps,
    why_not_in_javascript,
)
from elytra.service.function_rules import audit_fields
from elytra.splitter import Split
from emsqrt.plan import Join, check, walk
from lake.statements.running import AUDIT_LOGGER
from sennit_core.errors import Denied, SennitError, TooLarge, Unsupported
from sennit_core.logs import get_logger

if TYPE_CHECKING:
    from elytra.splitter import Cut
    from emsqrt.plan import Plan
    from lake.statements.limits import Requester

__all__ = ["JavascriptRules", "check_javascript_cut"]

SETTING = "elytra.allow_javascript"
JAVASCRIPT_MAX = 4
"""Functions of one plan: each has a frame of its own in the tab that runs it."""
_ENGINE = "browser"
_audit = get_logger(AUDIT_LOGGER)


class JavascriptRules:
    """Decides, before a plan is queued and again when it is resumed, whether its functions may be sent.

    Nothing here looks into a function: its program stays text, and no process of the node runs it.

    Args:
        allowed: Whether the node sends functions to workers at all.
    """

    def __init__(self, *, allowed: bool) -> None:
        self._allowed = allowed

    def check(
        self, plan: Plan, engine: str, sample_percent: float | None, requester: Requester
    ) -> bool:
        """Return whether a plan has JavaScript functions, which may be sent to workers.

        Args:
            plan: As it was submitted.
            engine: As it was requested.
            sample_percent: As it was requested: of the tasks whose rows the node compares with its own.
            requester: The user.

        Raises:
            UsageError: The options of a function are not valid.
            Denied: The node sends no functions, or none of this user.
            Unsupported: The engine is another one, or the results are to be compared.
            TooLarge: It has too many functions.
        """
        steps = javascript_steps(plan)
        if not steps:
            return False
        try:
            self._check(steps, engine, sample_percent, requester)
        except SennitError as refusal:
            fields = audit_fields(steps, requester)
            _audit.warning("javascript refused: %s", refusal, extra={"fields": fields})
            raise
        return True

    def record(self, plan: Plan, job_id: str, requester: Requester) -> None:
        """Write the functions of a plan that was accepted to the audit log: by label, size and hash."""
        fields = {"job": job_id, **audit_fields(javascript_steps(plan), requester)}
        _audit.info("javascript ok", extra={"fields": fields})

    def _check(
        self,
        steps: list[JavascriptStep],
        engine: str,
        sample_percent: float | None,
        requester: Requester,
    ) -> None:
        if not requester.is_trusted:
            raise Denied(
                "JavaScript functions of pipelines on this node",
                needed="the role admin",
                hint="write them with expressions, or collect the rows and call them on these",
            )
        if not self._allowed:
            raise Denied(
                "JavaScript functions of pipelines on this node",
                needed=f"the setting {SETTING} = true",
                hint="see docs/workers.md, Functions of others, before it is set",
            )
        if engine != _ENGINE:
            raise Unsupported(
                f'engine "{engine}" runs no JavaScript functions: tabs of users do',
                hint=f'use "{_ENGINE}", which sends rows and functions to these tabs',
            )
        if sample_percent:
            raise Unsupported(
                "samplePercent of a pipeline with JavaScript functions: the node cannot run them "
                "to compare the rows",
                hint="leave samplePercent out",
            )
        if len(steps) > JAVASCRIPT_MAX:
            raise TooLarge("the JavaScript functions of a pipeline", JAVASCRIPT_MAX, len(steps))


def check_javascript_cut(typed: Plan, cut: Cut) -> None:
    """Refuse a plan with a JavaScript function that would have to run on the node.

    Args:
        typed: The plan, with the columns of its sources.
        cut: What runs at the workers.

    Raises:
        Unsupported: It cannot be split so that workers run all functions, or a column that one of them
            receives has no form in JavaScript.
    """
    for node in walk(typed):
        if is_javascript(node) and (reason := why_not_in_javascript(check(node.inputs[0]))):
            raise Unsupported(
                f"{node.options['label']}: {reason}, which no JavaScript function receives",
                hint="select the columns that it needs before it, or cast this one",
            )
    reason = why_not_remote(cut)
    if any(isinstance(node, Join) for node in walk(typed)):
        reason = (
            "a tab calls functions with the rows of one dataset, and this pipeline joins several"
        )
    if reason is None and isinstance(cut, Split):
        merged = [step for each in cut.merged for step in (each.source, *each.steps)]
        if any(map(is_javascript, (*(cut.merge_steps or ()), *merged))):
            reason = "the steps after a merge of all rows run on the node"
    if reason is not None:
        raise Unsupported(
            f"a JavaScript function of this pipeline would have to run on the node: {reason}",
            hint="call it before the first aggregate, limit, top_k or distinct",
        )
