"""The states of jobs, tasks and attempts, and the allowed transitions.

A state without transitions is terminal. Setting a state to its current value is allowed, so that a
repeated message has no effect.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal

from sennit_core.errors import Conflict, UsageError

__all__ = [
    "ATTEMPT_TRANSITIONS",
    "JOB_TRANSITIONS",
    "TASK_TRANSITIONS",
    "TERMINAL",
    "TRANSITIONS",
    "AttemptState",
    "JobState",
    "TaskState",
    "check_transition",
    "is_terminal",
]

JobState = Literal["queued", "running", "merging", "done", "failed", "cancelled"]
TaskState = Literal["pending", "leased", "running", "done", "failed", "poisoned", "cancelled"]
AttemptState = Literal["leased", "running", "done", "failed", "expired", "stopped"]

Transitions = Mapping[str, frozenset[str]]


def _table(rows: str) -> Transitions:
    parsed = (row.split(":") for row in rows.strip().splitlines())
    return MappingProxyType({old.strip(): frozenset(new.split()) for old, new in parsed})


# An ingest skips merging; after a restart of the node it is queued again and resumed.
JOB_TRANSITIONS = _table("""
    queued:    running failed cancelled
    running:   queued merging done failed cancelled
    merging:   queued running done failed cancelled
    done:
    failed:
    cancelled:
""")
# Leased: assigned to a worker. A fast worker's first message may be its result, so that a leased
# task may be done at once. Back to pending means another attempt: the last one failed and may be
# retried, or the worker whose result counted has returned wrong rows. A task is poisoned when its last allowed attempt fails with a retryable error.
TASK_TRANSITIONS = _table("""
    pending:   leased failed cancelled
    leased:    pending running done failed poisoned cancelled
    running:   pending done failed poisoned cancelled
    done:      pending
    failed:
    poisoned:
    cancelled:
""")
# One execution of a task by a worker. Expired: its lease ran out. Stopped: its result is not needed,
# because another attempt was first or the job ended.
ATTEMPT_TRANSITIONS = _table("""
    leased:  running done failed expired stopped
    running: done failed expired stopped
    done:
    failed:
    expired:
    stopped:
""")
TRANSITIONS: Mapping[str, Transitions] = MappingProxyType(
    {"job": JOB_TRANSITIONS, "task": TASK_TRANSITIONS, "attempt": ATTEMPT_TRANSITIONS}
)
TERMINAL: Mapping[str, frozenset[str]] = MappingProxyType(
    {
        kind: frozenset(state for state, following in table.items() if not following)
        for kind, table in TRANSITIONS.items()
    }
)


def is_terminal(kind: str, state: str) -> bool:
    """Return whether this state of a `job`, `task` or `attempt` is terminal."""
    return not _following(kind, state)


def check_transition(kind: str, old: str, new: str) -> None:
    """Check that a `job`, `task` or `attempt` may change from state `old` to state `new`.

    Raises:
        Conflict: the transition is not allowed.
        UsageError: there is no such kind or state.
    """
    following = _following(kind, old)
    _following(kind, new)
    if new != old and new not in following:
        may = f"may become {', '.join(sorted(following))}" if following else "stays so"
        article = "an" if kind == "attempt" else "a"
        raise Conflict(f"{article} {kind} that is {old} cannot become {new}; it {may}")


def _following(kind: str, state: str) -> frozenset[str]:
    table = TRANSITIONS.get(kind)
    if table is None:
        raise UsageError(f"{kind!r} has no states, only {', '.join(TRANSITIONS)} do")
    if state not in table:
        raise UsageError(f"a {kind} has no state {state!r}, only {', '.join(table)}")
    return table[state]
