"""What a program can do to shared memory, one indivisible step each.

A program is a generator that yields steps and is sent their results. Everything it knows between
two of them must be in named locals (`machine` compares those), so a `yield` is a whole statement, or
follows `=` or `return`, and a loop around one runs over a `range`.
"""

from collections.abc import Generator
from typing import NamedTuple, TypeVar

__all__ = [
    "PROCESS_DIED",
    "RELAXED",
    "RELEASE",
    "Condition",
    "Program",
    "Step",
    "check",
    "exchange",
    "fence",
    "is_held",
    "load",
    "look",
    "nap",
    "ring_bell",
    "store",
    "try_lock",
    "unlock",
]

RELAXED, RELEASE = "relaxed", "release"

PROCESS_DIED = "process died"
"""A word that the explorer sets with a death: a lock that was merely released wakes no process."""

Condition = tuple[tuple[str, int], ...]
"""Words and the values they must all have."""

T = TypeVar("T")


class Step(NamedTuple):
    """One step; which operands count depends on its kind."""

    kind: str
    word: str = ""
    value: int = 0
    order: str = RELAXED
    unless: tuple[Condition, ...] = ()
    instead: int = 0

    def __str__(self) -> str:
        value = f" = {self.value}" if self.kind in ("store", "check") else ""
        return f"{self.kind} {self.word}{value}"


Program = Generator[Step, int, T]


def load(word: str) -> Step:
    """Load a shared counter or flag (acquire: loads after it see at least what it saw)."""
    return Step("load", word)


def store(word: str, value: int, order: str = RELAXED) -> Step:
    """Store a value; a release store becomes visible after everything before it."""
    return Step("store", word, value, order)


def check(word: str, value: int) -> Step:
    """Read a slot or payload, plainly, and find `value` there: anything else is a violation."""
    return Step("check", word, value)


def fence() -> Step:
    """Fence, sequentially consistent: everything before it is over."""
    return Step("fence")


def look(bell: str) -> Step:
    """Load a bell before going to sleep on it. Only "was it rung since?" matters of its value."""
    return Step("look", bell)


def nap(bell: str, unless: tuple[Condition, ...] = ()) -> Step:
    """Sleep while the bell is as it was at `look`; for ever, unless one condition comes true.

    A real nap ends after 150 ms and its sleeper asks whether its peer lives. Here it ends early
    only when the answer would be no, so that no lost wake-up can hide behind a timeout.
    """
    return Step("nap", bell, unless=unless)


def ring_bell(bell: str, order: str = RELEASE) -> Step:
    """Increment a bell and wake its sleeper."""
    return Step("ring", bell, order=order)


def exchange(word: str, value: int, instead: int) -> Step:
    """Replace a value by another if it is there; then everything before it is over, else not."""
    return Step("exchange", word, value, instead=instead)


def try_lock(word: str) -> Step:
    """Acquire a kernel lock; 1 when it was free. It is released when its holder dies."""
    return Step("lock", word)


def unlock(word: str) -> Step:
    """Release a kernel lock."""
    return Step("unlock", word)


def is_held(word: str) -> Step:
    """Check whether a process holds a kernel lock."""
    return Step("load", word)
