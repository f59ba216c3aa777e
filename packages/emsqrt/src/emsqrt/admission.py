"""Open a plan under a memory cap; if the cap is too small, find a sufficient one by trial."""

from __future__ import annotations

import gc
from collections.abc import Callable
from contextlib import ExitStack, suppress
from typing import TypeAlias, TypeVar

from emsqrt._kernel import release_freed
from emsqrt.execution_context import ExecutionContext
from emsqrt.fingerprints import remembered
from emsqrt.io.once import looking_once
from emsqrt.memory import MemoryBudget
from emsqrt.requirement import ESTIMATE_PROCESS_BYTES, MemoryRequirement
from emsqrt.retry import LookAhead
from sennit_core.errors import CapacityError, CapTooSmall

T = TypeVar("T")
Trial: TypeAlias = Callable[[int], CapTooSmall | None]
"""Opens the plan under a cap and returns the refusal; None when the cap is large enough."""

_TRIES_MAX = 16
_UNEVEN_SHARE = 128
"""One 128th of a cap: how much the heaps of two runs of the same plan may differ."""
_PRECISE_BYTES = 256 << 10
"""Resolution of the search for the smallest cap; also added to it, because a process may hold this
much more in its next run than it grew in this one."""


def admit(
    open_all: Callable[[ExecutionContext, ExitStack], T],
    run: ExecutionContext,
    stack: ExitStack,
    look: LookAhead,
) -> T:
    """Open everything that a plan needs; every refusal for lack of memory happens here.

    Args:
        open_all: opens the plan for a run, on a stack that closes it; also called for trial runs.
        run: the run to carry out.
        stack: closes what was opened.
        look: searches the input for the longest row, so that the cap in the error also fits that
            row.

    Raises:
        CapTooSmall: the cap is too small; raised before the first row is read, with a sufficient
            cap.
    """
    used_bytes = run.budget.used_bytes  # a sink that was not entered releases nothing
    try:
        with ExitStack() as opened:
            made = open_all(run, opened)
            stack.push(opened.pop_all())
            return made
    except CapTooSmall as error:
        # The plan does not fit. What follows only finds the cap for the error:
        #
        #     refused ──climb──▶ accepted     doubling steps until a trial run opens everything
        #        └────halve──────┘            bisection to 256 KiB
        #        + growth                     what the process holds now in addition
        refused = _released(error)
    run.context.make_room_for_error()
    whole_bytes = run.budget.whole_bytes
    because = refused.because if run.met is None else run.met.because
    _expect_longest(run, look)
    needed_bytes = _enough(refused, open_all, run, used_bytes)
    needed_bytes += _grown(run, used_bytes, needed_bytes)
    raise CapTooSmall(cap_bytes=whole_bytes, needed_bytes=needed_bytes, because=because)


def estimate(
    open_all: Callable[[ExecutionContext, ExitStack], object],
    run: ExecutionContext,
    cap_bytes: int,
    names_bytes: int = 0,
    look: LookAhead = lambda _: None,
) -> MemoryRequirement:
    """Find the smallest cap that admits a plan, and the plan's memory shares under another cap.

    Args:
        open_all: as for `admit`.
        run: the run that would be carried out; its context has measured the process.
        cap_bytes: the cap whose shares are reported.
        names_bytes: memory reserved for the names of the input files while the plan is open.
        look: as for `admit`, when the caller needs a cap after a refusal.
    """
    run.context.make_room_for_error()
    _expect_longest(run, look)
    trial = _trials(open_all, run)
    # As if the smallest cap had been refused: the climb begins at the bottom.
    first = CapTooSmall(
        cap_bytes=0, needed_bytes=_PRECISE_BYTES, because="the plan needs this much"
    )
    with looking_once():
        refused, least_bytes = halve(trial, *climb(trial, first, _PRECISE_BYTES), _PRECISE_BYTES)
    least_bytes += _grown(run, names_bytes, least_bytes)
    opened = run.trial(_budget(run, max(cap_bytes, least_bytes)))
    # Only for the figures under the caller's cap; the smallest cap is known by now.
    with suppress(CapacityError), ExitStack() as stack:
        open_all(opened, stack)
    working_bytes = opened.working_bytes if cap_bytes >= least_bytes else 0
    return MemoryRequirement(least_bytes, refused.because, working_bytes, opened.minimums)


