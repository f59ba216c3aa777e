"""The allowed transitions, frozen."""

from itertools import product
from typing import get_args

import pytest

from sennit_core.errors import Conflict, UsageError
from sennit_core.states import (
    TERMINAL,
    TRANSITIONS,
    AttemptState,
    JobState,
    TaskState,
    check_transition,
    is_terminal,
)

STATES = {
    "job": get_args(JobState),
    "task": get_args(TaskState),
    "attempt": get_args(AttemptState),
}
ALLOWED = {
    "job": {
        "queued": {"running", "failed", "cancelled"},
        "running": {"queued", "merging", "done", "failed", "cancelled"},
        "merging": {"queued", "running", "done", "failed", "cancelled"},
    },
    "task": {
        "pending": {"leased", "failed", "cancelled"},
        "leased": {"pending", "running", "done", "failed", "poisoned", "cancelled"},
        "running": {"pending", "done", "failed", "poisoned", "cancelled"},
        "done": {"pending"},
    },
    "attempt": {
        "leased": {"running", "done", "failed", "expired", "stopped"},
        "running": {"done", "failed", "expired", "stopped"},
    },
}
PAIRS = [(k, old, new) for k, states in STATES.items() for old, new in product(states, states)]


def test_states_are_those_of_the_contract() -> None:
    assert {kind: tuple(table) for kind, table in TRANSITIONS.items()} == {
        "job": ("queued", "running", "merging", "done", "failed", "cancelled"),
        "task": ("pending", "leased", "running", "done", "failed", "poisoned", "cancelled"),
        "attempt": ("leased", "running", "done", "failed", "expired", "stopped"),
    }
    assert {kind: tuple(table) for kind, table in TRANSITIONS.items()} == STATES


@pytest.mark.parametrize(("kind", "old", "new"), PAIRS)
def test_exactly_these_transitions_are_allowed(kind: str, old: str, new: str) -> None:
    if new == old or new in ALLOWED[kind].get(old, ()):
        check_transition(kind, old, new)
    else:
        with pytest.raises(Conflict, match=f"{kind} that is {old} cannot become {new}"):
            check_transition(kind, old, new)


def test_terminal_states_are_final() -> None:
    assert {
        "job": {"done", "failed", "cancelled"},
        "task": {"failed", "poisoned", "cancelled"},
        "attempt": {"done", "failed", "expired", "stopped"},
    } == TERMINAL
    assert is_terminal("job", "done")
    assert not is_terminal("task", "leased")


@pytest.mark.parametrize(
    ("kind", "old", "new"),
    [("jobs", "done", "done"), ("job", "pending", "done"), ("job", "queued", "leased")],
)
def test_unknown_kinds_and_states_are_usage_errors(kind: str, old: str, new: str) -> None:
    with pytest.raises(UsageError):
        check_transition(kind, old, new)
