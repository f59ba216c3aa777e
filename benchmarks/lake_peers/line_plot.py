"""Line plots as SVG, side by side, on a light or a dark background."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

__all__ = ["Line", "Plot", "write_plot"]

_WIDTH, _HEIGHT = 380, 260
_LEFT, _RIGHT, _TOP, _BOTTOM = 56, 84, 34, 44
_TICKS = 4
# Text in the colour of the reader's theme; each line differs by its dashes too, not by colour alone.
_STYLE = """
text { font: 12px sans-serif; fill: #24292f } .title { font-weight: bold }
.axis { stroke: #57606a } .grid { stroke: #57606a; opacity: .25 }
.line { fill: none; stroke-width: 2 } .line0 { stroke: #0969da } .line1 { stroke: #bc4c00 }
.line1 { stroke-dasharray: 6 3 }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3 } .axis, .grid { stroke: #9198a1 }
  .line0 { stroke: #58a6ff } .line1 { stroke: #f0883e }
}
"""


@dataclass(frozen=True)
class Line:
    """The values of a line, one for each place of the plot's x axis."""

    name: str
    values: Sequence[float]


@dataclass(frozen=True)
class Plot:
    """Lines over a logarithmic x axis; at most two."""

    title: str
    x_title: str
    x: Sequence[int]
    lines: Sequence[Line]


def write_plot(path: Path, plots: Sequence[Plot]) -> None:
    """Write plots as one SVG file."""
    width = _WIDTH * len(plots)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {_HEIGHT}" role="img">',
        f"<title>{escape('; '.join(plot.title for plot in plots))}</title>",
        f"<style>{_STYLE}</style>",
    ]
    for number, plot in enumerate(plots):
        parts += [f'<g transform="translate({_WIDTH * number} 0)">', *_drawn(plot), "</g>"]
    path.write_text("\n".join([*parts, "</svg>", ""]))


def _drawn(plot: Plot) -> Iterator[str]:
    top = _round_up(max(max(line.values) for line in plot.lines))
    right, bottom = _WIDTH - _RIGHT, _HEIGHT - _BOTTOM
    span = math.log(plot.x[-1] / plot.x[0]) or 1.0
    across = [_LEFT + (right - _LEFT) * math.log(x / plot.x[0]) / span for x in plot.x]
    yield f'<text class="title" x="{_LEFT}" y="18">{escape(plot.title)}</text>'
    for tick in range(_TICKS + 1):
        y = bottom - (bottom - _TOP) * tick / _TICKS
        yield f'<line class="grid" x1="{_LEFT}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}"/>'
        label = f"{top * tick / _TICKS:,g}"
        yield f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{label}</text>'
    yield f'<line class="axis" x1="{_LEFT}" x2="{right}" y1="{bottom}" y2="{bottom}"/>'
    for x, value in zip(across, plot.x, strict=True):
        yield f'<text x="{x:.1f}" y="{bottom + 16}" text-anchor="middle">{value:,}</text>'
    middle = (_LEFT + right) / 2
    yield f'<text x="{middle}" y="{bottom + 34}" text-anchor="middle">{escape(plot.x_title)}</text>'
    for number, line in enumerate(plot.lines):
        down = [bottom - (bottom - _TOP) * value / top for value in line.values]
        points = " ".join(f"{x:.1f},{y:.1f}" for x, y in zip(across, down, strict=True))
        yield f'<polyline class="line line{number}" points="{points}"/>'
        yield f'<text x="{right + 6}" y="{down[-1] + 4:.1f}">{escape(line.name)}</text>'


def _round_up(value: float) -> float:
    """Return 1, 2, 4 or 8 times a power of ten that is at least a value, which quarters divide well."""
    power = 10.0 ** math.floor(math.log10(value))
    return next(factor * power for factor in (1, 2, 4, 8, 10) if factor * power >= value)
