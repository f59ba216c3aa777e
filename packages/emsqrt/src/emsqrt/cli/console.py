"""Words on the terminal: errors, one line of progress, what was done."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TextIO

from emsqrt.system_errors import as_told
from sennit_core.errors import SennitError
from sennit_core.units import format_bytes, format_duration

if TYPE_CHECKING:
    from emsqrt.manifest import Manifest

_BAR_CELLS = 20
_FULL, _EMPTY = "█", "░"


@dataclass(frozen=True, slots=True)
class Order:
    """How a verb's run is capped, and how it is told about.

    Args:
        cap_bytes: the cap on the process.
        spill_dir: where it may spill; a folder of this user's when None.
        manifest: a file for the manifest.
        as_json: whether to print the manifest instead of a summary.
        quiet: whether to draw and say nothing.
        spilling: as `EngineConfig.spilling` has it.
        seed: what sampling depends on.
        resume: a name under which the run is kept when it is killed, and gone on with.
        planning_bytes: what the process held before the run, when it planned as well.
    """

    cap_bytes: int
    spill_dir: str | None = None
    manifest: str | None = None
    as_json: bool = False
    quiet: bool = False
    spilling: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0
    resume: str | None = None
    planning_bytes: int = 0

    @property
    def kept_place(self) -> tuple[str, str] | None:
        """Where a run with a name is kept: the spill folder and the name."""
        if self.resume is None:
            return None
        from emsqrt.spill.placement import default_spill_dir

        return self.spill_dir or str(default_spill_dir()), self.resume


def report(manifest: Manifest, order: Order) -> None:
    """Print what was done, beside an output that is on standard output itself."""
    document = json.dumps(manifest.to_json(), indent=2)
    if order.manifest is not None:
        Path(order.manifest).write_text(f"{document}\n")
    taken = any(sink.target == "-" for sink in manifest.sinks)
    out = sys.stderr if taken else sys.stdout
    with as_told("the terminal" if taken else "standard output", "writing"):
        if order.as_json:
            print(document, file=out, flush=True)
        elif not order.quiet:
            say_done(manifest, out)
            out.flush()


def say_error(error: SennitError) -> None:
    """Print what went wrong, and below it what to do."""
    with suppress(OSError):  # nobody is left to tell
        print(f"emsqrt: {error}", file=sys.stderr)
        if error.hint:
            print(f"        {error.hint}", file=sys.stderr)


def say_done(manifest: Manifest, out: TextIO) -> None:
    """Print a run's outputs, its time and its memory."""
    for sink in manifest.sinks:
        print(f"{sink.target}: {sink.rows} rows, {format_bytes(sink.bytes)}", file=out)
    print(
        f"{manifest.rows_in} rows read in {format_duration(manifest.seconds)}; "
        f"memory {format_bytes(manifest.peak_bytes)} of {format_bytes(manifest.cap_bytes)}; "
        f"plan {manifest.plan_hash[:12]}",
        file=out,
    )


class ProgressLine:
    """One line that is drawn over itself: phase, share, rows, speed, memory, spill, time left.

    Args:
        cap_bytes: the cap, which memory is shown against.
        shown: whether to draw at all; only a terminal is drawn on.
    """

    def __init__(self, cap_bytes: int, *, shown: bool = True) -> None:
        self._cap_bytes = cap_bytes
        self._shown = shown and sys.stderr.isatty()
        self._fields: dict[str, Any] = {}
        self._started = time.monotonic()

    def __call__(self, fields: dict[str, Any]) -> None:
        """Take changed fields of `Progress`, in camelCase, and draw."""
        self._fields.update(fields)
        if self._shown:
            seconds = time.monotonic() - self._started
            sys.stderr.write(f"\r\x1b[2K{progress_text(self._fields, self._cap_bytes, seconds)}")
            sys.stderr.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._shown:
            sys.stderr.write("\r\x1b[2K")
            sys.stderr.flush()


def progress_text(fields: dict[str, Any], cap_bytes: int, seconds: float) -> str:
    """Return the line for the progress made in `seconds`."""
    done, total = fields.get("bytesDone", 0), fields.get("bytesTotal", 0)
    share = min(done / total, 1.0) if total else 0.0
    filled = round(share * _BAR_CELLS)
    parts = [f"{fields.get('phase', 'start'):<7} {_FULL * filled}{_EMPTY * (_BAR_CELLS - filled)}"]
    parts.append(f"{share:4.0%}" if total else format_bytes(done))
    parts.append(f"{fields.get('rows', 0):,} rows")
    if seconds > 0:
        parts.append(f"{done / seconds / 1e6:.0f} MB/s")
    parts.append(f"{format_bytes(fields.get('memoryBytes', 0))} of {format_bytes(cap_bytes)}")
    if spilled := fields.get("spilledBytes"):
        parts.append(f"spilled {format_bytes(spilled)}")
    if 0 < share < 1 and seconds > 1:
        parts.append(f"{format_duration(seconds * (1 - share) / share)} left")
    return "  ".join(parts)
