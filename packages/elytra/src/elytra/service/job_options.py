"""How a job runs: what its submission may choose besides the plan and the engine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, cast, get_args

from sennit_core.errors import UsageError

__all__ = ["PRIORITIES", "JobOptions", "OnPoison", "Priority"]

Priority: TypeAlias = Literal["low", "normal", "high"]
OnPoison: TypeAlias = Literal["fail", "skip"]

PRIORITIES: Mapping[Priority, float] = {"low": 0.25, "normal": 1.0, "high": 4.0}
"""Shares of a job among the jobs of its user; never zero, so a job of low priority does not starve."""
SECONDS_MAX = 30 * 24 * 3600.0


@dataclass(frozen=True, slots=True)
class JobOptions:
    """Options of a job; an instance is always valid.

    Args:
        priority: Its share among the jobs of the same user.
        deadline_seconds: Time from its submission after which it fails; None for no limit.
        task_seconds: Time limit of each of its tasks; None for no limit.
        on_poison: What a task does that failed on several workers: `fail` its job, or `skip` its
            input, which the result then reports as missing.
        sample_percent: Of its tasks at remote workers, which the node runs itself too and compares,
            from 0 to 100; the node's own setting is the least. None for that setting.

    Raises:
        UsageError: A value is not one of these.
    """

    priority: Priority = "normal"
    deadline_seconds: float | None = None
    task_seconds: float | None = None
    on_poison: OnPoison = "fail"
    sample_percent: float | None = None

    def __post_init__(self) -> None:
        _check_choice("priority", self.priority, get_args(Priority))
        _check_choice("onPoison", self.on_poison, get_args(OnPoison))
        _check_seconds("deadlineSeconds", self.deadline_seconds)
        _check_seconds("taskSeconds", self.task_seconds)
        _check_percent("samplePercent", self.sample_percent)

    def to_json(self) -> dict[str, Any]:
        """Return the members of a submission."""
        return {
            "priority": self.priority,
            "deadlineSeconds": self.deadline_seconds,
            "taskSeconds": self.task_seconds,
            "onPoison": self.on_poison,
            "samplePercent": self.sample_percent,
        }

    @classmethod
    def from_json(cls, members: Mapping[str, Any]) -> JobOptions:
        """Read the form of `to_json`; absent members have their defaults."""
        return cls(
            cast("Priority", members.get("priority", "normal")),
            members.get("deadlineSeconds"),
            members.get("taskSeconds"),
            cast("OnPoison", members.get("onPoison", "fail")),
            members.get("samplePercent"),
        )


def _check_choice(name: str, value: object, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise UsageError(
            f"a job's {name} is {str(value)[:50]!r}", hint=f"one of {', '.join(choices)}"
        )


def _check_seconds(name: str, value: object) -> None:
    if value is None:
        return
    if not _is_number(value) or not 0 < cast("float", value) <= SECONDS_MAX:
        raise UsageError(
            f"a job's {name} is {str(value)[:50]}",
            hint=f"a number of seconds above 0, at most {SECONDS_MAX:.0f}",
        )


def _check_percent(name: str, value: object) -> None:
    if value is None:
        return
    if not _is_number(value) or not 0 <= cast("float", value) <= 100:
        raise UsageError(
            f"a job's {name} is {str(value)[:50]}", hint="a number from 0 to 100 percent"
        )


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
