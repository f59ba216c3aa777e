"""A race as an SVG for light and dark backgrounds: a lane for each engine, one time axis."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from html import escape

from emsqrt.race.contest import Result, disagreeing, finals
from sennit_core.units import format_bytes

_WIDTH, _LEFT, _CHART, _HEIGHT = 960, 24, 912, 64
_OVER = 12
"""Height above the cap's line, for memory over the cap."""
_TEXT_CHARACTERS = 128
_POINTS = 456
_COLOURS = {
    "ground": ("#ffffff", "#11151d"),
    "ink": ("#1a1f2b", "#eef1f6"),
    "quiet": ("#5b6475", "#a3adbd"),
    "rule": ("#dfe3ea", "#2b3240"),
    "cap": ("#b42318", "#ff8a7a"),
    "held": ("#2563eb", "#7cb1ff"),
    "good": ("#15803d", "#5fd38a"),
}
"""Each on a light and on a dark background."""
_SANS, _MONO = "system-ui, sans-serif", "ui-monospace, monospace"
_KINDS: dict[str, dict[str, str]] = {
    "ground": {"fill": "ground"},
    "title": {"fill": "ink", "font-family": _SANS, "font-size": "18", "font-weight": "600"},
    "name": {"fill": "ink", "font-family": _SANS, "font-size": "13", "font-weight": "600"},
    "quiet": {"fill": "quiet", "font-family": _SANS, "font-size": "12"},
    "figures": {"fill": "ink", "font-family": _SANS, "font-size": "12"},
    "good": {"fill": "good", "font-family": _MONO, "font-size": "12"},
    "bad": {"fill": "cap", "font-family": _MONO, "font-size": "12"},
    "line": {"fill": "none", "stroke": "held", "stroke-width": "1.5"},
    "area": {"fill": "held", "fill-opacity": "0.15"},
    "cap": {"fill": "none", "stroke": "cap", "stroke-width": "1.2", "stroke-dasharray": "5 4"},
    "rule": {"fill": "none", "stroke": "rule", "stroke-width": "1"},
    "end": {"fill": "none", "stroke": "cap", "stroke-width": "2"},
}
"""The style of each kind of shape: SVG attributes, with the colour names above."""


def _attributes(kind: str) -> str:
    """Return a kind's attributes with the colours for a light background.

    They are plain attributes because many viewers do not support CSS variables and would draw such
    shapes in black; the style sheet only has the differences for a dark background.
    """
    drawn = {name: _COLOURS.get(value, (value,))[0] for name, value in _KINDS[kind].items()}
    return f'class="{kind}" ' + " ".join(f'{name}="{value}"' for name, value in drawn.items())


def _dark_style() -> str:
    rules = (
        f".{kind} {{ {name}: {_COLOURS[value][1]} }}"
        for kind, drawn in _KINDS.items()
        for name, value in drawn.items()
        if value in _COLOURS
    )
    return f"@media (prefers-color-scheme: dark) {{ {' '.join(rules)} }}"


def picture(title: str, cap_bytes: int, results: Sequence[Result]) -> str:
    """Return an SVG document.

    Args:
        title: what was raced.
        cap_bytes: the cap, drawn in every lane.
        results: every attempt; those that count are drawn.
    """
    shown = finals(results)
    seconds = max((each.ended.wall_seconds for each in shown), default=1.0)
    parts, top = [], 84
    for each in shown:
        lane, height = _lane(each, cap_bytes, seconds, top)
        parts.append(lane)
        top += height
    parts.append(_axis(seconds, top))
    for name, first in disagreeing(results):
        top += 20
        parts.append(_text(_LEFT, top + 26, "bad", f"{name} returned another answer than {first}"))
    height = top + 44
    under = f"RssAnon + RssShmem of the whole process tree, cap {format_bytes(cap_bytes)} (dashed)"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" '
        f'width="{_WIDTH}" height="{height}" role="img" aria-label="{escape(title)}">'
        f"<style>{_dark_style()}</style>"
        f'<rect width="{_WIDTH}" height="{height}" rx="10" {_attributes("ground")}/>'
        f"{_text(_LEFT, 36, 'title', title)}{_text(_LEFT, 58, 'quiet', under)}"
        f"{''.join(parts)}</svg>\n"
    )


