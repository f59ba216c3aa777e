"""Terminal output: errors, one line of progress, a summary."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TextIO

from emsqrt.system_errors import translating_os_errors
from sennit_core.errors import SennitError
from sennit_core.units import MIB, format_bytes, format_duration

if TYPE_CHECKING:
    from emsqrt.manifest import Manifest

_BAR_CELLS = 20
_FULL, _EMPTY = "█", "░"
_LESS_NEEDED = ("bar", "speed", "rows", "spill")
"""The fields that a narrow terminal omits, in order of omission."""


@dataclass(frozen=True, slots=True)
class RunOptions:
    """How a command runs: its cap, its spill and its output.

    Args:
        cap_bytes: the cap on the process.
        spill_dir: where it may spill; a folder of this user's when None.
        manifest: a file for the manifest.
        as_json: whether to print the manifest instead of a summary.
        quiet: whether to print neither progress nor a summary.
        spilling: as returned by `EngineConfig.spilling`.
        seed: seed of random samples.
        resume: a name for the checkpoint that a killed run leaves and is resumed from.
        planning_bytes: what the process held before the run, when it also planned.
        answer: set where the rows themselves are printed, so that no summary is: empty when they
            are on standard output, else how `print_answer` draws them.
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
    answer: Mapping[str, Any] | None = None

    @property
    def checkpoint_place(self) -> tuple[str, str] | None:
        """The location of a named run's checkpoint: the spill folder and the name."""
        if self.resume is None:
            return None
        from emsqrt.spill.placement import default_spill_dir

        return self.spill_dir or str(default_spill_dir()), self.resume


def report(manifest: Manifest, options: RunOptions) -> None:
    """Print a summary or the manifest; on standard error if the rows are on standard output."""
    document = json.dumps(manifest.to_json(), indent=2)
    if options.manifest is not None:
        Path(options.manifest).write_text(f"{document}\n")
    if options.answer is not None:
        # The rows were the output: they follow on the screen, or were written already.
        if options.answer:
            from emsqrt.cli.querying import print_answer

            print_answer(options.answer)
        return
    is_stdout_used = any(sink.target == "-" for sink in manifest.sinks)
    out = sys.stderr if is_stdout_used else sys.stdout
    with translating_os_errors("the terminal" if is_stdout_used else "standard output", "writing"):
        if options.as_json:
            print(document, file=out, flush=True)
        elif not options.quiet:
            say_done(manifest, out)
            out.flush()


def say_error(error: SennitError) -> None:
    """Print an error, and its hint on the next line."""
    with suppress(OSError):  # standard error may be closed
        print(f"emsqrt: {error}", file=sys.stderr)
        if error.hint:
            print(f"        {error.hint}", file=sys.stderr)


def say_done(manifest: Manifest, out: TextIO) -> None:
    """Print a run's outputs, its time, its memory and what it spilled."""
    for sink in manifest.sinks:
        print(f"{sink.target}: {sink.rows} rows, {format_bytes(sink.bytes)}", file=out)
    print(
        f"{manifest.rows_in} rows read in {format_duration(manifest.seconds)}; "
        f"memory {format_bytes(manifest.peak_bytes)} of {format_bytes(manifest.cap_bytes)}; "
        f"plan {manifest.plan_hash[:12]}",
        file=out,
    )
    if manifest.spilled_bytes:
        operators = [
            f"{block.operator} ({block.runs} runs)"
            for block in manifest.blocks
            if block.spilled_bytes
        ]
        print(f"spilled {format_bytes(manifest.spilled_bytes)}: {', '.join(operators)}", file=out)


class ProgressLine:
    """A progress line that redraws itself: phase, share, rows, speed, memory, spill, time left.

    Args:
        cap_bytes: the cap that memory is compared with.
        shown: whether to draw at all; nothing is drawn unless standard error is a terminal.
    """

    def __init__(self, cap_bytes: int, *, shown: bool = True) -> None:
        self._cap_bytes = cap_bytes
        self._shown = shown and sys.stderr.isatty()
        # The latest value of each field; a report contains only those that changed.
        self._fields: dict[str, Any] = {}
        self._started = time.monotonic()

    def __call__(self, fields: dict[str, Any]) -> None:
        """Update from changed fields of `Progress`, in camelCase, and draw."""
        self._fields.update(fields)
        if self._shown:
            seconds = time.monotonic() - self._started
            # Each time, as the window may be resized; 0 is what some pseudo-terminals report.
            columns = os.get_terminal_size(sys.stderr.fileno()).columns or 80
            text = progress_text(self._fields, self._cap_bytes, seconds, columns)
            # Back to the first column and erase the line (ECMA-48: EL 2), as the new text may be
            # shorter.
            sys.stderr.write(f"\r\x1b[2K{text}")
            sys.stderr.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._shown:
            sys.stderr.write("\r\x1b[2K")
            sys.stderr.flush()


def progress_text(
    fields: dict[str, Any], cap_bytes: int, seconds: float, columns: int = 120
) -> str:
    """Return the line for the progress made in `seconds`, no longer than the terminal is wide."""
    done, total = fields.get("bytesDone", 0), fields.get("bytesTotal", 0)
    share = min(done / total, 1.0) if total else 0.0
    filled = round(share * _BAR_CELLS)
    memory = f"{fields.get('memoryBytes', 0) / MIB:.1f} of {format_bytes(cap_bytes)}"
    # A cap of whole MiB below a GiB is shown in MiB, and needs its unit only once.
    if cap_bytes % MIB or cap_bytes >= 1024 * MIB:
        memory = f"{format_bytes(fields.get('memoryBytes', 0))} of {format_bytes(cap_bytes)}"
    spilled = fields.get("spilledBytes", 0)
    # Assumes that the rest passes at the mean speed so far; in the first second that is noise.
    left = seconds * (1 - share) / share if 0 < share < 1 and seconds > 1 else 0
    parts = {
        "phase": f"{fields.get('phase', 'start'):<6}",
        "bar": _FULL * filled + _EMPTY * (_BAR_CELLS - filled),
        "share": f"{share:4.0%}" if total else format_bytes(done),
        "rows": f"{fields.get('rows', 0):,} rows",
        "speed": f"{done / seconds / 1e6:.0f} MB/s" if seconds > 0 else "",
        "memory": memory,
        "spill": f"spill {format_bytes(spilled)}" if spilled else "",
        "left": f"{format_duration(left)} left" if left else "",
    }
    # "" omits nothing, for the first try.
    for name in ("", *_LESS_NEEDED):
        parts.pop(name, None)
        line = "  ".join(part for part in parts.values() if part)
        if len(line) >= columns:
            line = line.replace("  ", " ")
        if len(line) < columns:
            break
    # One column stays free: a character in the last one makes some terminals wrap.
    return line[: max(columns - 1, 0)]
