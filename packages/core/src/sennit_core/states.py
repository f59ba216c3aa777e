"""The states of jobs, tasks and attempts, and which may follow which.

A state that nothing follows is terminal. Setting a state again to what it is already is allowed,
so that a repeated message does no harm.
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

JobState = Literal["queued", "planning", "running", "merging", "done", "failed", "cancelled"]
TaskState = Literal["pending", "leased", "running", "done", "failed", "poisoned", "cancelled"]
AttemptState = Literal["offered", "running", "done", "failed", "expired", "superseded"]

Transitions = Mapping[str, frozenset[str]]


def _table(rows: str) -> Transitions:
    parsed = (row.split(":") for row in rows.strip().splitlines())
    return MappingProxyType({old.strip(): frozenset(new.split()) for old, new in parsed})


# An ingest has neither plan nor merge; after a restart of the node it is queued again and resumed.
JOB_TRANSITIONS = _table("""
    queued:    planning running failed cancelled
    planning:  queued running failed cancelled
    running:   queued merging done failed cancelled
    merging:   queued done failed cancelled
    done:
    failed:
    cancelled:
""")
# Back to pending means another attempt: the lease ran out, or the attempt failed and may be tried
# again. A task whose every attempt took its worker down is poisoned.
TASK_TRANSITIONS = _table("""
    pending:   leased failed cancelled
    leased:    pending running done failed poisoned cancelled
    running:   pending done failed poisoned cancelled
    done:
    failed:
    poisoned:
    cancelled:
""")
# A quick worker's first word may be its result. Superseded: another attempt was first, or the task
# was cancelled.
ATTEMPT_TRANSITIONS = _table("""
    offered:    running done failed expired superseded
    running:    done failed expired superseded
    done:
    failed:
    expired:
    superseded:
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
    """Tell whether a `job`, `task` or `attempt` in this state stays in it for good."""
    return not _following(kind, state)


def check_transition(kind: str, old: str, new: str) -> None:
    """Make sure that a `job`, `task` or `attempt` may go from state `old` to state `new`.

    Raises:
        Conflict: it may not.
        UsageError: there is no such kind or state.
    """
    following = _following(kind, old)
    _following(kind, new)
    if new != old and new not in following:
        may = f"may become {', '.join(sorted(following))}" if following else "stays so"
        raise Conflict(f"a {kind} that is {old} cannot become {new}; it {may}")


def _following(kind: str, state: str) -> frozenset[str]:
    table = TRANSITIONS.get(kind)
    if table is None:
        raise UsageError(f"{kind!r} has no states, only {', '.join(TRANSITIONS)} do")
    if state not in table:
        raise UsageError(f"a {kind} has no state {state!r}, only {', '.join(table)}")
    return table[state]
