"""Opening a plan under a cap; a refusal names a cap that would do, found by trying."""

from __future__ import annotations

import gc
from collections.abc import Callable
from contextlib import ExitStack
from typing import NamedTuple, TypeAlias, TypeVar

from emsqrt.memory import MemoryBudget
from emsqrt.run import Run
from sennit_core.errors import CapTooSmall

T = TypeVar("T")
Trial: TypeAlias = Callable[[int], CapTooSmall | None]
"""Tries a cap, and returns why it is refused; None when it is not."""

_TRIES_MAX = 16


class Margin(NamedTuple):
    """How far a cap that is named lies above what the trials took.

    Args:
        share: one part in so many of what is added to the cap is slack, not budget.
        precise_bytes: what a process may hold more the next time, at least; what it has grown by
            so far is looked up.
    """

    share: int
    precise_bytes: int


def admit(open_all: Callable[[Run, ExitStack], T], run: Run, stack: ExitStack, margin: Margin) -> T:
    """Open everything that a plan needs; whatever can be refused is refused here.

    Args:
        open_all: opens it for a run, on a stack that closes it; also called for runs of a trial.
        run: the run that is to be carried out.
        stack: closes what was opened.
        margin: what is added to a cap that would do just now.

    Raises:
        CapTooSmall: the cap cannot do it, told before the first row is read; one that can is named.
    """
    try:
        with ExitStack() as opened:
            made = open_all(run, opened)
            stack.push(opened.pop_all())
            return made
    except CapTooSmall as error:
        refused = _released(error)
    run.context.make_room_for_error()
    whole_bytes = run.budget.whole_bytes
    needed_bytes = _enough(refused, open_all, run, margin.precise_bytes)
    gc.collect()
    next_bytes = max(margin.precise_bytes, run.context.grown_bytes())
    needed_bytes += (needed_bytes - whole_bytes) // margin.share + next_bytes
    raise CapTooSmall(cap_bytes=whole_bytes, needed_bytes=needed_bytes, because=refused.because)


def _released(error: CapTooSmall) -> CapTooSmall:
    """Let go of what was open when it was raised: trials have to find room beside the cap's."""
    error.__context__ = error.__cause__ = None
    return error.with_traceback(None)


def _enough(
    error: CapTooSmall,
    open_all: Callable[[Run, ExitStack], object],
    run: Run,
    precise_bytes: int,
) -> int:
    whole_bytes, given_bytes = run.budget.whole_bytes, run.budget.cap_bytes

    def trial(cap_bytes: int) -> CapTooSmall | None:
        gc.collect()  # what was opened before refers to its run, which refers to it
        budget = MemoryBudget(given_bytes + cap_bytes - whole_bytes, cap_bytes)
        try:
            with ExitStack() as opened:
                open_all(run.trial(budget), opened)
        except CapTooSmall as refusal:
            return _released(refusal)
        return None

    refused, refused_bytes, cap_bytes = climb(trial, error, precise_bytes)
    if refused is error:
        return cap_bytes
    return halve(trial, refused, refused_bytes, cap_bytes, precise_bytes)[1]


def climb(trial: Trial, refused: CapTooSmall, step_bytes: int) -> tuple[CapTooSmall, int, int]:
    """Try the caps that refusals name, by larger and larger steps, until one is not refused.

    Readers and sinks want more when there is more, so that a cap with what is missing may not do.

    Args:
        trial: tries a cap.
        refused: the first refusal.
        step_bytes: the first step at least; then twice that, and so on.

    Returns:
        The last refusal, the cap that was refused, and one that is not.
    """
    refused_bytes, cap_bytes = refused.cap_bytes, refused.needed_bytes
    for _ in range(_TRIES_MAX):
        again = trial(cap_bytes)
        if again is None:
            break
        refused, refused_bytes = again, cap_bytes
        cap_bytes = max(again.needed_bytes, cap_bytes + step_bytes)
        step_bytes *= 2
    return refused, refused_bytes, cap_bytes


def halve(
    trial: Trial, refused: CapTooSmall, refused_bytes: int, cap_bytes: int, precise_bytes: int
) -> tuple[CapTooSmall, int]:
    """Try caps between one that is refused and one that is not, until they are close.

    Returns:
        The refusal of the largest cap that was refused, and a cap at most so much above that one.
    """
    while cap_bytes - refused_bytes > precise_bytes:
        middle = (cap_bytes + refused_bytes) // 2
        again = trial(middle)
        if again is None:
            cap_bytes = middle
        else:
            refused, refused_bytes = again, middle
    return refused, cap_bytes
