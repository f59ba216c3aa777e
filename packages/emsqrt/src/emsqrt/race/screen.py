"""A race on the terminal: a live drawing if possible, else plain lines."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Sequence
from itertools import groupby
from typing import TextIO

from emsqrt.race.chart import ROWS, axis_seconds, bars
from emsqrt.race.contenders import Attempt
from emsqrt.race.contest import Result, disagreeing, finals
from emsqrt.race.trace import Trace
from emsqrt.race.watch import MemorySample
from sennit_core.units import format_bytes, format_duration

_DRAW_SECONDS = 0.08
_SIDE_CELLS = 24
_CHART_CELLS_MAX = 96
_RED, _GREEN, _CYAN, _DIM, _BOLD = "31", "32", "36", "2", "1"


class Screen:
    """Displays a race.

    Args:
        out: the output stream; drawn on when it is a terminal.
        cap_bytes: the top of the memory axis.
        live: whether to redraw lines; detected when None.
        colour: whether to use colour; detected when None (`NO_COLOR`, `TERM`).
    """

    def __init__(
        self,
        out: TextIO,
        cap_bytes: int,
        *,
        live: bool | None = None,
        colour: bool | None = None,
    ) -> None:
        able = out.isatty() and os.environ.get("TERM", "dumb") != "dumb"
        self._out = out
        self._cap_bytes = cap_bytes
        self._live = able if live is None else live
        self._colour = able and "NO_COLOR" not in os.environ if colour is None else colour
        self._trace = Trace()
        self._look = MemorySample(0.0, 0, 0)
        self._peak_bytes = 0
        self._drawn = 0
        self._next = 0.0

    def says(self, line: str = "") -> None:
        """Print a line."""
        print(line, file=self._out, flush=True)

    def on_start(self, name: str, version: str, attempt: Attempt) -> None:
        """Head a panel."""
        self._trace, self._look, self._peak_bytes = Trace(), MemorySample(0.0, 0, 0), 0
        self._drawn, self._next = 0, 0.0
        self.says()
        self.says(f"{self._in(_BOLD, f'{name} {version}')}  {self._in(_DIM, attempt.settings)}")

    def on_sample(self, look: MemorySample) -> None:
        """Redraw the panel, unless it was drawn a moment ago."""
        self._look = look
        self._peak_bytes = max(self._peak_bytes, look.held_bytes)
        self._trace.add(look.seconds, look.held_bytes)
        now = time.monotonic()
        if self._live and now >= self._next:
            self._next = now + _DRAW_SECONDS
            self._draw()

    def on_end(self, result: Result) -> None:
        """Leave the panel as it is, and print how the attempt ended."""
        if self._live:
            self._draw()
        ended = result.ended
        mark = self._in(_GREEN, "✓") if result.well else self._in(_RED, "✗")
        tries = f" (setting {result.number} of {result.attempts})" if result.attempts > 1 else ""
        self.says(f"{mark} {result.how_it_ended()}{tries}")
        self.says(
            f"  wall {ended.wall_seconds:.2f} s, CPU {ended.cpu_seconds:.2f} s, "
            f"peak {format_bytes(ended.peak_bytes)} of {format_bytes(self._cap_bytes)}, "
            f"spilled {format_bytes(ended.spilled_bytes)}"
        )

    def on_skip(self, name: str, reason: str) -> None:
        """Print which contender does not take part, and why."""
        self.says()
        self.says(f"{self._in(_BOLD, name)}  {self._in(_DIM, f'does not take part: {reason}')}")

    def sums_up(self, results: Sequence[Result]) -> None:
        """Print the table of all results, successful ones with the least CPU time first."""
        self.says()
        ordered = sorted(finals(results), key=lambda each: (not each.well, each.ended.cpu_seconds))
        rows = [("", "engine", "wall s", "CPU s", "peak", "spilled", "ended")]
        for each in ordered:
            ended = each.ended
            rows.append(
                (
                    "✓" if each.well else "✗",
                    f"{each.name} {each.version}",
                    f"{ended.wall_seconds:.2f}",
                    f"{ended.cpu_seconds:.2f}",
                    format_bytes(ended.peak_bytes),
                    format_bytes(ended.spilled_bytes),
                    each.how_it_ended(),
                )
            )
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        room = self._width() - sum(widths[:-1]) - 2 * (len(widths) - 1)
        for line in rows:
            cells = [
                f"{cell:<{width}}" if at in (0, 1) else f"{cell:>{width}}"
                for at, (cell, width) in enumerate(zip(line[:-1], widths, strict=False))
            ]
            self.says("  ".join([*cells, _cut(line[-1], max(room, 24))]))
        for name, first in disagreeing(results):
            self.says(self._in(_RED, f"{name} returned another answer than {first}"))

    def _draw(self) -> None:
        look = self._look
        width = min(max(self._width() - _SIDE_CELLS - 2, 16), _CHART_CELLS_MAX)
        columns = self._trace.columns(width, axis_seconds(look.seconds))
        figures = [
            f"{format_bytes(self._cap_bytes)} cap",
            f"{format_bytes(look.held_bytes)} now",
            f"{format_bytes(self._peak_bytes)} peak",
            f"{format_bytes(look.spilled_bytes)} spilled",
            format_duration(look.seconds),
        ]
        above, *below = bars(columns, self._cap_bytes)
        lines = [
            "".join(
                self._in(_RED if cell == "█" else _DIM, "".join(run))
                for cell, run in groupby(above)
            )
        ]
        lines += [self._in(_CYAN, line) for line in below]
        text = "".join(
            f"\x1b[2K{line}  {side}\n" for line, side in zip(lines, figures, strict=True)
        )
        self._out.write(f"\x1b[{self._drawn}A{text}" if self._drawn else text)
        self._out.flush()
        self._drawn = ROWS + 1

    def _in(self, code: str, text: str) -> str:
        return f"\x1b[{code}m{text}\x1b[0m" if self._colour else text

    @staticmethod
    def _width() -> int:
        return shutil.get_terminal_size().columns


def _cut(text: str, room: int) -> str:
    return text if len(text) <= room else text[: room - 1] + "…"