def _expect_longest(run: ExecutionContext, look: LookAhead) -> None:
    """Make trial runs reserve memory for the longest row of the input."""
    found = look(ESTIMATE_PROCESS_BYTES // 2)
    if found is not None and found.exceeds(run.met):
        run.met = found if run.met is None else run.met.or_longer_of(found)


def with_names_reserved(
    files: int, open_all: Callable[[ExecutionContext, ExitStack], object]
) -> Callable[[ExecutionContext, ExitStack], object]:
    """Return a function that reserves memory for the input files' names, then opens a plan."""

    def open_both(run: ExecutionContext, stack: ExitStack) -> None:
        stack.enter_context(remembered(files, run.budget))
        open_all(run, stack)

    return open_both


def _grown(run: ExecutionContext, reserved_bytes: int, cap_bytes: int) -> int:
    """Return how much larger a cap must be because the process will hold more in the next run.

    Args:
        run: its context measures how far the process has grown since it first looked.
        reserved_bytes: how much of that growth is reserved in the budget.
        cap_bytes: the cap that would have sufficed when the context first looked.
    """
    context = run.context
    gc.collect()
    release_freed()  # memory that trials left in the heap is no part of a run
    grown_bytes = max(0, context.grown_bytes() - reserved_bytes)
    grown_bytes += max(_PRECISE_BYTES, cap_bytes // _UNEVEN_SHARE)
    # A larger cap has a larger reserve, so the budget grows by less than the cap does.
    # 2 * grown - gained = grown + (grown - gained): what the reserve of the larger cap uses is
    # added again.
    left_bytes = context.left_bytes_under(cap_bytes + grown_bytes)
    return 2 * grown_bytes - (left_bytes - context.left_bytes_under(cap_bytes))


def _released(error: CapTooSmall) -> CapTooSmall:
    """Drop the error's traceback, whose frames hold memory that the trials need."""
    error.__context__ = error.__cause__ = None
    return error.with_traceback(None)


def _enough(
    error: CapTooSmall,
    open_all: Callable[[ExecutionContext, ExitStack], object],
    run: ExecutionContext,
    used_bytes: int,
) -> int:
    trial = _trials(open_all, run, used_bytes)
    with looking_once():
        refused, refused_bytes, cap_bytes = climb(trial, error, _PRECISE_BYTES)
        if refused is error:
            return cap_bytes
        return halve(trial, refused, refused_bytes, cap_bytes, _PRECISE_BYTES)[1]


def _trials(
    open_all: Callable[[ExecutionContext, ExitStack], object],
    run: ExecutionContext,
    used_bytes: int = 0,
) -> Trial:
    def trial(cap_bytes: int) -> CapTooSmall | None:
        gc.collect()  # a run and what it opened refer to each other
        try:
            with ExitStack() as opened:
                open_all(run.trial(_budget(run, cap_bytes, used_bytes)), opened)
        except CapTooSmall as refusal:
            return _released(refusal)
        return None

    return trial


def _budget(run: ExecutionContext, cap_bytes: int, used_bytes: int = 0) -> MemoryBudget:
    """Return the budget that the process would have under another cap.

    Raises:
        CapTooSmall: no memory would be left for a budget.
    """
    left_bytes = run.context.left_bytes_under(cap_bytes) - used_bytes
    if left_bytes <= 0:
        raise CapTooSmall(
            cap_bytes=cap_bytes,
            needed_bytes=cap_bytes - left_bytes + 1,
            because=f"{run.context.what} uses this much before it reads anything",
        )
    return MemoryBudget(left_bytes, cap_bytes)


def climb(trial: Trial, refused: CapTooSmall, step_bytes: int) -> tuple[CapTooSmall, int, int]:
    """Try caps in growing steps, at least as large as each refusal asks for, until one is accepted.

    Readers and sinks reserve more under a larger cap, so adding the missing bytes may not be
    enough.

    Args:
        trial: tries a cap.
        refused: the first refusal.
        step_bytes: smallest first step; each following step is twice as large.

    Returns:
        The last refusal, the cap that was refused, and a cap that is accepted.
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
    """Bisect between a refused and an accepted cap until they differ by at most `precise_bytes`.

    Returns:
        The refusal of the largest refused cap, and an accepted cap at most `precise_bytes` above
        it.
    """
    while cap_bytes - refused_bytes > precise_bytes:
        middle = (cap_bytes + refused_bytes) // 2
        again = trial(middle)
        if again is None:
            cap_bytes = middle
        else:
            refused, refused_bytes = again, middle
    return refused, cap_bytes
