"""How a job runs, as the arguments of pipelines and as members of a request."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, TypedDict

__all__ = ["JobChoices", "request_members"]

_MEMBERS = {
    "priority": "priority",
    "deadline_seconds": "deadlineSeconds",
    "task_seconds": "taskSeconds",
    "on_poison": "onPoison",
    "sample_percent": "samplePercent",
    "allow_partial": "allowPartial",
}


class JobChoices(TypedDict, total=False):
    """Options of a job; the node has the same defaults.

    Args:
        priority: Its share among the jobs of the same user; "normal" by default.
        deadline_seconds: Time from its submission after which it fails; None for no limit.
        task_seconds: Time limit of each of its tasks; None for no limit.
        on_poison: What a task does that failed on several workers: "fail" its job, or "skip" its
            input, which `Result.skipped` then names; "fail" by default.
        sample_percent: Of its tasks at remote workers, which the node runs itself too and compares, from
            0 to 100; at least the node's own setting, which is the default.
        allow_partial: Whether shards may be left out that no node has which can be reached; `missing` of the
            job's result then says which.
    """

    priority: Literal["low", "normal", "high"]
    deadline_seconds: float | None
    task_seconds: float | None
    on_poison: Literal["fail", "skip"]
    sample_percent: float | None
    allow_partial: bool


def request_members(choices: Mapping[str, Any]) -> dict[str, Any]:
    """Return the members of a request for these options.

    Raises:
        TypeError: There is no such option.
    """
    unknown = sorted(set(choices) - set(_MEMBERS))
    if unknown:
        raise TypeError(f"a job has no option {unknown[0]!r}, only {', '.join(_MEMBERS)}")
    return {_MEMBERS[name]: value for name, value in choices.items()}
