"""A plan run in this very process, with the cap held on it: what the command line does.

The lean child of a library call (`emsqrt.thin.process`) and the verbs of `emsqrt` come through
here. A watchdog compares what the kernel charges the process with the cap, and the one thread that
works is asked to stop, or the process ends with `EXIT_CAP`, before the cap is passed.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emsqrt.executor.context import Context
from emsqrt.executor.spill import SpillArea, default_spill_dir
from emsqrt.lean import do_without_pandas, load_arrow
from emsqrt.manifest import Manifest
from emsqrt.memory import CapLevels, MemoryUse, Reactions, Watchdog
from emsqrt.plan import Plan, plan_to_json
from emsqrt.thin.lower import why_not_thin
from sennit_core.errors import CapTooSmall, MemoryCapExceeded, SennitError

if TYPE_CHECKING:
    from typing_extensions import Buffer

EXIT_CAP = 87
"""Status of a process that ended itself because it was about to pass its cap."""
_NEWS_SECONDS = 0.1

OnFields = Callable[[dict[str, Any]], None]
"""Takes changed progress fields, in camelCase."""


def run_alone(
    plan: Plan, cap_bytes: int, spill_dir: Path | None = None, on_fields: OnFields = lambda _: None
) -> Manifest:
    """Run a plan here under a cap on this process, in the tier that fits it.

    Args:
        plan: ends in a file sink.
        cap_bytes: what the kernel may charge this process at most.
        spill_dir: where it may spill; a folder of this user's when None.
        on_fields: told about progress.

    Raises:
        CapTooSmall: told before the first row is read, with the cap that would do.
        MemoryCapExceeded: it came too near its cap all the same.
    """
    reason = why_not_thin(plan)
    if reason is None:
        from emsqrt.thin.session import run_thin as run_here
    else:
        run_here = _load_arrow_tier(cap_bytes, reason)
    with (
        closing(SpillArea(spill_dir or default_spill_dir())) as area,
        capped("the plan", cap_bytes, area.attempt_dir("alone"), on_fields) as context,
    ):
        return run_here(plan_to_json(plan), context, Path())


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
    on_fields: OnFields = lambda _: None,
    on_breach: Callable[[SennitError], None] | None = None,
) -> Iterator[Context]:
    """Hold a cap on this process for the length of a `with`.

    Args:
        what: the work's name, for errors.
        cap_bytes: what the kernel may charge this process at most.
        spill_dir: a folder for this run alone; removed at the end.
        on_fields: told about progress, memory among it.
        on_breach: told why, when the process is about to end itself.
    """

    def stop(use: MemoryUse) -> None:
        context.stop(exceeded(what, cap_bytes, use))

    def give_up(use: MemoryUse) -> None:
        if on_breach is not None:
            on_breach(exceeded(what, cap_bytes, use))
        os._exit(EXIT_CAP)

    context = Context(what, cap_bytes, _Standard(), on_fields, spill_dir)
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