def _lane(result: Result, cap_bytes: int, seconds: float, top: int) -> tuple[str, int]:
    ended = result.ended
    base = top + 24 + _OVER + _HEIGHT
    level = base - _HEIGHT
    figures = (
        f"wall {ended.wall_seconds:.1f} s · CPU {ended.cpu_seconds:.1f} s · "
        f"peak {format_bytes(ended.peak_bytes)} · spilled {format_bytes(ended.spilled_bytes)}"
    )
    name = f"{result.name} {result.version}"
    mark, tone = ("✓", "good") if result.well else ("✗", "bad")
    said = textwrap.wrap(f"{mark} {result.how_it_ended()}", _TEXT_CHARACTERS) or [mark]
    parts = [
        _text(_LEFT, top + 12, "name", name),
        _text(_LEFT + _CHART, top + 12, "figures", figures, anchor="end"),
        _curve(result, cap_bytes, seconds, base),
        f'<path {_attributes("rule")} d="M{_LEFT} {base}h{_CHART}"/>',
        f'<path {_attributes("cap")} d="M{_LEFT} {level}h{_CHART}"/>',
    ]
    if not result.well:
        x, y = _at(ended.wall_seconds, ended.peak_bytes, cap_bytes, seconds, base)
        parts.append(f'<path {_attributes("end")} d="M{x - 4:.1f} {y - 4:.1f}l8 8m0 -8l-8 8"/>')
    line = base + 18
    tries = f" (setting {result.number} of {result.attempts})" if result.attempts > 1 else ""
    for words in textwrap.wrap(result.attempt.settings + tries, _TEXT_CHARACTERS + 20):
        parts.append(_text(_LEFT, line, "quiet", words))
        line += 17
    for words in said:
        parts.append(_text(_LEFT, line, tone, words))
        line += 17
    return "".join(parts), line + 14 - top


def _curve(result: Result, cap_bytes: int, seconds: float, base: int) -> str:
    points = result.ended.trace.points()
    stride = max(len(points) // _POINTS, 1)
    kept = [
        (points[at][0], max(held for _, held in points[at : at + stride]))
        for at in range(0, len(points), stride)
    ]
    if not kept:
        return ""
    kept.append((result.ended.wall_seconds, kept[-1][1]))
    path = "L".join(
        f"{x:.1f} {y:.1f}"
        for x, y in (_at(at, held, cap_bytes, seconds, base) for at, held in kept)
    )
    first, last = (_at(at, 0, cap_bytes, seconds, base)[0] for at in (kept[0][0], kept[-1][0]))
    return (
        f'<path {_attributes("area")} d="M{first:.1f} {base}L{path}L{last:.1f} {base}z"/>'
        f'<path {_attributes("line")} d="M{path}"/>'
    )


def _at(
    at: float, held_bytes: int, cap_bytes: int, seconds: float, base: int
) -> tuple[float, float]:
    height = min(held_bytes / cap_bytes * _HEIGHT, _HEIGHT + _OVER)
    return _LEFT + at / seconds * _CHART, base - height


def _axis(seconds: float, top: int) -> str:
    step = next(
        (s for s in (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300) if seconds / s <= 10), 600
    )
    ticks = [at * step for at in range(int(seconds / step) + 1)]
    return "".join(
        _text(_LEFT + at / seconds * _CHART, top + 6, "quiet", f"{at:g} s", anchor="middle")
        if at
        else _text(_LEFT, top + 6, "quiet", "0")
        for at in ticks
    )


def _text(x: float, y: float, kind: str, words: str, anchor: str = "start") -> str:
    place = f'x="{x:.0f}" y="{y:.0f}" text-anchor="{anchor}"'
    return f"<text {place} {_attributes(kind)}>{escape(words)}</text>"
