"""Run a plan in this very process, under a cap on the process, as the command line does.

The child process of a library call (`emsqrt.text_engine.process`) and the commands of `emsqrt` use
this module. A watchdog compares what the kernel charges the process with the cap; before the cap is
exceeded, the working thread is asked to stop, or the process ends with `EXIT_CAP`.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emsqrt.executor.context import EntryContext
from emsqrt.executor.spill import SpillArea, default_spill_dir
from emsqrt.memory import CapLevels, MemoryUse, Reactions, Watchdog
from emsqrt.process_setup import block_pandas, load_arrow, require_arrow
from emsqrt.requirement import ESTIMATE_PROCESS_BYTES
from emsqrt.termination import EXIT_CAP
from sennit_core.errors import CapTooSmall, MemoryCapExceeded, SennitError

if TYPE_CHECKING:
    from typing_extensions import Buffer

    from emsqrt.manifest import Manifest

LEAN_SLACK_BYTES = 1 << 20
"""How much the interpreter grows while a text program runs: measured 0.4 MiB, but its small-object
allocator reserves a MiB at a time, and allocating in the meantime can hit the allocation limit."""
_REPORT_SECONDS = 0.1
_STACK_BYTES = 512 << 10
"""Slack for the arrow tier's additional threads, as in `emsqrt.executor.process`."""


@dataclass(frozen=True, slots=True)
class Listeners:
    """Callbacks during a run, called on other threads than the working one.

    Args:
        on_fields: called with changed progress fields, in camelCase.
        on_breach: called with the reason, when the process is about to end itself.
        on_context: called with the run's context before it starts.
    """

    on_fields: Callable[[dict[str, Any]], None] = lambda _: None
    on_breach: Callable[[SennitError], None] = lambda _: None
    on_context: Callable[[EntryContext], None] = lambda _: None


QUIET = Listeners()
"""No callbacks."""


