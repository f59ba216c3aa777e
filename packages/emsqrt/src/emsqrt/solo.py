"""A plan run in this very process, with the cap held on it: what the command line does.

The lean child of a library call (`emsqrt.thin.process`) and the verbs of `emsqrt` come through
here. A watchdog compares what the kernel charges the process with the cap, and the one thread that
works is asked to stop, or the process ends with `EXIT_CAP`, before the cap is passed.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emsqrt.executor.context import Context
from emsqrt.executor.spill import SpillArea, default_spill_dir
from emsqrt.lean import do_without_pandas, load_arrow
from emsqrt.manifest import Manifest
from emsqrt.memory import CapLevels, MemoryUse, Reactions, Watchdog
from emsqrt.plan import Plan, plan_from_json
from emsqrt.thin.lower import why_not_thin
from sennit_core.errors import CapTooSmall, MemoryCapExceeded, SennitError

if TYPE_CHECKING:
    from typing_extensions import Buffer

EXIT_CAP = 87
"""Status of a process that ended itself because it was about to pass its cap."""
_NEWS_SECONDS = 0.1


@dataclass(frozen=True, slots=True)
class Listeners:
    """Who hears of a run while it goes on, on other threads than the one that works.

    Args:
        on_fields: told changed progress fields, in camelCase.
        on_breach: told why, when the process is about to end itself.
        on_context: handed the run's context before it starts.
    """

    on_fields: Callable[[dict[str, Any]], None] = lambda _: None
    on_breach: Callable[[SennitError], None] = lambda _: None
    on_context: Callable[[Context], None] = lambda _: None


def run_alone(
    document: Mapping[str, Any],
    cap_bytes: int,
    spill_dir: Path | None = None,
    listeners: Listeners = Listeners(),
) -> Manifest:
    """Run a plan here under a cap on this process, in the tier that fits it.

    Args:
        document: the JSON of a plan that ends in a file sink.
        cap_bytes: what the kernel may charge this process at most.
        spill_dir: where it may spill; a folder of this user's when None.
        listeners: told about progress and trouble.

    Raises:
        CapTooSmall: told before the first row is read, with the cap that would do.
        MemoryCapExceeded: it came too near its cap all the same.
    """
    reason = why_not_thin(plan_from_json(document))
    if reason is None:
        from emsqrt.thin.session import run_thin as run_here
    else:
        run_here = _load_arrow_tier(cap_bytes, reason)
    with (
        closing(SpillArea(spill_dir or default_spill_dir())) as area,
        capped("the plan", cap_bytes, area.attempt_dir("alone"), listeners) as context,
    ):
        manifest = run_here(document, context, Path())
        context.flush_progress()
        return manifest


def try_admit(plan: Plan, cap_bytes: int) -> None:
    """Open what a plan needs under a cap, read nothing, and close it again.

    Raises:
        CapTooSmall: the cap cannot do it; says which could.
    """
    reason = why_not_thin(plan)
    if reason is None:
        from emsqrt.thin.session import admit_thin as admit
    else:
        _load_arrow_tier(cap_bytes, reason)
        from emsqrt.session import admit_plan as admit
    with closing(Context("the plan", cap_bytes, _Standard(), lambda _: None, Path())) as context:
        admit(plan, context, Path())


def _load_arrow_tier(cap_bytes: int, reason: str) -> Any:
    from emsqrt.executor.entry import FLOOR_BYTES

    if cap_bytes < FLOOR_BYTES:
        raise CapTooSmall(
            cap_bytes=cap_bytes,
            needed_bytes=FLOOR_BYTES,
            because=f"pyarrow and one block take that much, and {reason}",
        )
    do_without_pandas()
    load_arrow()
    from emsqrt.session import run_plan

    return run_plan


@contextmanager
def capped(
    what: str,
    cap_bytes: int,
    spill_dir: Path,
    listeners: Listeners = Listeners(),
) -> Iterator[Context]:
    """Hold a cap on this process for the length of a `with`.

    Args:
        what: the work's name, for errors.
        cap_bytes: what the kernel may charge this process at most.
        spill_dir: a folder for this run alone; removed at the end.
        listeners: told about progress, memory among it, and trouble.
    """

    def stop(use: MemoryUse) -> None:
        context.stop(exceeded(what, cap_bytes, use))

    def give_up(use: MemoryUse) -> None:
        listeners.on_breach(exceeded(what, cap_bytes, use))
        os._exit(EXIT_CAP)

    context = Context(what, cap_bytes, _Standard(), listeners.on_fields, spill_dir)
    assert context.budget, "a cap too small for the process itself is refused here"
    listeners.on_context(context)
    reporter = _Reporter(context)
    with Watchdog() as watchdog, closing(context):
        watch = watchdog.watch(CapLevels.below(cap_bytes), Reactions(stop, give_up, reporter))
        context.measure_peak = watch.peak
        with watch:
            try:
                yield context
            except BaseException as error:
                watch.lift_fence()
                if context.stopped is not None and error is not context.stopped:
                    raise context.stopped from error
                if isinstance(error, MemoryError) and not isinstance(error, SennitError):
                    raise exceeded(what, cap_bytes, watch.look()) from error
                raise


def exceeded(what: str, cap_bytes: int, use: MemoryUse) -> MemoryCapExceeded:
    """Return the error of a run that came too near its cap."""
    return MemoryCapExceeded(
        cap_bytes=cap_bytes,
        what=f"{what}, at {use.charged_bytes / (1 << 20):.1f} MiB",
        hint="give it a larger cap, or ask for less at once",
    )


class _Standard:
    """Payloads of a stream go to standard output."""

    payload_bytes_max = 1 << 18

    def write_bytes(self, payload: Buffer) -> None:
        """Write all of it."""
        sys.stdout.buffer.write(payload)


class _Reporter:
    """Tells the memory in use ten times a second."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._next = 0.0

    def __call__(self, use: MemoryUse) -> None:
        now = time.monotonic()
        if now >= self._next:
            self._next = now + _NEWS_SECONDS
            self._context.progress(
                memory_bytes=use.charged_bytes, cap_bytes=self._context.cap_bytes
            )