def run_text_locally(
    program: Mapping[str, Any],
    cap_bytes: int,
    spill_dir: Path | None = None,
    listeners: Listeners = QUIET,
    spilling: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Run a text program here under a cap on this process.

    Args:
        program: the result of `emsqrt.text_engine.compile.compile_text`.
        cap_bytes: the most that the kernel may charge this process.
        spill_dir: where it may spill; a folder of this user's when None.
        listeners: callbacks for progress and errors.
        spilling: as returned by `EngineConfig.spilling`.

    Returns:
        The JSON of the run's `Manifest`, without the plan's hash.

    Raises:
        CapTooSmall: raised before the first row is read, with a sufficient cap.
        MemoryCapExceeded: the process came too near its cap nevertheless.
    """
    from emsqrt.text_engine.build import load_operators
    from emsqrt.text_engine.session import run_text

    # Before the context measures the process: what the imports hold is then known, not growth.
    load_operators(program["steps"])
    with ExitStack() as stack:
        try:
            context = stack.enter_context(_capped_here(cap_bytes, spill_dir, listeners, lean=True))
        except CapTooSmall as error:
            raise _with_plan(error, program, spilling or {}, spill_dir) from error
        context.spilling = spilling or {}
        # The last report may be held back, as reports are sent at most ten times a second.
        report = run_text(program, context)
        context.flush_progress()
        return report


def estimate_text_locally(
    program: Mapping[str, Any],
    cap_bytes: int,
    spilling: Mapping[str, Any],
    spill_dir: Path | None = None,
    room_bytes: int | None = None,
    *,
    find_longest: bool = False,
) -> dict[str, Any]:
    """Return a text program's memory requirement and its shares under a cap, as JSON.

    Args:
        program: as for `run_text_locally`.
        cap_bytes: the cap whose shares are reported.
        spilling: as returned by `EngineConfig.spilling`.
        spill_dir: where it would spill; a folder of this user's when None.
        room_bytes: the cap on this process meanwhile; it ends itself before it exceeds the cap.
        find_longest: whether to search the input for its longest row; otherwise nothing is read.
    """
    from emsqrt.text_engine.build import load_operators
    from emsqrt.text_engine.session import estimate_text

    # As in a run, so that the trial starts from the same memory.
    load_operators(program["steps"])
    with trial(cap_bytes, spilling, spill_dir, lean=True) as context, ExitStack() as stack:
        if room_bytes is not None:
            context.look()  # exclude the watchdog's memory
            stack.enter_context(ending_at(room_bytes))
        return estimate_text(program, context, find_longest=find_longest)


def _with_plan(
    error: CapTooSmall,
    program: Mapping[str, Any],
    spilling: Mapping[str, Any],
    spill_dir: Path | None,
) -> CapTooSmall:
    """Return the refusal of the process itself, with a cap that fits the plan as well."""
    requirement = estimate_text_locally(
        program, error.cap_bytes, spilling, spill_dir, find_longest=True
    )
    # The trial runs in this process, whose memory may have shrunk since the refusal; the cap that
    # was refused is never named as sufficient.
    needed_bytes = max(requirement["cap_bytes"], error.cap_bytes + 1)
    return CapTooSmall(cap_bytes=error.cap_bytes, needed_bytes=needed_bytes, because=error.because)


def run_plan_locally(  # noqa: PLR0913 - a plan and its world
    document: Mapping[str, Any],
    cap_bytes: int,
    spill_dir: Path | None = None,
    listeners: Listeners = QUIET,
    spilling: Mapping[str, Any] | None = None,
    seed: int = 0,
    resume: Sequence[str] | None = None,
) -> Manifest:
    """Run a plan in this process with pyarrow, under a cap on the process; as `run_text_locally`.

    Args:
        document: the JSON of a plan that ends in a sink.
        cap_bytes: the most that the kernel may charge this process.
        spill_dir: where it may spill; a folder of this user's when None.
        listeners: callbacks for progress and errors.
        spilling: as returned by `EngineConfig.spilling`.
        seed: seed of random samples.
        resume: (spill folder, name) of a run that keeps a checkpoint when it is killed.
    """
    load_arrow_tier(cap_bytes)
    from emsqrt.session import run_plan

    with _capped_here(cap_bytes, spill_dir, listeners) as context:
        context.spilling = spilling or {}
        manifest = run_plan(document, context, Path(), seed, resume)
        context.flush_progress()
        return manifest


def load_arrow_tier(cap_bytes: int) -> None:
    """Import pyarrow and its dependents before the cap is watched.

    Raises:
        CapTooSmall: the cap is below what they need; nothing was imported.
    """
    require_arrow("this plan")
    from emsqrt.executor.entry import FLOOR_BECAUSE, FLOOR_BYTES

    # Refused before the import: afterwards the process would already exceed the cap.
    if cap_bytes < FLOOR_BYTES:
        raise CapTooSmall(cap_bytes=cap_bytes, needed_bytes=FLOOR_BYTES, because=FLOOR_BECAUSE)
    # Before pyarrow is loaded, so that every thread that Python starts from here on has this stack.
    threading.stack_size(_STACK_BYTES)
    block_pandas()
    load_arrow()


@contextmanager
def _capped_here(
    cap_bytes: int, spill_dir: Path | None, listeners: Listeners, *, lean: bool = False
) -> Iterator[EntryContext]:
    with (
        closing(_spill_area(spill_dir or default_spill_dir())) as area,
        capped("the plan", cap_bytes, area.attempt_dir("local"), listeners, lean=lean) as context,
    ):
        yield context


def _spill_area(folder: Path) -> SpillArea:
    try:
        return SpillArea(folder)
    except OSError as error:
        from emsqrt.spill.errors import spill_error

        raise spill_error(error, str(folder)) from error


@contextmanager
def trial(
    cap_bytes: int,
    spilling: Mapping[str, Any],
    spill_dir: Path | None = None,
    *,
    lean: bool = False,
) -> Iterator[EntryContext]:
    """Return a context for admission alone: no watchdog, no files."""
    # Never created: `EntryContext.spill_dir` makes the folder on first use, and a trial spills
    # nothing.
    unused = (spill_dir or default_spill_dir()) / f"trial-{os.getpid()}"
    slack = _lean_slack if lean else None
    context = EntryContext("the plan", cap_bytes, _Standard(), lambda _: None, unused, slack=slack)
    context.owns_process = not lean
    context.spilling = spilling
    with closing(context):
        yield context


def _lean_slack(cap_bytes: int) -> int:
    levels = CapLevels.lean(cap_bytes)
    # The budget ends where the watchdog would stop the run, less the growth of the interpreter:
    #     0 ────── held ── budget ─────────── LEAN_SLACK ── press ── cap
    return levels.cap_bytes - levels.press_bytes + LEAN_SLACK_BYTES


@contextmanager
def ending_at(cap_bytes: int) -> Iterator[None]:
    """End this process with `EXIT_CAP` before it reaches a cap, inside a `with`."""
    reactions = Reactions(lambda _: None, lambda _: os._exit(EXIT_CAP))
    with (
        Watchdog() as watchdog,
        watchdog.watch(CapLevels.lean(cap_bytes), reactions, limit_allocations=False),
    ):
        yield


@contextmanager
def capped(
    what: str,
    cap_bytes: int,
    spill_dir: Path,
    listeners: Listeners = QUIET,
    *,
    lean: bool = False,
) -> Iterator[EntryContext]:
    """Enforce a cap on this process inside a `with`.

    Args:
        what: the work's name, for errors.
        cap_bytes: what the kernel may charge this process at most.
        spill_dir: a folder for this run alone; removed at the end.
        listeners: callbacks for progress, memory use and errors.
        lean: whether all growing memory is in an arena, so that little slack is enough.
    """
    # The watchdog's levels. A lean process allocates almost nothing outside its arena, so it may
    # come closer to the cap.
    levels = CapLevels.lean(cap_bytes) if lean else CapLevels.below(cap_bytes)
    slack = _lean_slack if lean else None

    def stop(use: MemoryUse) -> None:
        context.stop(exceeded(what, cap_bytes, use))

    # Called on the watchdog's thread, where an exception would end only that thread. `_exit` runs
    # no `finally`, which could need more memory.
    def stop_at_cap(use: MemoryUse) -> None:
        listeners.on_breach(exceeded(what, cap_bytes, use))
        os._exit(EXIT_CAP)

    context = EntryContext(
        what, cap_bytes, _Standard(), listeners.on_fields, spill_dir, slack=slack
    )
    context.owns_process = not lean
    # The first access measures the process, and raises `CapTooSmall` before a thread is started.
    assert context.budget, "a cap that the process itself exceeds was refused above"
    listeners.on_context(context)
    reporter = _Reporter(context)
    with Watchdog() as watchdog, closing(context):
        watch = watchdog.watch(levels, Reactions(stop, stop_at_cap, reporter))
        context.measure_peak = watch.peak
        context.room_bytes = watch.room
        context.make_room_for_error = (
            watch.lift_allocation_limit
            if lean
            else partial(watch.raise_cap, ESTIMATE_PROCESS_BYTES)
        )
        with watch:
            try:
                yield context
            except BaseException as error:
                # Reporting an error may import modules and format a traceback.
                watch.lift_allocation_limit()
                # Stopping interrupts calls that block, and these raise errors of their own. The
                # reason for the stop is the error to report.
                if context.stopped is not None and error is not context.stopped:
                    raise context.stopped from error
                # `malloc` failed at the allocation limit, before the watchdog saw the growth.
                if isinstance(error, MemoryError) and not isinstance(error, SennitError):
                    raise exceeded(what, cap_bytes, watch.look()) from error
                raise


def exceeded(what: str, cap_bytes: int, use: MemoryUse) -> MemoryCapExceeded:
    """Return the error of a run that came too near its cap."""
    return MemoryCapExceeded(
        cap_bytes=cap_bytes,
        what=f"{what}, at {use.charged_bytes / (1 << 20):.1f} MiB",
        hint="use a larger cap, or run less at once",
    )


class _Standard:
    """A payload sink that writes to standard output."""

    # Twice this is kept out of the budget (`EntryContext`), so it is small.
    payload_bytes_max = 1 << 16

    def write_bytes(self, payload: Buffer) -> None:
        """Write all of it."""
        sys.stdout.buffer.write(payload)


class _Reporter:
    """Report memory use ten times a second."""

    def __init__(self, context: EntryContext) -> None:
        self._context = context
        # Monotonic time of the next report. Only the watchdog's thread uses it, so it needs no
        # lock.
        self._next = 0.0

    def __call__(self, use: MemoryUse) -> None:
        now = time.monotonic()
        if now >= self._next:
            self._next = now + _REPORT_SECONDS
            self._context.progress(
                memory_bytes=use.charged_bytes, cap_bytes=self._context.cap_bytes
            )
